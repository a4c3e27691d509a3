"""The guard of a fanotify group: without anybody who serves, readers fail and see no hole."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperbox.errors import KernelFeatureMissing
from hyperbox.linux.fanotify import mark_file, open_group
from hyperbox.storage.lazy.fanotify_guard import start_guard

pytestmark = pytest.mark.root

READ = """
import sys
try:
    print(len(open(sys.argv[1], "rb").read()))
except OSError as error:
    print(-error.errno)
"""


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A file of zeros whose group only the guard has, and the file that ends the guard."""
    path, presence = tmp_path / "data", tmp_path / "guard"
    path.write_bytes(bytes(1 << 16))
    try:
        group = open_group()
        mark_file(group, path)
    except KernelFeatureMissing as missing:
        pytest.skip(missing.message)
    start_guard(group, presence, patience_s=0.0)
    os.close(group)
    yield path, presence
    presence.unlink(missing_ok=True)


def reading(path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", READ, path], stdout=subprocess.PIPE)


def test_reads_that_nobody_serves_are_errors(guarded: tuple[Path, Path]) -> None:
    path, _ = guarded
    assert reading(path).communicate(timeout=60)[0].strip() == b"-%d" % errno.EIO


def test_reads_wait_while_somebody_has_the_lock(guarded: tuple[Path, Path]) -> None:
    path, presence = guarded
    with presence.open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        reader = reading(path)
        with pytest.raises(subprocess.TimeoutExpired):
            reader.wait(1.0)  # nobody answers: neither an error nor zeros
    assert reader.communicate(timeout=60)[0].strip() == b"-%d" % errno.EIO


def test_guard_ends_with_its_file(guarded: tuple[Path, Path]) -> None:
    path, presence = guarded
    presence.unlink()
    while reading(path).communicate(timeout=60)[0].strip() != b"65536":  # the group has ended
        pass
