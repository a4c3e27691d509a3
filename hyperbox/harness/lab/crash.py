"""Kernel trouble recognised in console text, with a fingerprint; pure.

The texts are those of the kernel's own reports: ``kernel/panic.c``, ``lib/bug.c``,
``kernel/watchdog.c``, ``kernel/hung_task.c``, ``kernel/rcu/tree_stall.h``,
``mm/oom_kill.c``, ``arch/x86/kernel/{dumpstack,nmi}.c``.

Whatever runs in a guest can write such text (``/dev/kmsg``, the console), so the time it takes
is linear in its length: no pattern looks beyond its line, and no line is looked at twice.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["OOM_KILL", "WARN", "Report", "find_crash", "find_reports"]

WARN = "WARN"
OOM_KILL = "OOM kill"
_SURVIVABLE = frozenset((WARN, OOM_KILL))
_STOPPED = "stopped answering"
_FLOOD = "flood of messages"

_FOLLOWS = r"^(?P<what>[A-Za-z][^\n]*): [0-9a-f]{4} \[#\d+\]"  # second line of BUGs and oopses
# The first pattern that matches at a place names it.
_KINDS: tuple[tuple[str, str], ...] = (
    ("BUG", r"kernel BUG at (?P<what>\S+)"),
    ("soft lockup", r"BUG: soft lockup - (?P<what>CPU#\d+)[^\n]*"),
    ("hard lockup", r"(?P<what>[Ww]atchdog detected hard LOCKUP[^\n]*)"),
    ("workqueue lockup", r"BUG: workqueue lockup - (?P<what>pool)[^\n]*"),
    ("RCU stall", r"INFO: (?P<what>\w+ (?:self-)?detected \w*\s*stall)[^\n]*"),
    (
        "hung task",
        r"INFO: task (?P<what>\S{1,64}?):\d+ (?:<[^>]{0,64}> )?blocked (?:for more than|in)[^\n]*",
    ),
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
# A line without any of these words matches no pattern: what most lines are, at a hundredth of
# the time that the patterns take.
_MARKS = ("BUG", "LOCKUP", "INFO: ", "mce: ", "Kernel panic", " [#", "ut of memory: ", "WARNING: ")
_ANY = re.compile(
    "|".join(
        f"(?P<k{number}>{pattern.replace('(?P<what>', f'(?P<w{number}>')})"
        for number, (_, pattern) in enumerate(_KINDS)
    )
)
_WORDS_SUFFICE = frozenset(("agent death", "out of memory", "no root", "no init", OOM_KILL))
_INTERRUPTED = frozenset(("soft lockup", "hard lockup", "RCU stall", _STOPPED))
_TIMESTAMP = re.compile(r"^(?:<\d+>)?\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? ?", re.MULTILINE)
_FRAME = re.compile(
    r"^[ \t]*(?P<symbol>[A-Za-z_][\w.]*)\+0x[0-9a-f]+/0x[0-9a-f]+|"
    r"RIP: \d+:(?P<place>[A-Za-z_][\w.]*)\+0x",
    re.MULTILINE,
)
_NOISE = re.compile(
    r"dump_stack(_lvl)?|v?panic|show_stack|(__)?die|(asm_)?(sysvec|exc)_\w+|"
    r"(io_|__)?schedule(_timeout\w*|_preempt_disabled)?|(check_)?panic_on_warn|__warn(_printk)?|"
    r"report_bug|handle_bug"
)
_ADDRESS = re.compile(r"\+?0x[0-9a-f]+(/0x[0-9a-f]+)?")
_SECOND_LINE = 16  # lines after the first: a page fault prints up to four in between
_LONGEST_WORDS = 300  # of a message or a fingerprint
_MOST_TEXT = 4 << 20  # characters; the end of a longer text is looked at
_MOST_REPORTS = 1000


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

    One trouble may be several reports: a lockup and the panic that it causes. The last one of
    very many, or in a very long text, says that not all are there; nothing allows it.
    """
    found = tuple(itertools.islice(_reports(console), _MOST_REPORTS + 1))
    if len(found) > _MOST_REPORTS or len(console) > _MOST_TEXT:
        words = f"more than {_MOST_REPORTS} reports or {_MOST_TEXT >> 20} MiB of messages"
        return (*found[:_MOST_REPORTS], Report(_FLOOD, words, f"{_FLOOD}: {words}"))
    return found


