"""Kernel crashes recognised in console text, with a fingerprint; pure.

The texts are those of the kernel's own reports: ``kernel/panic.c``, ``lib/bug.c``,
``kernel/watchdog.c``, ``kernel/hung_task.c``, ``kernel/rcu/tree_stall.h``,
``mm/oom_kill.c``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Crash", "find_crash", "find_warnings"]

_KINDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("BUG", re.compile(r"kernel BUG at (?P<what>\S+)")),
    ("oops", re.compile(r"BUG: (?P<what>unable to handle|kernel NULL pointer)[^\n]*")),
    ("oops", re.compile(r"(?P<what>general protection fault|Oops: [0-9a-f]{4})")),
    ("soft lockup", re.compile(r"BUG: soft lockup - (?P<what>CPU#\d+)")),
    ("hard lockup", re.compile(r"(?P<what>Watchdog detected hard LOCKUP[^\n]*)")),
    ("RCU stall", re.compile(r"rcu: INFO: (?P<what>\w+ (?:self-)?detected \w*\s*stall)")),
    ("hung task", re.compile(r"INFO: task (?P<what>\S+?):\d+ blocked for more than")),
    ("panic", re.compile(r"Kernel panic - not syncing: (?P<what>[^\n]*)")),
)
_TIMESTAMP = re.compile(r"^(?:<\d+>)?\[\s*\d+\.\d+\](?:\[\s*[TC]\d+\])? ?", re.MULTILINE)
_FRAME = re.compile(r"^\s*(?P<symbol>[A-Za-z_][\w.]*)\+0x[0-9a-f]+/0x[0-9a-f]+", re.MULTILINE)
_RIP = re.compile(r"RIP: \d+:(?P<symbol>[A-Za-z_][\w.]*)\+0x")
_NOISE = frozenset(
    {"dump_stack", "dump_stack_lvl", "panic", "vpanic", "show_stack", "__die", "die"}
)
_WARNING = re.compile(
    r"WARNING: (?:CPU: \d+ PID: \d+ at )?(?P<where>[^\n]+)|(?P<oom>Out of memory: Killed[^\n]*)"
)


@dataclass(frozen=True)
class Crash:
    """One crash: its kind, the kernel's own words, and a fingerprint to group by.

    The fingerprint is ``kind: top three stack symbols`` (the words where no stack was
    printed), free of addresses, offsets, processors and process numbers.
    """

    kind: str
    message: str
    fingerprint: str


def find_crash(console: str) -> Crash | None:
    """Give the first crash that the console text reports, or None."""
    text = _TIMESTAMP.sub("", console.replace("\r\n", "\n"))
    first: tuple[int, str, re.Match[str]] | None = None
    for kind, pattern in _KINDS:
        match = pattern.search(text)
        if match is not None and (first is None or match.start() < first[0]):
            first = (match.start(), kind, match)
    if first is None:
        return None
    start, kind, match = first
    symbols = _stack(text[start : start + 20_000])
    what = " < ".join(symbols) if symbols else match.group("what").strip()
    return Crash(kind, match.group(0).strip(), f"{kind}: {what}")


def find_warnings(console: str) -> tuple[str, ...]:
    """Give the places of WARN() reports and out-of-memory kills, in order."""
    text = _TIMESTAMP.sub("", console.replace("\r\n", "\n"))
    return tuple((m.group("where") or m.group("oom")).strip() for m in _WARNING.finditer(text))


def _stack(text: str) -> tuple[str, ...]:
    found = [match.group("symbol") for match in _RIP.finditer(text)][:1]
    found += [match.group("symbol") for match in _FRAME.finditer(text)]
    unique = dict.fromkeys(symbol for symbol in found if symbol not in _NOISE)
    return tuple(unique)[:3]
