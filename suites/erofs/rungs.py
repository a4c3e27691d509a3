"""Images on every rung that the kernel has: the same tree, right bytes, damage found.

Every name of every image is compared with what its layers say, then random parts of random files
are; then each kind of file that a rung mounts is flipped by a bit, cut and emptied, and the image
must not mount. What the ladder chooses must be the best rung that works.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hyperbox.errors import ImageError, KernelFeatureMissing, WorkloadError
from hyperbox.storage.artifacts import files_of
from hyperbox.storage.conversion import Converted, Converter
from hyperbox.storage.inode import Content
from hyperbox.storage.ladder import Enabled, choose, probed
from hyperbox.storage.layer_reading import Layer
from hyperbox.storage.layer_store import LayerStore
from hyperbox.storage.listing import ListedEntry, differences, list_directory, list_tree
from hyperbox.storage.rung import LADDER, Rung
from suites.erofs.image_set import ImageSet, write_images
from suites.program import Measured, run_program, seed

__all__ = ["main"]

_SCALE = 0.1
_READS = 10_000  # of an image, over all rungs
_READS_OF_A_FILE = 20
_DAMAGED = 6  # files of an image and a rung
_LONGEST = 20_000


@dataclass
class _Tally:
    """What was found."""

    reads: int = 0
    wrong: list[str] = field(default_factory=list)
    undetected: list[str] = field(default_factory=list)
    wrong_choices: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Expected:
    """What an image has to show: every name, and the files with data."""

    names: Mapping[bytes, ListedEntry]
    files: Sequence[tuple[Path, Content]]
    data: LayerStore

    @classmethod
    def of(cls, source: Converter, layers: Sequence[Layer]) -> _Expected:
        tree = source.tree(layers)
        files = [
            (Path(*map(os.fsdecode, path)), node.inode.content)
            for path, node in tree.walk()
            if node.inode.content.size
        ]
        return cls(list_tree(tree), files, source.layers)


def main() -> int:
    """Measure; return the exit status."""
    return run_program(_measure)


def _measure() -> Measured:
    tally, refused = _Tally(), {}
    with tempfile.TemporaryDirectory(prefix="hyperbox-") as directory:
        images = write_images(Path(directory), seed(), _SCALE)
        source = Converter(Path(directory) / "source")
        expected = {name: _Expected.of(source, one) for name, one in images.images.items()}
        top = Path(directory)
        tried = probed(top / "tried.json", top, tuple(Rung)).values()
        reads = -(-_READS // max(1, sum(not why for why in tried)))
        for rung in Rung:
            try:
                _on_rung(images, rung, expected, tally, reads)
            except (KernelFeatureMissing, WorkloadError) as error:
                refused[rung] = error.message
        _choices(Path(directory), refused, tally)
    working = len(Rung) - len(refused)
    if not working:
        raise KernelFeatureMissing(f"no rung works: {refused}")
    return Measured(
        {
            "wrong": float(len(tally.wrong)),
            "undetected": float(len(tally.undetected)),
            "wrong_choices": float(len(tally.wrong_choices)),
            "reads": float(tally.reads),
            "rungs": float(working),
        },
        {
            "refused": {str(rung): why for rung, why in refused.items()},
            "examples": [*tally.wrong[:5], *tally.undetected[:5], *tally.wrong_choices[:5]],
        },
    )


def _on_rung(
    images: ImageSet, rung: Rung, expected: Mapping[str, _Expected], tally: _Tally, reads: int
) -> None:
    chance = random.Random(f"{rung} {seed()}")  # noqa: S311 - repeatable, not secret
    converter = Converter(images.directory / f"store-{rung}")
    point = images.directory / f"mount-{rung}"
    point.mkdir()
    for name, layers in images.images.items():
        image = converter.convert(layers, rung)
        with converter.mounted(image, point):
            found = differences(expected[name].names, list_directory(point))
            tally.wrong += [f"{rung} {name}: {line}" for line in found]
            _read(expected[name], point, chance, tally, reads)
    _damage(converter, image, point, chance, tally)


def _read(
    expected: _Expected, point: Path, chance: random.Random, tally: _Tally, reads: int
) -> None:
    """Compare random parts of random files with what the layers have there."""
    for path, content in chance.choices(expected.files, k=-(-reads // _READS_OF_A_FILE)):
        whole = b"".join(expected.data.pieces(content))
        with (point / path).open("rb", buffering=0) as stream:
            for _ in range(_READS_OF_A_FILE):
                offset, length = chance.randrange(content.size), chance.randrange(1, _LONGEST)
                found = os.pread(stream.fileno(), length, offset)
                if found != whole[offset : offset + length]:
                    tally.wrong.append(f"{str(path)!r} at {offset}, {length} bytes")
                tally.reads += 1


def _damage(
    converter: Converter, image: Converted, point: Path, chance: random.Random, tally: _Tally
) -> None:
    """Damage files of an image one after the other; none may mount."""
    files = sorted(files_of(image.manifest))
    largest = sorted(files, key=lambda path: path.stat().st_size)[-2:]
    for path in {*largest, image.path, *chance.sample(files, min(_DAMAGED, len(files)))}:
        if not path.is_file() or not path.stat().st_size:
            continue  # of an empty file there is nothing to damage
        data = path.read_bytes()
        bit = chance.randrange(8 * len(data))
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        for what, damaged in (
            ("flipped", flipped),
            ("cut", data[: len(data) // 2]),
            ("empty", b""),
        ):
            _overwrite(path, bytes(damaged))
            with contextlib.suppress(ImageError), converter.mounted(image, point):
                tally.undetected.append(f"{image.rung}: {path.name} {what}")
        _overwrite(path, data)


def _overwrite(path: Path, data: bytes) -> None:
    """Write in place, as a failing disk does."""
    handle = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(handle, data)
    finally:
        os.close(handle)


def _choices(directory: Path, refused: dict[Rung, str], tally: _Tally) -> None:
    """Compare what the ladder chooses with what worked here."""
    answers = probed(directory / "rungs.json", directory)
    for enabled in Enabled:
        working = [
            rung
            for rung in LADDER
            if rung not in refused and not (rung is Rung.EROFS and enabled is Enabled.OFF)
        ]
        expected: Rung | None = working[0] if working else None
        if enabled is Enabled.ON and Rung.EROFS in refused:
            expected = None
        try:
            choice = choose(enabled, answers)
            chosen, reasons = choice.rung, all(choice.reason.count(w) for w in choice.refused)
        except KernelFeatureMissing:
            chosen, reasons = None, True
        if chosen is not expected or not reasons:
            tally.wrong_choices.append(f"{enabled}: {chosen}, not {expected}")


if __name__ == "__main__":
    sys.exit(main())
