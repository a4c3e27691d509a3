"""Archives for tests: made by GNU tar, and by hand where it makes no such thing."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

from hyperbox.storage.layer_reading import Layer

BLOCK = 512


def member(
    name: bytes,
    data: bytes = b"",
    *,
    kind: bytes = b"0",
    link: bytes = b"",
    mode: int = 0o644,
    pax: Mapping[bytes, bytes] | None = None,
    mtime: int = 0,
) -> bytes:
    """A ustar member, behind an extended header if there are records."""
    before = b""
    if pax:
        records = b"".join(record(key, value) for key, value in pax.items())
        before = member(b"pax", records, kind=b"x")
    fields = [
        name[:100].ljust(100, b"\0"),
        b"%07o\0" % mode,
        b"0000000\0" * 2,
        b"%011o\0%011o\0" % (len(data), mtime),
        b" " * 8 + kind,
        link.ljust(100, b"\0") + b"ustar\x0000",
    ]
    header = b"".join(fields).ljust(BLOCK, b"\0")
    header = header[:148] + b"%06o\0 " % sum(header) + header[156:]
    return before + header + data + bytes(-len(data) % BLOCK)


def record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    while len(b"%d" % length) + len(key) + len(value) + 3 != length:
        length = len(b"%d" % length) + len(key) + len(value) + 3
    return b"%d %s=%s\n" % (length, key, value)


def archive(*members: bytes) -> bytes:
    return b"".join(members) + bytes(2 * BLOCK)


def layer(path: Path, data: bytes, raw: bytes | None = None) -> Layer:
    """A layer of an archive; `raw` is it decompressed, where `data` is not."""
    path.write_bytes(data)
    digest = hashlib.sha256(data if raw is None else raw).hexdigest()
    return Layer(path, "application/vnd.oci.image.layer.v1.tar", f"sha256:{digest}")


def gnu_tar(directory: Path, *options: str) -> bytes:
    """What GNU tar makes of a directory."""
    words = ["tar", "--sparse", "--sort=name", *options, "-cf", "-", "-C", str(directory), "."]
    return subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout


def rich_tree(top: Path) -> None:
    """A tree with a file of every kind; needs root."""
    below = top / "usr" / "lib"
    below.mkdir(parents=True)
    (below / "data").write_bytes(bytes(range(256)) * 100)
    (below / "block").write_bytes(b"b" * 4096)
    (below / "short").write_bytes(b"short")
    (below / "empty").touch()
    os.link(below / "data", top / "name of its own")
    (top / "link").symlink_to("usr//lib/./data")
    (top / "away").symlink_to("/../../etc/passwd")
    os.mknod(top / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(top / "disk", stat.S_IFBLK | 0o660, os.makedev(259, 300_000))
    os.mkfifo(top / "fifo")
    Path(os.fsdecode(os.fsencode(top) + b"/new\nline\xff\xfe")).write_bytes(b"name" * 50)
    os.chown(below / "short", 3_000_000_000, 4_000_000_000)
    (below / "block").chmod(0o6755)
    os.setxattr(below / "data", "user.binary", b"\0\n=\xff")
    os.setxattr(below / "data", "security.capability", b"\1\0\0\2\0\x20" + bytes(14))
    with (top / "sparse").open("wb") as stream:
        for place in (5 << 20, 9 << 20):
            stream.seek(place)
            stream.write(b"data")
        stream.truncate(12 << 20)
    many = top / "many"
    many.mkdir()
    for number in range(300):
        (many / f"a name of some length, number {number:03}").write_bytes(b"%d" % number)
    os.utime(below / "block", ns=(1, -1_500_000_000))
    os.utime(top / "link", ns=(1, 1_234_567_891), follow_symlinks=False)
