"""The gate on what a kernel says of itself: reports and taint, against an allow-list; pure.

The allow-list is ``vm-images/dmesg-allow.toml``. Taint flags are those of the kernel's
admin-guide/tainted-kernels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hyperbox.errors import ConfigError
from hyperbox.harness.lab.crash import OOM_KILL, WARN, Report, find_reports

__all__ = ["TAINT", "Allowance", "ConsoleJudgement", "judge", "parse_allowances", "taint_flags"]

TAINT = "taint"
_FLAGS = "PFSRMBUDAWCIOELKXTNJ"  # by bit
_EXPLAINED = {"W": (WARN,), "D": ("oops", "BUG"), "B": ("bad page",), "M": ("machine check",)}
_EXPLAINED |= {"L": ("soft lockup", "hard lockup")}
_ALLOWABLE = (WARN, OOM_KILL, TAINT)
_KEYS = frozenset(("kind", "pattern", "kernels", "experiment", "since", "reason"))


@dataclass(frozen=True)
class Allowance:
    """A report that does not spoil a measurement.

    `kind` is "WARN", "OOM kill" or "taint"; `pattern` is searched in the report's
    fingerprint and words; `kernels` are the oldest and newest series ((0, 0) and up: all);
    `experiment` limits it to one. `since` (a date) and `reason` are for people.
    """

    kind: str
    pattern: re.Pattern[str]
    kernels: tuple[tuple[int, int], tuple[int, int]]
    experiment: str
    since: str
    reason: str

    def covers(self, report: Report, series: tuple[int, int], experiment: str) -> bool:
        """Whether the report of a kernel under an experiment may be."""
        if self.kind != report.kind or self.experiment not in ("", experiment):
            return False
        if not self.kernels[0] <= series <= self.kernels[1]:
            return False
        return self.pattern.search(f"{report.fingerprint}\n{report.message}") is not None


@dataclass(frozen=True)
class ConsoleJudgement:
    """What spoils a measurement, and what was allowed, in words with the reason."""

    refused: tuple[Report, ...]
    allowed: tuple[str, ...]


def judge(
    messages: str,
    taint: int,
    *,
    release: str,
    experiment: str,
    allowances: Sequence[Allowance],
) -> ConsoleJudgement:
    """Judge the messages and the taint of a kernel that still answers."""
    series = _series(release)
    refused: dict[Report, None] = {}
    allowed: dict[str, None] = {}
    reports = find_reports(messages)
    for report in (*reports, *_unexplained(taint, reports)):
        cover = next((a for a in allowances if a.covers(report, series, experiment)), None)
        if cover is None:
            refused[report] = None
        else:
            allowed[f"{report.fingerprint} (allowed: {cover.reason})"] = None
    return ConsoleJudgement(tuple(refused), tuple(allowed))


def taint_flags(taint: int) -> str:
    """Return the letters of a taint number, as the kernel prints them."""
    known = "".join(letter for bit, letter in enumerate(_FLAGS) if taint >> bit & 1)
    return known + ("?" if taint >> len(_FLAGS) else "")


def parse_allowances(data: Mapping[str, object], where: str) -> tuple[Allowance, ...]:
    """Return the allow-list of a parsed TOML document.

    Raises
    ------
    ConfigError
        If an entry is wrong or says no reason; names `where` and the entry.
    """
    entries = data.get("allow", [])
    if not isinstance(entries, list) or set(data) - {"allow"}:
        raise ConfigError(f"{where}: only [[allow]] entries belong here")
    return tuple(
        _allowance(entry, f"{where}: entry {number}")
        for number, entry in enumerate(entries, start=1)
    )


def _unexplained(taint: int, reports: Sequence[Report]) -> Iterator[Report]:
    """Return the taint flags that no report accounts for, one finding each."""
    kinds = {report.kind for report in reports}
    for letter in taint_flags(taint):
        if not kinds.intersection(_EXPLAINED.get(letter, ())):
            yield Report(TAINT, f"the kernel is tainted {letter}", f"{TAINT}: {letter}")


def _allowance(entry: object, where: str) -> Allowance:
    if not isinstance(entry, dict) or set(entry) - _KEYS:
        raise ConfigError(f"{where} must be a table of {', '.join(sorted(_KEYS))}")
    words = {name: entry.get(name, "") for name in _KEYS - {"kernels"}}
    wrong = [name for name, value in words.items() if not isinstance(value, str)]
    lacking = [name for name in ("kind", "pattern", "since", "reason") if not words[name]]
    if wrong or lacking:
        raise ConfigError(f"{where}: {', '.join(sorted(wrong + lacking))} must be text")
    if words["kind"] not in _ALLOWABLE:
        raise ConfigError(f"{where}: kind must be one of {', '.join(_ALLOWABLE)}")
    try:
        pattern = re.compile(words["pattern"], re.MULTILINE)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(f"{where}: {words['pattern']!r} is not a pattern: {error}") from None
    return Allowance(
        kind=words["kind"],
        pattern=pattern,
        kernels=_range(entry.get("kernels", []), where),
        experiment=words["experiment"],
        since=words["since"],
        reason=words["reason"],
    )


def _range(given: object, where: str) -> tuple[tuple[int, int], tuple[int, int]]:
    if given == []:
        return (0, 0), (9999, 0)
    if not isinstance(given, list) or len(given) != 2:
        raise ConfigError(f'{where}: kernels must be ["oldest", "newest"]')
    oldest, newest = (_series(str(text)) for text in given)
    if (0, 0) in (oldest, newest) or oldest > newest:
        raise ConfigError(f"{where}: {given} is not a range of kernels")
    return oldest, newest


def _series(release: str) -> tuple[int, int]:
    """Return (6, 12) for ``6.12.43+deb13-cloud-amd64``; (0, 0) for what is not a release."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)
