"""Container images from a seed: layers as OCI archives, six classes that people run.

A class is a base that all images share, and layers of its own: some files of lower layers are
replaced, removed or linked to, a directory is made anew, and some files are equal to others.
File sizes are lognormal (median 3 KB, mean 15 KB); a part of the bytes can be compressed.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):  # run by its path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hyperbox.files import write_bytes
from hyperbox.storage.tar_writer import archive_end, tar_member
from workloads import command_line

__all__ = ["CLASSES", "ImageClass", "MadeLayer", "image_layers", "main"]

_MEDIAN, _SPREAD, _LARGEST = math.log(3000), 1.8, 4 << 20
_WORDS = 1 << 12  # bytes of the text that compressible parts are cut from


@dataclass(frozen=True)
class ImageClass:
    """What an image of a class has.

    Parameters
    ----------
    layers
        Files of each layer above the base, at scale 1.
    compressible
        Part of the bytes that is text.
    equal
        Part of the files whose data another file of the image set has, too.
    """

    title: str
    layers: tuple[int, ...]
    compressible: float
    equal: float = 0.05


CLASSES: Mapping[str, ImageClass] = {
    "distro": ImageClass("a distribution's base", (), 0.6),
    "language": ImageClass("an interpreter and its library", (400, 60), 0.7, 0.15),
    "database": ImageClass("a server with few, large files", (120, 20), 0.5),
    "web": ImageClass("a small server and its pages", (60, 40, 10), 0.6),
    "framework": ImageClass("an application's many packages", (500, 200, 50, 10), 0.8, 0.2),
    "jvm": ImageClass("archives that are compressed already", (80, 30), 0.1),
}
_BASE_FILES = 300


@dataclass(frozen=True)
class MadeLayer:
    """A layer's archive, not compressed."""

    archive: bytes

    @property
    def diff_id(self) -> str:
        """Digest of the archive."""
        return f"sha256:{hashlib.sha256(self.archive).hexdigest()}"


def image_layers(name: str, seed: int = 0, scale: float = 1.0) -> list[MadeLayer]:
    """Return the layers of an image, the lowest first; the same for the same arguments.

    Parameters
    ----------
    name
        One of `CLASSES`.
    scale
        Files for each one of the class.
    """
    kind = CLASSES[name]
    base = _Layers(random.Random(f"base {seed}"), CLASSES["distro"], seed)
    own = _Layers(random.Random(f"{name} {seed}"), kind, seed)
    made = [base.layer(0, max(4, round(_BASE_FILES * scale)))]
    own.names = list(base.names)
    for number, files in enumerate(kind.layers, start=1):
        made.append(own.layer(number, max(4, round(files * scale))))
    return made


class _Layers:
    """Makes one layer on the other, and remembers the names below."""

    def __init__(self, chance: random.Random, kind: ImageClass, seed: int) -> None:
        self._chance = chance
        self._kind = kind
        self._common = random.Random(f"common {seed}")
        self._text = bytes(self._common.choices(b"etaoin shrdlu\n{}();=_", k=_WORDS))
        self.names: list[bytes] = []

    def layer(self, number: int, files: int) -> MadeLayer:
        """Return a layer of so many files."""
        members = [*self._changes(number), *self._files(number, files)]
        return MadeLayer(b"".join(members) + archive_end())

    def _files(self, number: int, files: int) -> Iterator[bytes]:
        fresh = []
        for place in range(files):
            directory = b"usr/lib/part-%d-%02d" % (number, place % 23)
            name = b"%s/%s-%04d" % (directory, self._kind.title.split()[1].encode(), place)
            if place < 23:
                yield tar_member(directory + b"/", kind=b"5", mode=0o755, mtime=number)
            yield tar_member(name, self._data(), mode=self._mode(), mtime=1000 + place)
            fresh.append(name)
        for place, target in enumerate(self._chance.sample(fresh, len(fresh) // 20)):
            yield tar_member(b"bin/link-%d-%d" % (number, place), kind=b"1", link=target)
            link = b"/" + target
            yield tar_member(b"bin/name-%d-%d" % (number, place), kind=b"2", link=link, mode=0o777)
        self.names += fresh

    def _changes(self, number: int) -> Iterator[bytes]:
        """Yield what the layer does to lower ones: removes, replaces, links, hides."""
        hidden = b"usr/lib/part-%d-00" % (number - 1)
        kept = [name for name in self.names if not name.startswith(hidden + b"/")]
        below = self._chance.sample(kept, len(kept) // 10)
        for place, name in enumerate(below):
            directory, _, last = name.rpartition(b"/")
            if place % 3 == 0:
                yield tar_member(directory + b"/.wh." + last)
                kept.remove(name)
            elif place % 3 == 1:
                yield tar_member(name, self._data(), mtime=2000 + place)
            else:
                yield tar_member(b"bin/lower-%d-%d" % (number, place), kind=b"1", link=name)
        if number:
            yield tar_member(hidden + b"/.wh..wh..opq")
        self.names = kept

    def _data(self) -> bytes:
        if self._chance.random() < self._kind.equal:
            common = random.Random(self._chance.randrange(40))
            return self._bytes(common, 20_000)
        size = min(_LARGEST, int(self._chance.lognormvariate(_MEDIAN, _SPREAD)))
        return self._bytes(self._chance, size)

    def _bytes(self, chance: random.Random, size: int) -> bytes:
        text = int(size * self._kind.compressible)
        start = chance.randrange(_WORDS)
        whole = self._text[start:] + self._text * (text // _WORDS + 1)
        return chance.randbytes(size - text) + whole[:text]

    def _mode(self) -> int:
        return self._chance.choice((0o644, 0o644, 0o644, 0o755, 0o600, 0o4755))


def main(argv: Sequence[str] | None = None) -> int:
    """Write an image's layers, compressed; print where they are and their digests."""
    parser = command_line.parser(
        "images", __doc__, "python3 -m workloads.images --image web --directory /tmp/web"
    )
    parser.add_argument("--image", choices=tuple(CLASSES), default="web", help="class of the image")
    parser.add_argument(
        "--directory", type=Path, default=Path("image"), help="where the layers are written"
    )
    parser.add_argument("--seed", type=command_line.whole(0), default=0, help="of everything")
    parser.add_argument(
        "--scale", type=command_line.number(0.001, 1000), default=1.0, help="files for each one"
    )
    options = parser.parse_args(argv)
    layers = []
    for number, made in enumerate(image_layers(options.image, options.seed, options.scale)):
        path = options.directory / f"{number}.tar.gz"
        write_bytes(path, gzip.compress(made.archive, mtime=0))
        layers.append({"path": str(path), "diff_id": made.diff_id})
    print(json.dumps({"image": options.image, "layers": layers}))
    return 0


if __name__ == "__main__":
    sys.exit(command_line.ended(main))
