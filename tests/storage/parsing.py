"""The parsers of what others wrote about images, and inputs to them: kept, and damaged anew.

The corpus in ``tests/storage/corpus/PARSER/`` was found by campaigns: an input is kept if it
reaches a line that no other one reaches. A campaign of some seconds for each parser goes on from
there, and keeps what it finds::

    python -m tests.storage.parsing --seconds 60
"""

from __future__ import annotations

import argparse
import hashlib
import io
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from hyperbox.errors import HyperboxError
from hyperbox.storage.challenges import parse_challenges
from hyperbox.storage.compression import decompressed
from hyperbox.storage.erofs_format import check_super_block
from hyperbox.storage.inode import Content
from hyperbox.storage.layer import change_of
from hyperbox.storage.layer_index import decode_changes
from hyperbox.storage.limits import Limits
from hyperbox.storage.oci import parse_config, parse_manifest_or_index
from hyperbox.storage.reference import parse_reference
from hyperbox.storage.registry import content_range
from hyperbox.storage.tar_stream import TarStream
from hyperbox.storage.transport import retry_after
from hyperbox.storage.zstd import ZstdStream

CORPUS = Path(__file__).parent / "corpus"
_LIMITS = Limits(entries=200, depth=20, total_bytes=1 << 20, header_bytes=1 << 14)
_LONGEST = 16 << 10
_NUMBERS = (b"0", b"-1", b"00000000000\0", b"77777777777\0", b"\x80" + bytes(11), b"\xff" * 12)
_TEXTS = (
    *(b"../", b"/", b"\0", b"\n", b'"', b"{", b"}", b"[", b"]", b":", b",", b"=", b"\\", b" "),
    *(b"null", b"true", b"1e999", b"sha256:", b"0" * 64, b"9" * 30, b"[" * 200, b"ustar  \0"),
    *(b"10 path=a\n", b"GNU.sparse.map=0,1", b"SCHILY.xattr.user.a=", b".wh.", b".wh..wh..opq"),
    *(b"\x28\xb5\x2f\xfd", b"\x1f\x8b\x08", b"\x50\x2a\x4d\x18", b"\xe2\xe1\xf5\xe0"),
)


def _tar(data: bytes) -> None:
    tar = TarStream(decompressed(io.BytesIO(data), ratio=100, free=1 << 20), _LIMITS)
    for entry in tar:
        for _ in tar.data():
            pass
        change_of(entry.header, Content(), _LIMITS)
    tar.finish()


def _zstd(data: bytes) -> None:
    stream, size = ZstdStream(io.BytesIO(data)), 0
    while size < 1 << 20 and (piece := stream.read(1 << 16)):
        size += len(piece)


def _index(data: bytes) -> None:
    rows: Any = [[part.decode("latin-1") for part in row.split(b",")] for row in data.split(b"\n")]
    decode_changes(rows, "blob")


def _text(parser: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: parser(data.decode("latin-1"))


PARSERS: Mapping[str, tuple[Callable[[bytes], object], tuple[type[Exception], ...]]] = {
    "tar": (_tar, (HyperboxError,)),
    "zstd": (_zstd, (OSError, EOFError)),
    "erofs": (lambda data: check_super_block(data, len(data)), (HyperboxError,)),
    "manifest": (lambda data: parse_manifest_or_index(data, "manifest", ""), (HyperboxError,)),
    "config": (parse_config, (HyperboxError,)),
    "layer-index": (_index, (ValueError, TypeError, IndexError)),
    "challenge": (_text(lambda text: parse_challenges([text])), ()),
    "content-range": (_text(content_range), ()),
    "retry-after": (_text(lambda text: retry_after(text, 0.0)), ()),
    "reference": (_text(parse_reference), (HyperboxError,)),
}
"""Each parser with what it may raise."""


def corpus(name: str) -> list[bytes]:
    """Return the kept inputs of a parser."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def parsed(name: str, data: bytes) -> None:
    """Parse an input; raise only what the parser must not raise."""
    parser, expected = PARSERS[name]
    try:
        parser(data)
    except expected:
        pass
    except Exception as error:
        error.add_note(f"the input: {data[:2000]!r}")
        raise


def damaged(inputs: list[bytes], chance: random.Random) -> bytes:
    """Return one of the inputs with a few pieces changed."""
    data = bytearray(chance.choice(inputs))
    for _ in range(chance.choice((1, 1, 2, 4))):
        start = chance.randint(0, len(data))
        end = min(len(data), start + chance.choice((0, 1, 1, 8, 12, 512)))
        other = chance.choice(inputs)
        place = chance.randint(0, len(other))
        new = (
            b"",
            chance.randbytes(1),
            chance.choice(_NUMBERS),
            chance.choice(_TEXTS),
            other[place : place + chance.choice((1, 12, 512))],
        )
        data[start:end] = chance.choice(new)
    return bytes(data[:_LONGEST])


def _with_sums(data: bytes) -> bytes:
    """Return an archive with right checksums of its headers, so that more of it is read."""
    whole = bytearray(data)
    for place in range(0, len(whole) - 511, 512):
        block = whole[place : place + 512]
        if block[257:262] == b"ustar":
            total = sum(block[:148]) + 8 * 32 + sum(block[156:])
            whole[place + 148 : place + 156] = b"%06o\0 " % total
    return bytes(whole)


def _lines(name: str, data: bytes) -> set[tuple[CodeType, int]]:
    """Return the lines of the storage package that an input reaches."""
    found: set[tuple[CodeType, int]] = set()

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        if "hyperbox/storage" not in frame.f_code.co_filename:
            return None
        found.add((frame.f_code, frame.f_lineno))
        return trace

    sys.settrace(trace)
    try:
        parsed(name, data)
    finally:
        sys.settrace(None)
    return found


def _campaign(name: str, seconds: float, chance: random.Random) -> Iterator[bytes]:
    """Yield inputs that reach new lines."""
    inputs = corpus(name)
    known = set().union(*(_lines(name, data) for data in inputs))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = damaged(inputs, chance)
        if name == "tar" and chance.random() < 0.9:
            data = _with_sums(data)
        if new := _lines(name, data) - known:
            known |= new
            inputs.append(data)
            yield data


def main() -> None:
    """Run a campaign for each parser."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name in PARSERS:
        for data in _campaign(name, options.seconds, random.Random(options.seed)):
            digits = hashlib.sha256(data).hexdigest()[:12]
            (CORPUS / name / digits).write_bytes(data)
        print(name, len(corpus(name)))


if __name__ == "__main__":
    main()
