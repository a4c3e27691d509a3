"""What a machine can be given against memory pressure: nothing, the usual, Senpai, the tuner.

Every arm owns the same memory: what compressed swap takes beside the limit of the workloads
is taken off that limit. That is all of zram. Of zswap it is what its pool takes beyond the
compressed bytes that the kernel charges to the cgroup (``zswap`` in memory.stat): measured
on 7.3, up to 2.9 MiB of a pool of 13.

zram takes half to two thirds of what it holds, by kernel. What the tuner is compared with may
take a little more than its share, which favours it; the tuner may not.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import hyperbox
from hyperbox.errors import HyperboxError, WorkloadError
from hyperbox.linux.knob import changed, read_knob, sysctl, write_knob
from hyperbox.linux.swap import swap_areas, swapping
from hyperbox.linux.zram import zram_device, zram_memory
from hyperbox.linux.zswap import zswap_enabled
from hyperbox.processes import spawn, stop
from suites.psi.load import MEMORY_MIB, Place
from suites.psi.senpai import Senpai
from suites.squeeze import MEBIBYTE

__all__ = ["ARMS", "FastSwap", "TunerProcess", "fast_swap", "tuner_process"]

_ZRAM_MIB = 12  # what zram may take: half of the memory
_LENIENCE_MIB = 0.5
_ZSWAP_MIB = 4  # what zswap may take that no cgroup is charged for
_ZRAM_DISK_MIB = 18  # what it may hold: within its share at the compression that pages allow
_PREPARED_S = 120.0
_CALM_S = 10.5  # two readings: a tuner that ends under pressure leaves its swap in place


@dataclass
class FastSwap:
    """Compressed swap in use: none, a zram disk, or zswap.

    It may take `lenience_mib` more than its share.
    """

    kind: str = "none"
    device: Path | None = None
    tuner: TunerProcess | None = None
    lenience_mib: float = 0.0

    def decided(self) -> list[str]:
        """Say what the tuner has done so far, each with its reason; nothing without one."""
        made = list(self.tuner.decisions) if self.tuner else []
        return [
            f"{one['action']} {one['step']}: {one['reason']}"
            for one in made
            if one["action"] != "nothing"
        ]

    @property
    def share_mib(self) -> int:
        """What it may take beside the workloads' limit."""
        return {"zram": _ZRAM_MIB, "zswap": _ZSWAP_MIB}.get(self.kind, 0)

    def used_mib(self, where: Place) -> float:
        """Return the memory beside the workloads' limit: zram's most, or zswap's of now."""
        if self.device is not None:
            return zram_memory(self.device).used_max / MEBIBYTE
        if self.kind == "zswap":
            return (_zswap_pool() - where.top.counters("memory.stat").get("zswap", 0)) / MEBIBYTE
        return 0.0

    def held_mib(self, where: Place) -> float:
        """Return the compressed memory that it takes, whoever is charged for it."""
        if self.kind == "zswap":
            return _zswap_pool() / MEBIBYTE
        return self.used_mib(where)


@dataclass
class TunerProcess:
    """The tuner's process and the decisions that it has printed so far."""

    process: subprocess.Popen[bytes]
    decisions: list[dict[str, Any]] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def until(self, wanted: Callable[[Mapping[str, Any]], bool], seconds: float) -> dict[str, Any]:
        """Wait for a decision and give it; WorkloadError if it does not come in time."""
        end = time.monotonic() + seconds
        with self._changed:
            while True:
                for decision in self.decisions:
                    if wanted(decision):
                        return decision
                left = end - time.monotonic()
                if left <= 0 or self.process.poll() is not None:
                    last = self.decisions[-1]["reason"] if self.decisions else "nothing decided"
                    raise WorkloadError(f"the tuner did not decide it; it said last: {last}")
                self._changed.wait(min(left, 1.0))

    def end(self, number: int) -> int:
        """Send a signal and give the exit status."""
        os.kill(self.process.pid, number)
        return self.process.wait(60)

    def collect(self) -> None:
        """Take decisions from the process until it ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.decisions.append(json.loads(line))
                self._changed.notify_all()


@contextlib.contextmanager
def tuner_process(*options: str) -> Iterator[TunerProcess]:
    """Start the product's tuner by itself; it is killed at the end if it still runs."""
    package = Path(hyperbox.__file__).resolve().parent.parent
    process = spawn(
        [sys.executable, "-m", "hyperbox.memory.tune", *options],
        environment={"PYTHONPATH": os.fspath(package)},
        stdout=subprocess.PIPE,
        stderr=sys.stderr.buffer,
    )
    tuner = TunerProcess(process)
    reader = threading.Thread(target=tuner.collect, name="tuner")
    reader.start()
    try:
        yield tuner
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join()
        stop(process)


