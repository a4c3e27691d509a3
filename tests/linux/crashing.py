"""Kills a block of machine changes at any of its lines, and looks at what is left.

Runs on the host and, as a program, in a guest, with the standard library only. A child runs
the block under a tracer that counts the executed lines of the modules that change the
machine, and sends itself SIGKILL before a given one: so a kill can be planted between any
two steps, journal and system calls included.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from hyperbox import journal, repair
from hyperbox.journal import UndoOutcome
from hyperbox.linux.cgroup import cgroup, cgroup_root
from hyperbox.linux.knob import KnobChange, changed, read_knob, sysctl
from hyperbox.linux.mounts import mounts
from hyperbox.linux.null_blk import null_block_device
from hyperbox.linux.swap import swap_areas, swapping
from hyperbox.linux.undo import KINDS
from hyperbox.linux.zram import zram_device

SOURCES = str(Path(journal.__file__).parent)
TRACED = tuple(f"{SOURCES}/{name}" for name in ("journal.py", "records.py", "repair.py", "linux/"))
SYSCTLS = ("vm.swappiness", "vm.page-cluster", "vm.watermark_scale_factor")


def killed_at(body: Callable[[], object], line: int) -> bool:
    """Run `body` in a child that kills itself before its `line`-th line; False if it ended.

    A failure of the body is a failure of the test.
    """
    child = os.fork()
    if child == 0:
        _traced(body, line)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def points_of(body: Callable[[], object], often: int = 3) -> list[int]:
    """Return the kill points of an undisturbed run: each source line's first executions."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        _traced(body, -1, writable, often)
    os.close(writable)
    with os.fdopen(readable, "rb") as stream:
        counted = stream.read()
    assert os.waitpid(child, 0)[1] == 0
    return [int(word) for word in counted.split()]


def _traced(body: Callable[[], object], line: int, report: int = -1, often: int = 0) -> None:
    """Run the body traced and leave the process."""
    count = 0
    seen: Counter[tuple[str, int]] = Counter()
    points = []

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.startswith(TRACED):
            return None
        if event == "line":
            count += 1
            if count == line:
                os.kill(os.getpid(), signal.SIGKILL)
            place = (frame.f_code.co_filename, frame.f_lineno)
            seen[place] += 1
            if seen[place] <= often:
                points.append(count)
        return trace

    status = 1
    try:
        sys.settrace(trace)
        body()
        sys.settrace(None)
        status = 0
        if report >= 0:
            with os.fdopen(report, "w") as stream:
                stream.write(" ".join(map(str, points)))
    finally:
        if status:
            sys.excepthook(*sys.exc_info())
        os._exit(status)


def everything(innermost: Callable[[], object] = lambda: None) -> None:
    """Make a change of every kind, some twice, and undo them in order."""
    name = f"hyperbox-crash-{os.getpid()}"
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(cgroup(name, controllers=("memory",)))
        group.limit("memory.max", 64 << 20)
        disk = stack.enter_context(
            null_block_device(f"crash{os.getpid()}", size_mib=8, latency_ns=1)
        )
        stack.enter_context(swapping(disk))
        zram, _ = stack.enter_context(
            zram_device(size=8 << 20, algorithms=("lz4", "lzo-rle", "lzo"))
        )
        stack.enter_context(swapping(zram, priority=100))
        stack.enter_context(changed(sysctl("vm.page-cluster"), 0))
        stack.enter_context(changed(sysctl("vm.swappiness"), 90))
        stack.enter_context(changed(sysctl("vm.swappiness"), 80))
        with KnobChange(sysctl("vm.watermark_scale_factor")) as knob:
            for value in (20, 40, 10, 30):
                knob.apply(value)
            innermost()


def machine() -> dict[str, object]:
    """Return everything that the kinds of change may change."""
    root = cgroup_root()
    disks = sorted(path.name for path in Path("/sys/class/block").iterdir())
    return {
        **{name: read_knob(sysctl(name)) for name in SYSCTLS},
        "controllers": read_knob(root / "cgroup.subtree_control"),
        "cgroups": sorted(path.name for path in root.iterdir() if path.is_dir()),
        "swap": [area.path for area in swap_areas()],
        "disks": disks,
        "configfs": [str(found.point) for found in mounts("configfs")],
        "journals": sorted(path.name for path in journal.state_directory().glob("*.jsonl")),
    }


def repaired() -> list[str]:
    """Repair, itself killed at a random line first; return what the last repair failed at."""
    killed_at(_repair_once, random.randrange(1, 400))
    return [str(one) for one in repair.repair(KINDS) if one.outcome is UndoOutcome.FAILED]


def _repair_once() -> None:
    repair.repair(KINDS)


def leave() -> None:
    """Leave everything changed, by a killed child; print how it was before."""
    before = machine()
    child = os.fork()
    if child == 0:
        everything(lambda: os.kill(os.getpid(), signal.SIGKILL))
    os.waitpid(child, 0)
    print(json.dumps({"before": before, "left": machine()}))


def main() -> None:
    """Do what the arguments say; ``kill N SEED`` kills at N points and prints what was found."""
    if sys.argv[1] == "leave":
        leave()
        return
    if sys.argv[1] == "look":
        print(json.dumps(machine()))
        return
    times, seed = map(int, sys.argv[2:4])
    random.seed(seed)
    points = points_of(everything)
    before = machine()  # modules are loaded, nothing else is left
    found: dict[str, object] = {"points": len(points), "before": before}
    wrong = []
    kinds: Counter[str] = Counter()
    for line in random.sample(points, times):
        killed_at(everything, line)
        left = machine()
        kinds.update(change.kind for change in repair.left_behind())
        failed = repaired()
        after = machine()
        if after != before or failed:
            wrong.append({"line": line, "left": left, "failed": failed, "after": after})
    print(json.dumps(found | {"left_behind": kinds, "wrong": wrong}))


if __name__ == "__main__":
    main()
