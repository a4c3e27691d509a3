"""Reads of a lazy mount while its source lies, its process dies, or nothing is to be fetched.

``--scene integrity``: the source flips, cuts, refuses; ``survival``: the worker is killed while
readers read; ``orphaned``: its supervisor is killed with it; ``persistence``: a second use, after a
restart too, fetches nothing; ``ladder``: which mechanism is chosen where none is asked for;
``volume``: so many reads over faults and kills, each image fetched anew again and again. Each on
every mechanism that the kernel has. Every read is compared with the file that it should be of.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from hyperbox.errors import KernelFeatureMissing
from hyperbox.linux.knob import write_knob
from hyperbox.storage.lazy.mechanism import Mechanism
from suites.erofs.lazy_lab import LazyLab, lazy_lab
from suites.program import Measured, run_program, seed

__all__ = ["main"]

_READERS = 4
_FAULTS = ("flip", "cut", "short", "wrong range", "refuse", "no range")
_FAULT_S = 1.0
_KILLS = 2
_LONGEST = 60_000
_SHORTEST = 4096  # bytes at most of most reads, where it is their number that counts
_ROUND = 20_000  # reads until an image is fetched anew
_COLD = 20  # one read in so many is not from memory


@dataclass
class _Tally:
    """What readers have seen."""

    reads: int = 0
    wrong: int = 0
    errors: int = 0
    short: int = 0
    examples: list[str] = field(default_factory=list)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def add(self, where: str, found: bytes | None, expected: bytes) -> None:
        """Count a read: its bytes, or None for an error."""
        with self.guard:
            self.reads += 1
            if found is None:
                self.errors += 1
            elif found == expected:
                pass
            elif found and expected.startswith(found):  # what was read before an error
                self.short += 1
            else:
                self.wrong += 1
                zeros = len(found) - len(found.rstrip(b"\0"))
                self.examples.append(f"{where}: {len(found)} bytes, {zeros} zeros at their end")


def _read(
    lab: LazyLab, tally: _Tally, name: str, offset: int, length: int, *, cold: bool = False
) -> bool:
    """Read a range of a file and count it; whether all of it came."""
    expected = lab.contents[name][offset : offset + length]
    try:
        handle = os.open(lab.point / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if cold:
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            found = os.pread(handle, length, offset)
        finally:
            os.close(handle)
    except OSError:
        tally.add(name, None, expected)
        return False
    tally.add(f"{name} at {offset}", found, expected)
    return len(found) == len(expected)


@contextlib.contextmanager
def _readers(lab: LazyLab, tally: _Tally, longest: int = _LONGEST) -> Iterator[None]:
    """Let threads read at random for the block."""
    ending = threading.Event()

    def work(number: int) -> None:
        seeded = random.Random(seed() * 100 + number + tally.reads)  # noqa: S311 - repeatable
        names = sorted(lab.contents)
        while not ending.is_set():
            name = seeded.choice(names)
            offset = seeded.randrange(len(lab.contents[name]))
            cold = not seeded.randrange(_COLD)
            _read(lab, tally, name, offset, seeded.randrange(1, longest), cold=cold)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(_READERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ending.set()
        for thread in threads:
            thread.join()


def _everything(lab: LazyLab, tally: _Tally) -> int:
    """Read all files from disk, not from memory; return how many cannot be read."""
    write_knob(Path("/proc/sys/vm/drop_caches"), 3)
    return sum(not _read(lab, tally, name, 0, len(data) + 1) for name, data in lab.contents.items())


def _integrity(lab: LazyLab, tally: _Tally) -> Mapping[str, float]:
    with _readers(lab, tally):
        for fault in _FAULTS:
            lab.server.fault = fault
            time.sleep(_FAULT_S)
            lab.server.fault = ""
            time.sleep(_FAULT_S / 5)
        time.sleep(3 * _FAULT_S)
    return {"unreadable": _everything(lab, tally)}


def _survival(lab: LazyLab, tally: _Tally) -> Mapping[str, float]:
    seeded = random.Random(seed())  # noqa: S311 - repeatable
    lab.server.pause_s = 0.02  # so that there is something to interrupt
    with _readers(lab, tally):
        for _ in range(_KILLS):
            worker = lab.service.worker()
            time.sleep(seeded.random())
            os.kill(worker, signal.SIGKILL)
        lab.service.worker()
        time.sleep(0.5)
    lab.server.pause_s = 0.0
    return {"unreadable": _everything(lab, tally)}


def _orphaned(lab: LazyLab, tally: _Tally) -> Mapping[str, float]:
    """Kill worker and supervisor at once: what is not here is an error, and nothing is zeros."""
    for name in sorted(lab.contents)[: len(lab.contents) // 3]:
        _read(lab, tally, name, 0, _LONGEST)
    lab.service.kill()
    failed = _everything(lab, tally)
    lab.service.start()
    for one in lab.service.ask("GET", "/images/mounts"):
        lab.service.ask("DELETE", f"/images/mounts/{one['name']}")
    return {"unreadable": 0.0 if failed else 1.0}  # none failed: then nothing was tried


def _persistence(lab: LazyLab, tally: _Tally) -> Mapping[str, float]:
    unreadable = _everything(lab, tally)
    lab.service.ask("POST", f"/images/mounts/{lab.state()['name']}/complete", {})
    while lab.state()["missing_chunks"]:
        time.sleep(0.1)
    time.sleep(0.5)  # until what was written is marked
    sent = lab.server.sent
    os.kill(lab.service.worker(), signal.SIGKILL)
    lab.service.worker()
    unreadable += _everything(lab, tally)
    return {"unreadable": unreadable, "fetched_again": lab.server.sent - sent}


def _ladder(lab: LazyLab, tally: _Tally) -> Mapping[str, float]:
    """Compare the whole tree: names, and all bytes."""
    found = {
        os.fspath((Path(directory) / name).relative_to(lab.point))
        for directory, _, names in os.walk(lab.point)
        for name in names
    }
    tally.wrong += len(found ^ set(lab.contents))
    return {"unreadable": _everything(lab, tally)}


def _volume(lab: LazyLab, tally: _Tally, reads: int) -> Mapping[str, float]:
    """Read so many times; every round has all faults and a kill, and fetches the image anew."""
    seeded = random.Random(seed())  # noqa: S311 - repeatable
    unreadable, mechanism = 0, Mechanism(lab.state()["mechanism"])
    while tally.reads < reads:
        aim = min(reads, tally.reads + _ROUND)
        with _readers(lab, tally, _SHORTEST):
            for fault in _FAULTS:
                lab.server.fault = fault
                time.sleep(seeded.random() / 5)
                lab.server.fault = ""
                time.sleep(seeded.random() / 20)
            worker = lab.service.worker()
            os.kill(worker, signal.SIGKILL)
            lab.service.worker()
            while tally.reads < aim:
                time.sleep(0.05)
        unreadable += _everything(lab, tally)
        lab.unmount(lab.state()["name"])
        lab.forget()
        lab.mount(f"volume-{tally.reads}", mechanism)
    return {"unreadable": unreadable}


def _choice(lab: LazyLab, worked: Sequence[str], notes: dict[str, object]) -> float:
    """Return whether another mechanism is chosen than the first that works: 1 or 0."""
    chosen = []
    try:
        made = lab.mount("chosen", None)
    except KernelFeatureMissing as missing:
        notes["chosen"] = missing.message
    else:
        notes["chosen"] = made["reason"]
        chosen = [made["mechanism"]]
        lab.unmount("chosen")
    return float(chosen != list(worked[:1]))


_SCENES: Mapping[str, Callable[[LazyLab, _Tally], Mapping[str, float]]] = {
    "integrity": _integrity,
    "survival": _survival,
    "orphaned": _orphaned,
    "persistence": _persistence,
    "ladder": _ladder,
}
_VOLUME = "volume"


def _measure(scene: str, reads: int) -> Measured:
    act = partial(_volume, reads=reads) if scene == _VOLUME else _SCENES[scene]
    notes: dict[str, object] = {}
    sums = {"wrong": 0.0, "reads": 0.0, "unreadable": 0.0, "mechanisms": 0.0}
    worked: list[str] = []
    with lazy_lab(seed()) as lab:
        for mechanism in Mechanism:
            tally = _Tally()
            lab.server.fault = ""
            try:
                lab.mount(f"{scene}-{mechanism}", mechanism)
            except KernelFeatureMissing as missing:
                notes[str(mechanism)] = missing.message
                continue
            found = {**act(lab, tally), "wrong": tally.wrong, "reads": tally.reads}
            notes[str(mechanism)] = {
                **found,
                "errors": tally.errors,
                "short": tally.short,
                "state": lab.states(),
            }
            if tally.examples:
                notes[f"{mechanism} wrong"] = tally.examples[:3]
            for one in lab.states():
                lab.unmount(one["name"])
            lab.forget()
            worked.append(str(mechanism))
            for name, value in {**found, "mechanisms": 1.0}.items():
                sums[name] = sums.get(name, 0.0) + value
        if scene == "ladder":
            sums["wrong_choices"] = _choice(lab, worked, notes)
    return Measured(sums, notes)


def main() -> int:
    """Measure a scene; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", choices=sorted((*_SCENES, _VOLUME)), required=True)
    parser.add_argument("--reads", type=int, default=1_000_000, help="of volume, each mechanism")
    chosen = parser.parse_args()
    return run_program(lambda: _measure(chosen.scene, chosen.reads))


if __name__ == "__main__":
    sys.exit(main())