@contextlib.contextmanager
def _stock(where: Place) -> Iterator[FastSwap]:
    """Leave the kernel's defaults."""
    del where
    yield FastSwap()


@contextlib.contextmanager
def _zram_generator(where: Place) -> Iterator[FastSwap]:
    """Set what users of zram-generator do: zram first, swappiness 180, single pages."""
    with contextlib.ExitStack() as stack:
        device, _ = stack.enter_context(
            zram_device(size=_ZRAM_DISK_MIB * MEBIBYTE, algorithms=("lz4", "lzo-rle", "lzo"))
        )
        stack.enter_context(swapping(device, priority=100))
        stack.enter_context(changed(sysctl("vm.page-cluster"), 0))
        stack.enter_context(changed(sysctl("vm.swappiness"), _most_swappiness()))
        where.top.limit("memory.max", (MEMORY_MIB - _ZRAM_MIB) * MEBIBYTE)
        yield FastSwap("zram", device, lenience_mib=_LENIENCE_MIB)


@contextlib.contextmanager
def _senpai(where: Place) -> Iterator[FastSwap]:
    """Reclaim ahead of need by the cgroup's own pressure."""
    with Senpai(where.top, least=MEMORY_MIB * MEBIBYTE // 2, most=MEMORY_MIB * MEBIBYTE):
        yield FastSwap()


@contextlib.contextmanager
def _tuner(where: Place) -> Iterator[FastSwap]:
    """Run the product: it prepares what this kernel has, and acts above 80 %."""
    options = ["--cgroup", str(where.top.directory), "--streaming", str(where.stream.directory)]
    options += ["--fast-swap", "auto", "--zram-mib", str(_ZRAM_DISK_MIB)]
    with tuner_process(*options) as tuner:
        tuner.until(lambda one: one["step"] == "fast-swap", _PREPARED_S)
        found = replace(fast_swap(), tuner=tuner)
        where.top.limit("memory.max", (MEMORY_MIB - found.share_mib) * MEBIBYTE)
        yield found
        time.sleep(_CALM_S)
        status = tuner.end(signal.SIGTERM)
        if status:
            raise WorkloadError(f"the tuner ended with status {status}")


def fast_swap() -> FastSwap:
    """Return the compressed swap that this machine uses now."""
    for area in swap_areas():
        if area.path.startswith("/dev/zram"):
            return FastSwap("zram", Path(area.path))
    return FastSwap("zswap") if zswap_enabled() else FastSwap()


def _zswap_pool() -> int:
    """Return the bytes that zswap's pool takes."""
    for line in read_knob(Path("/proc/meminfo")).splitlines():
        name, _, value = line.partition(":")
        if name == "Zswap":
            return int(value.split()[0]) * 1024
    raise WorkloadError("this kernel does not say what zswap takes (before 5.19)")


def _most_swappiness() -> int:
    """Return 180, or 100 where the kernel takes no more (before 5.8, c843966c556d)."""
    path = sysctl("vm.swappiness")
    before = read_knob(path)
    try:
        write_knob(path, 180)
    except HyperboxError:
        return 100
    write_knob(path, before)
    return 180


ARMS: Mapping[str, Callable[[Place], AbstractContextManager[FastSwap]]] = {
    "stock": _stock,
    "zram_generator": _zram_generator,
    "senpai": _senpai,
    "tuner": _tuner,
}
"""The arms by their ids; each is in force while its block runs."""