def find_crash(console: str) -> Report | None:
    """Return the first report that a kernel does not survive, or None."""
    return next((report for report in _reports(console) if not report.survivable), None)


def _reports(console: str) -> Iterator[Report]:
    text = console[-_MOST_TEXT:].replace("\r\n", "\n")
    lines = _TIMESTAMP.sub("", text).split("\n")
    found = _found(lines)
    ends = [place for place, _ in found[1:]] + [len(lines)]
    parts = ["\n".join(lines[begin:end]) for (begin, _), end in zip(found, ends, strict=False)]
    kinds = [_KINDS[_number(match)][0] for _, match in found]
    for (_, match), kind, symbols in zip(found, kinds, _stacks(kinds, parts), strict=True):
        what = _ADDRESS.sub("", match[f"w{_number(match)}"].strip()[:_LONGEST_WORDS])
        name = what if kind in _WORDS_SUFFICE else " < ".join(symbols) or what
        words = match.group(0).strip()[:_LONGEST_WORDS]
        yield Report(kind, words, f"{kind}: {name[:_LONGEST_WORDS]}")


def _found(lines: Sequence[str]) -> list[tuple[int, re.Match[str]]]:
    """Return where reports begin, by the numbers of their lines."""
    found: list[tuple[int, re.Match[str]]] = []
    for place, line in enumerate(lines):
        match = _ANY.search(line) if any(mark in line for mark in _MARKS) else None
        if match and not (found and _continues(found[-1][1], match, lines[found[-1][0] : place])):
            found.append((place, match))
    return found


def _number(match: re.Match[str]) -> int:
    assert match.lastgroup is not None  # the one that closed last, around all of the pattern
    return int(match.lastgroup[1:])


def _continues(before: re.Match[str], match: re.Match[str], lines: Sequence[str]) -> bool:
    """Whether a match is the second line of a report: ``invalid opcode: 0000 [#1]``.

    `lines` begin with the first line and end before the second.
    """
    if len(lines) > _SECOND_LINE or _KINDS[_number(match)][1] is not _FOLLOWS:
        return False
    first = _KINDS[_number(before)][0] in ("BUG", "oops")
    return first and not any("RIP:" in line for line in lines)


def _stacks(kinds: Sequence[str], parts: Sequence[str]) -> Sequence[tuple[str, ...]]:
    """Return the stack of each report by its kind and text, or the next one that was printed.

    The panic that follows may have the only one.
    """
    stacks: list[tuple[str, ...]] = []
    later: Mapping[bool, tuple[str, ...]] = {False: (), True: ()}
    for kind, part in zip(reversed(kinds), reversed(parts), strict=True):
        later = {flag: _stack(part, interrupted=flag) or later[flag] for flag in later}
        stacks.append(later[kind in _INTERRUPTED])
    return stacks[::-1]


def _stack(text: str, *, interrupted: bool) -> tuple[str, ...]:
    """Return the innermost symbols; of an interrupted processor those of what it was doing."""
    if interrupted:
        inside = text.find("RIP:")
        text = text[inside:] if inside >= 0 else _outside(_outside(text, "NMI"), "IRQ")
    frames = list(_FRAME.finditer(text))
    first = [match["place"] for match in frames if match["place"]][:1]
    symbols = [*first, *(match["symbol"] for match in frames if match["symbol"])]
    return tuple(dict.fromkeys(s for s in symbols if not _NOISE.fullmatch(s)))[:3]


def _outside(text: str, name: str) -> str:
    """Return a text without the stacks of an interrupt: ``<IRQ> ... </IRQ>``."""
    *stacks, rest = text.split(f"</{name}>")
    return "".join(before.partition(f"<{name}>")[0] for before in stacks) + rest
