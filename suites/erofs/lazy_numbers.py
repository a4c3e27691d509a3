"""What reads of a lazy mount cost beside those of an image that is here, on EROFS and on overlayfs.

The same image three times: served by a mechanism (``lazy``), mounted as a whole (``erofs``), and as
unpacked files below overlayfs (``overlay``). Timed are the mount, a start (6.4 % of the bytes), and
with all bytes on disk random reads of 4 KiB from disk and from memory, and a sequential read.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hyperbox.errors import KernelFeatureMissing, WorkloadError
from hyperbox.linux.knob import write_knob
from hyperbox.linux.loop import attach_loop
from hyperbox.linux.modules import load_module
from hyperbox.linux.mounts import mount, unmount
from hyperbox.storage.lazy.mechanism import Mechanism
from suites.erofs.lazy_lab import LazyLab, lazy_lab
from suites.program import Measured, run_program, seed

__all__ = ["main"]

_READS = 400
_LENGTH = 4096
_START = 0.064  # of an image's bytes are read at its start: Slacker, FAST 2016
_DROP = Path("/proc/sys/vm/drop_caches")
_READ_ONLY = 1  # MS_RDONLY


def main() -> int:
    """Measure one arm; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=sorted(_WAYS))
    parser.add_argument("--mechanism", choices=[str(one) for one in Mechanism], required=True)
    chosen = parser.parse_args()
    return run_program(lambda: _measure(chosen.way, Mechanism(chosen.mechanism)))


def _measure(way: str, mechanism: Mechanism) -> Measured:
    with lazy_lab(seed()) as lab:
        lab.point.mkdir(exist_ok=True)
        lab.mount("trial", mechanism)  # or the kernel has no such mechanism, for any arm
        lab.unmount("trial")
        lab.forget()
        sent = lab.server.sent
        write_knob(_DROP, 3)
        with _WAYS[way](lab, mechanism) as mount_ms:
            return _read(lab, mount_ms, lambda: lab.server.sent - sent, way)


def _read(lab: LazyLab, mount_ms: float, sent: Callable[[], int], way: str) -> Measured:
    seeded = random.Random(seed())  # noqa: S311 - repeatable
    names = sorted(lab.contents)
    seeded.shuffle(names)
    size, done, place = sum(map(len, lab.contents.values())), 0, 0
    began = time.monotonic()
    while done < size * _START:
        done += _all_of(lab, names[place])
        place += 1
    start_ms = 1000 * (time.monotonic() - began)
    fetched = sent() if way == "lazy" else lab.layer.size
    for name in names[place:]:
        _all_of(lab, name)
    places = [_place(lab, seeded.choice(names), seeded) for _ in range(_READS)]
    write_knob(_DROP, 3)
    cold, warm = _random(lab, places), _random(lab, places)
    write_knob(_DROP, 3)
    began = time.monotonic()
    for name in names:
        _all_of(lab, name)
    sequential = time.monotonic() - began
    return Measured(
        {
            "mount": mount_ms,
            "start": start_ms,
            "fetched": float(fetched),
            "cold": cold,
            "warm": warm,
            "sequential": 1000 * sequential / (size / (1 << 20)),
            "memory": float(_memory_kib(lab) if way == "lazy" else 0),
        },
        {"bytes": size, "reads": _READS},
    )


def _all_of(lab: LazyLab, name: str) -> int:
    data = (lab.point / name).read_bytes()
    if data != lab.contents[name]:
        raise WorkloadError(f"{name} has wrong bytes")
    return len(data)


def _place(lab: LazyLab, name: str, seeded: random.Random) -> tuple[str, int]:
    return name, seeded.randrange(max(len(lab.contents[name]) // _LENGTH, 1)) * _LENGTH


def _random(lab: LazyLab, places: Sequence[tuple[str, int]]) -> float:
    """Return microseconds of a read, on average; opening is not timed."""
    spent = 0
    for name, offset in places:
        handle = os.open(lab.point / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)  # no read-ahead
            began = time.monotonic_ns()
            os.pread(handle, _LENGTH, offset)
            spent += time.monotonic_ns() - began
        finally:
            os.close(handle)
    return spent / 1000 / len(places)


def _memory_kib(lab: LazyLab) -> int:
    """Return the peak of the memory that the worker has had."""
    status = Path(f"/proc/{lab.service.worker()}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


@contextlib.contextmanager
def _lazy(lab: LazyLab, mechanism: Mechanism) -> Iterator[float]:
    began = time.monotonic()
    lab.mount("numbers", mechanism)
    yield 1000 * (time.monotonic() - began)
    lab.unmount("numbers")


@contextlib.contextmanager
def _erofs(lab: LazyLab, _mechanism: Mechanism) -> Iterator[float]:
    image = lab.disk / "whole"
    shutil.copyfile(lab.image, image)
    write_knob(_DROP, 3)
    load_module("erofs")
    began = time.monotonic()
    try:
        mount("erofs", lab.point, source=os.fspath(image), flags=_READ_ONLY)
    except KernelFeatureMissing:  # before 6.12: through a loop device
        backing = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
        device, held = attach_loop(backing, "whole")
        mount("erofs", lab.point, source=os.fspath(device), flags=_READ_ONLY)
        os.close(backing)
        os.close(held)
    yield from _until_unmounted(lab, began)


@contextlib.contextmanager
def _overlay(lab: LazyLab, _mechanism: Mechanism) -> Iterator[float]:
    lower, empty = lab.disk / "lower", lab.disk / "empty"
    for directory in (lower, empty):
        directory.mkdir()
    with tarfile.open(lab.tar) as archive:
        archive.extractall(lower, filter="data")
    os.sync()
    write_knob(_DROP, 3)
    load_module("overlay")
    began = time.monotonic()
    mount("overlay", lab.point, options=f"lowerdir={lower}:{empty}", flags=_READ_ONLY)
    yield from _until_unmounted(lab, began)


def _until_unmounted(lab: LazyLab, began: float) -> Iterator[float]:
    mounted = time.monotonic()
    try:
        yield 1000 * (mounted - began)
    finally:
        unmount(lab.point)


_WAYS = {"lazy": _lazy, "erofs": _erofs, "overlay": _overlay}


if __name__ == "__main__":
    sys.exit(main())
