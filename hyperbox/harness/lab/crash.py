"""Kernel trouble recognised in console text, with a fingerprint; pure.

The texts are those of the kernel's own reports: ``kernel/panic.c``, ``lib/bug.c``,
``kernel/watchdog.c``, ``kernel/hung_task.c``, ``kernel/rcu/tree_stall.h``,
``mm/oom_kill.c``, ``arch/x86/kernel/{dumpstack,nmi}.c``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["OOM_KILL", "WARN", "Report", "find_crash", "find_reports"]

WARN = "WARN"
OOM_KILL = "OOM kill"
_SURVIVABLE = frozenset((WARN, OOM_KILL))
_STOPPED = "stopped answering"

_FOLLOWS = r"^(?P<what>[A-Za-z][^\n]*): [0-9a-f]{4} \[#\d+\]"  # second line of BUGs and oopses
# The first pattern that matches at a place names it.
_KINDS: tuple[tuple[str, str], ...] = (
    ("BUG", r"kernel BUG at (?P<what>\S+)"),
    ("soft lockup", r"BUG: soft lockup - (?P<what>CPU#\d+)[^\n]*"),
    ("hard lockup", r"(?P<what>[Ww]atchdog detected hard LOCKUP[^\n]*)"),
    ("workqueue lockup", r"BUG: workqueue lockup - (?P<what>pool)[^\n]*"),
    ("RCU stall", r"INFO: (?P<what>\w+ (?:self-)?detected \w*\s*stall)[^\n]*"),
    ("hung task", r"INFO: task (?P<what>\S+?):\d+ (?:<[^>]*> )?blocked (?:for more than|in)[^\n]*"),
    ("oops", r"BUG: (?P<what>unable to handle|kernel NULL pointer)[^\n]*"),
    ("bad page", r"BUG: (?P<what>Bad (?:page|rss)[^\n]*)"),
    ("BUG", r"BUG: (?P<what>\D[^\n]*)"),
    ("machine check", r"(?P<what>mce: \[Hardware Error\]: Machine check events logged)"),
    ("agent death", r"Kernel panic - not syncing: Attempted to kill init! (?P<what>[^\n]*)"),
    ("out of memory", r"Kernel panic - not syncing: (?P<what>System is deadlocked on memory)"),
    ("out of memory", r"Kernel panic - not syncing: (?P<what>Out of memory)[^\n]*"),
    ("no root", r"Kernel panic - not syncing: (?P<what>VFS: Unable to mount root fs)[^\n]*"),
    ("no init", r"Kernel panic - not syncing: (?P<what>No working init found)[^\n]*"),
    (_STOPPED, r"Kernel panic - not syncing: (?P<what>NMI: Not continuing)"),
    ("panic", r"Kernel panic - not syncing: (?P<what>[^\n]*)"),
    ("oops", _FOLLOWS),
    (OOM_KILL, r"(?P<what>(?:Memory cgroup o|O)ut of memory: Killed process)[^\n]*"),
    (WARN, r"^WARNING: (?:CPU: \d+ PID: \d+ at )?(?P<what>[^\n]+)"),
)
_ANY = re.compile(
    "|".join(
        f"(?P<k{number}>{pattern.replace('(?P<what>', f'(?P<w{number}>')})"
        for number, (_, pattern) in enumerate(_KINDS)
    ),
    re.MULTILINE,
)
_WORDS_SUFFICE = frozenset(("agent death", "out of memory", "no root", "no init", OOM_KILL))
_INTERRUPTED = frozenset(("soft lockup", "hard lockup", "RCU stall", _STOPPED))
_TIMESTAMP = re.compile(r"^(?:<\d+>)?\[\s*\d+\.\d+\](?:\[\s*[TC]\d+\])? ?", re.MULTILINE)
_FRAME = re.compile(
    r"^\s*(?P<symbol>[A-Za-z_][\w.]*)\+0x[0-9a-f]+/0x[0-9a-f]+|"
    r"RIP: \d+:(?P<place>[A-Za-z_][\w.]*)\+0x",
    re.MULTILINE,
)
_INTERRUPT_STACK = re.compile(r"<(IRQ|NMI)>.*?</\1>", re.DOTALL)
_NOISE = re.compile(
    r"dump_stack(_lvl)?|v?panic|show_stack|(__)?die|(asm_)?(sysvec|exc)_\w+|"
    r"(io_|__)?schedule(_timeout\w*|_preempt_disabled)?|(check_)?panic_on_warn|__warn(_printk)?|"
    r"report_bug|handle_bug"
)
_ADDRESS = re.compile(r"\+?0x[0-9a-f]+(/0x[0-9a-f]+)?")


@dataclass(frozen=True)
class Report:
    """One report of the kernel: its kind, the kernel's own words, a fingerprint to group by.

    The fingerprint is ``kind: top three stack symbols`` (the words where no stack was
    printed or none says more), free of addresses, offsets, processors and process numbers.
    """

    kind: str
    message: str
    fingerprint: str

    @property
    def survivable(self) -> bool:
        """Whether the kernel goes on after such a report (WARN, out-of-memory kill)."""
        return self.kind in _SURVIVABLE


def find_reports(console: str) -> tuple[Report, ...]:
    """Return every report of trouble in the text, in order.

    One trouble may be several reports: a lockup and the panic that it causes.
    """
    return tuple(_reports(console))


def find_crash(console: str) -> Report | None:
    """Return the first report that a kernel does not survive, or None."""
    return next((report for report in _reports(console) if not report.survivable), None)


def _reports(console: str) -> Iterator[Report]:
    text = _TIMESTAMP.sub("", console.replace("\r\n", "\n"))
    found: list[re.Match[str]] = []
    for match in _ANY.finditer(text):
        if not found or not _continues(found[-1], match, text):
            found.append(match)
    ends = [match.start() for match in found[1:]] + [len(text)]
    for match, end in zip(found, ends, strict=False):  # no match has an end too
        number = _number(match)
        kind = _KINDS[number][0]
        what = match[f"w{number}"].strip()
        symbols: tuple[str, ...] = ()
        if kind not in _WORDS_SUFFICE:  # the panic that follows may have the only stack
            symbols = _stack(kind, text[match.start() : end]) or _stack(kind, text[end:])
        name = " < ".join(symbols) or _ADDRESS.sub("", what)
        yield Report(kind, match.group(0).strip(), f"{kind}: {name}")


def _number(match: re.Match[str]) -> int:
    return next(n for n in range(len(_KINDS)) if match[f"k{n}"] is not None)


def _continues(before: re.Match[str], match: re.Match[str], text: str) -> bool:
    """Whether a match is the second line of a report: ``invalid opcode: 0000 [#1]``."""
    if _KINDS[_number(match)][1] is not _FOLLOWS:
        return False
    first = _KINDS[_number(before)][0] in ("BUG", "oops")
    return first and "RIP:" not in text[before.end() : match.start()]


def _stack(kind: str, text: str) -> tuple[str, ...]:
    """Return the innermost symbols; of an interrupted processor those of what it was doing."""
    if kind in _INTERRUPTED:
        inside = text.find("RIP:")
        text = text[inside:] if inside >= 0 else _INTERRUPT_STACK.sub("", text)
    frames = list(_FRAME.finditer(text))
    first = [match["place"] for match in frames if match["place"]][:1]
    symbols = [*first, *(match["symbol"] for match in frames if match["symbol"])]
    return tuple(dict.fromkeys(s for s in symbols if not _NOISE.fullmatch(s)))[:3]
