"""A planted ramp of pressure, and everything that the tuner does about it and takes back.

Calm, then a load that thrashes, then calm again; the tuner runs at its defaults. It has to
relieve the page cache of the streaming cgroup above 40 %, change settings above 80 % only, and
give back every value: on calm, on exit by SIGTERM, and after SIGKILL and the repair. Each thing
that is not so is counted, and named in the notes.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hyperbox.errors import HyperboxError
from hyperbox.journal import UndoOutcome
from hyperbox.linux.knob import read_knob
from hyperbox.linux.swap import swap_areas
from hyperbox.linux.undo import KINDS
from hyperbox.repair import repair
from suites.judge import Judge
from suites.program import Measured, run_program, seed
from suites.psi.arms import TunerProcess, tuner_process
from suites.psi.load import Place, place
from suites.squeeze import MEBIBYTE, walker

_ACT, _RELIEVE = 80.0, 40.0
_RELIEF = "page-cache"
_THRASH_MIB = 36  # half as much again as there is, all of it hot
_PATIENCE_S = 120.0
_RELAX_S = 300.0  # a minute of calm, then one step a reading; more after a relapse
_LATENCY_NS = 20_000_000  # long beside the work of a fault, on an emulated CPU too
_FILLED_MIB = 3  # of page cache that the stream leaves behind
_KNOBS = ("vm/page-cluster", "vm/swappiness", "vm/watermark_scale_factor", "vm/min_free_kbytes")


@dataclass
class Findings(Judge):
    """What was expected and was not so, and the times that were measured."""

    times: dict[str, float] = field(default_factory=dict)
    acts: int = 0
    relief: str = ""

    def same(self, before: Mapping[str, str], after: Mapping[str, str], when: str) -> None:
        """Count each value that is not as before."""
        for name in sorted(before.keys() | after.keys()):
            was, now = before.get(name, "absent"), after.get(name, "absent")
            self.expect(was == now, f"{when}: {name} is {now!r}, was {was!r}")


def main() -> int:
    """Measure; return the exit status."""
    return run_program(_measure)


def _measure() -> Measured:
    found = Findings()
    with place(latency_ns=_LATENCY_NS) as where:
        before = values(where)
        with _streamed(where):
            _ramp(where, found, before)
        _killed(where, found, before)
    metrics = {
        "seconds_to_act": found.times["act"],
        "seconds_to_restore": found.times["restore"],
        "acts": float(found.acts),
        "values": float(len(before)),
    }
    return found.measured(metrics, relief=found.relief)


def values(where: Place) -> dict[str, str]:
    """Return everything that a tuner may change, by name."""
    found = {name: read_knob(Path("/proc/sys", name)) for name in _KNOBS}
    for module in ("zswap", "damon_reclaim"):
        for path in sorted(Path("/sys/module", module, "parameters").glob("*")):
            if path.name != "kdamond_pid" and not path.name.startswith(("nr_", "bytes")):
                with contextlib.suppress(HyperboxError, OSError):  # some cannot be read
                    found[str(path)] = read_knob(path)
    for group in (where.top, where.service, where.stream):
        for name in ("memory.high", "memory.max", "memory.low"):
            found[f"{group.directory.name}/{name}"] = group.read(name)
    found["swaps"] = " ".join(sorted(area.path for area in swap_areas()))
    found["zram"] = " ".join(sorted(path.name for path in Path("/sys/block").glob("zram*")))
    return found


@contextlib.contextmanager
def _streamed(where: Place) -> Iterator[None]:
    """Leave page cache in the streaming cgroup, and go on reading slowly."""
    options = ["--rate", "2", "--seed", str(seed())]
    with walker(where.stream, options, program="workloads/file_stream.py") as stream:
        stream.go()
        deadline = time.monotonic() + _PATIENCE_S
        while _cached(where) < _FILLED_MIB and time.monotonic() < deadline:
            time.sleep(0.1)
        yield


@contextlib.contextmanager
def _thrashing(where: Place) -> Iterator[None]:
    """Walk over more memory than there is, for as long as the block runs."""
    options = ["--mib", str(_THRASH_MIB), "--accesses", "20000", "--hot-share", "0"]
    options += ["--seconds", "3600", "--seed", str(seed())]
    with walker(where.service, options) as walk:
        walk.go()
        walk.expect("filled")
        walk.go()
        yield


def _ramp(where: Place, found: Findings, before: Mapping[str, str]) -> None:
    """Calm, pressure, calm: what is done, and that it is undone; then SIGTERM."""
    group, stream = str(where.top.directory), str(where.stream.directory)
    options = ["--cgroup", group, "--streaming", stream, "--fast-swap", "none"]
    with tuner_process(*options) as tuner:
        with _no_load(tuner, found):
            pass
        with _thrashing(where):
            began = time.monotonic()
            act = tuner.until(lambda one: one["action"] == "apply", _PATIENCE_S)
            found.times["act"] = time.monotonic() - began
            why = [one["reason"] for one in tuner.decisions if one["action"] == "refused"]
            found.expect(act["step"] == _RELIEF, f"the first step was {act['step']}: {why}")
            found.expect(bool(act["changes"]), "page cache was not relieved")
            found.relief = "; ".join(act["changes"])
            knob = tuner.until(_changed_a_setting, _PATIENCE_S)
            found.expect(values(where) != before or knob["action"] != "apply", "nothing changed")
        ended = time.monotonic()
        _until_same(where, before)
        found.times["restore"] = time.monotonic() - ended
        found.same(before, values(where), "on calm")
        status = tuner.end(signal.SIGTERM)
        found.expect(status == 0, f"SIGTERM ended the tuner with {status}")
    found.acts += sum(one["action"] == "apply" for one in tuner.decisions)
    for one in tuner.decisions:
        above = _RELIEVE if one["step"] == _RELIEF else _ACT
        early = one["action"] == "apply" and one["score"] <= above
        found.expect(not early, f"{one['step']} at {one['score']}")
    found.same(before, values(where), "after SIGTERM")


def _changed_a_setting(decision: Mapping[str, Any]) -> bool:
    return (decision["action"], decision["step"]) == ("apply", "page-cluster")


@contextlib.contextmanager
def _no_load(tuner: TunerProcess, found: Findings) -> Iterator[None]:
    """Wait for two readings of calm: nothing may be done about them."""
    tuner.until(lambda _: len(tuner.decisions) >= 3, _PATIENCE_S)
    acted = [one["step"] for one in tuner.decisions if one["action"] == "apply"]
    found.expect(not acted, f"acted without pressure: {acted}")
    yield


def _until_same(where: Place, before: Mapping[str, str]) -> None:
    """Wait until everything is as before, for as long as giving back may take."""
    deadline = time.monotonic() + _RELAX_S
    while values(where) != before and time.monotonic() < deadline:
        time.sleep(1.0)


def _killed(where: Place, found: Findings, before: Mapping[str, str]) -> None:
    """SIGKILL while a step and compressed swap are in force; then the repair."""
    group = str(where.top.directory)
    with tuner_process("--cgroup", group, "--fast-swap", "auto", "--zram-mib", "2") as tuner:
        tuner.until(lambda one: one["step"] == "fast-swap", _PATIENCE_S)
        with _thrashing(where):
            time.sleep(2.0)
            during = values(where)
            found.expect(during != before, "nothing was in force when it was killed")
            tuner.end(signal.SIGKILL)
    done = repair(KINDS)
    for one in done:
        found.expect(one.outcome is not UndoOutcome.FAILED, f"not repaired: {one}")
    found.same(before, values(where), "after SIGKILL and repair")


def _cached(where: Place) -> float:
    """Return the page cache of the streaming cgroup in MiB."""
    return where.stream.counters("memory.stat")["file"] / MEBIBYTE


if __name__ == "__main__":
    sys.exit(main())
