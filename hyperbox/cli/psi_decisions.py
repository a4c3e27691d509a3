"""``hyperbox psi decisions``: what the tuner did, when, why, and what came of it."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from rich.text import Text

from hyperbox.cli.psi_tune import STYLES
from hyperbox.console import TerminalConsole
from hyperbox.errors import ConfigError, ExitCode
from hyperbox.memory.audit import AuditEntry, Story, read_trail, stories, trail_files
from hyperbox.printing import one_line

__all__ = ["Period", "add_decisions", "moment"]

_LAST = 20
_AGO = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_FIRST_YEAR, _LAST_YEAR = 1971, 9998  # what time_t and datetime hold, with a day to spare
_CLOCK = re.compile(r"\d{1,2}:\d\d(:\d\d)?")
_HINT = "give 12:03, 12:03:10, 2026-11-25 12:03, or 30m (ago; s, m, h or d)"


class Period:
    """Seconds of the wall clock from `start` up to `end`."""

    def __init__(self, start: float = 0.0, end: float = float("inf")) -> None:
        self.start = start
        self.end = end

    def holds(self, story: Story) -> bool:
        """Whether any of a story happened in it."""
        return any(self.start <= one.unix_s < self.end for one in (story.began, *story.then))


def add_decisions(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb below ``psi``."""
    parser = verbs.add_parser(
        "decisions",
        help="say what the tuner did, when, why, and what came of it",
        description="Reads the trail that `psi tune` and the daemon keep: each step with the "
        "pressure that led to it, the settings it changed, and whether it was kept, reverted or "
        "given back since. Dry runs keep none.",
        epilog="WHEN is 12:03, 12:03:10, '2026-11-25 12:03', or 30m (ago; s, m, h or d). "
        "Example: hyperbox psi decisions --at 12:03 --about swappiness",
    )
    parser.add_argument("--at", metavar="WHEN", help="what happened in that minute")
    parser.add_argument("--since", metavar="WHEN", help="from then on")
    parser.add_argument("--until", metavar="WHEN", help="before then")
    parser.add_argument(
        "--about", metavar="TEXT", help="of steps and settings with this in their name only"
    )
    parser.add_argument(
        "--last", type=_count, metavar="N", help=f"the last N only (default {_LAST})"
    )
    parser.add_argument("--file", metavar="FILE", help="another trail than this machine's")
    parser.add_argument("--json", action="store_true", help="print one JSON object a decision")
    parser.set_defaults(run=_run)


def moment(text: str, now: datetime) -> tuple[datetime, timedelta]:
    """Return the local time that is meant, and how exactly it was given. Pure.

    A time of day is the last one that is not after `now`.

    Raises
    ------
    ConfigError
        If it is not a time.
    """
    try:
        found, exact = _moment(text, now)
    except (ValueError, OverflowError):
        raise ConfigError(f"{text!r} is not a time", hint=_HINT) from None
    if not _FIRST_YEAR <= found.year <= _LAST_YEAR:
        raise ConfigError(f"{text!r} is not a time that a trail knows", hint=_HINT)
    return found, exact


def _moment(text: str, now: datetime) -> tuple[datetime, timedelta]:
    ago = _AGO.fullmatch(text)
    if ago:
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])}), timedelta(seconds=1)
    exact = timedelta(seconds=1) if text.count(":") > 1 else timedelta(minutes=1)
    if not _CLOCK.fullmatch(text):
        found = datetime.fromisoformat(text)
        return (found.astimezone() if found.tzinfo else found), exact
    hour, minute, *second = map(int, text.split(":"))
    found = now.replace(hour=hour, minute=minute, second=sum(second), microsecond=0)
    return (found if found <= now else found - timedelta(days=1)), exact


def _run(arguments: argparse.Namespace) -> int:
    window = _window(arguments, datetime.now())
    path = _trail(arguments.file)
    entries = _read(path)
    chosen = [
        story
        for story in stories(entries)
        if window.holds(story) and _is_about(story, arguments.about or "")
    ]
    asked = arguments.at or arguments.since or arguments.until
    last = arguments.last or (len(chosen) if asked else _LAST)
    console = TerminalConsole()
    for story in chosen[-last:]:
        if arguments.json:
            print(json.dumps(story.as_json()), flush=True)
        else:
            _show(console, story)
    if not chosen and not arguments.json:
        console.print(_nothing(entries, path), soft_wrap=True, highlight=False)
    elif len(chosen) > last and not arguments.json:
        console.print(f"{len(chosen) - last} earlier ones: --last {len(chosen)}", style="dim")
    return ExitCode.PASS


def _read(path: Path) -> tuple[AuditEntry, ...]:
    """Read a trail; ConfigError if it may not be read."""
    try:
        return read_trail(path)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


def _window(arguments: argparse.Namespace, now: datetime) -> Period:
    if arguments.at:
        if arguments.since or arguments.until:
            raise ConfigError("--at excludes --since and --until")
        middle, exact = moment(arguments.at, now)
        before = timedelta() if exact > timedelta(seconds=1) else timedelta(seconds=30)
        after = max(exact, timedelta(seconds=30))
        return Period((middle - before).timestamp(), (middle + after).timestamp())
    window = Period()
    if arguments.since:
        window.start = moment(arguments.since, now)[0].timestamp()
    if arguments.until:
        window.end = moment(arguments.until, now)[0].timestamp()
    if window.start >= window.end:
        raise ConfigError("--since is not before --until")
    return window


def _is_about(story: Story, text: str) -> bool:
    decision = story.began.decision
    return any(text in said for said in (decision.step, *decision.changes))


def _trail(chosen: str | None) -> Path:
    if chosen is not None:
        if not Path(chosen).is_file():
            raise ConfigError(f"--file: no file {chosen}")
        return Path(chosen)
    files = trail_files()
    return next((path for path in files if path.exists()), files[0])


def _nothing(entries: Sequence[AuditEntry], path: Path) -> str:
    if not entries:
        with contextlib.suppress(OSError):
            if path.stat().st_size:
                return f"{path} holds no decision that can be read"
        return f"no tuner has decided anything yet: {path} is empty or absent"
    first, last = (_stamp(one.unix_s) for one in (entries[0], entries[-1]))
    return f"nothing was decided then; {path} has {len(entries)} decisions, {first} to {last}"


def _show(console: TerminalConsole, story: Story) -> None:
    decision = story.began.decision
    what = f"{decision.action} {decision.step}" if decision.step else str(decision.state)
    head = Text(f"{_stamp(story.began.unix_s)}  ")
    head.append(f"{one_line(what):<24}", style=STYLES.get(decision.action, ""))
    head.append(f" {one_line(decision.reason)}")
    lines = [head]
    if decision.score:
        lines.append(_under("saw", _seen(story.began)))
    lines += [_under("what", change) for change in decision.changes]
    for entry in story.then:
        now = entry.decision
        said = "; ".join((now.reason, *now.changes))
        lines.append(_under("then", f"{_clock(story.began, entry)} {now.action}: {said}"))
    for line in lines:
        console.print(line, soft_wrap=True)


def _under(name: str, said: str) -> Text:
    return Text(f"    {name:<5}", style="dim").append(one_line(said), style="not dim")


def _seen(entry: AuditEntry) -> str:
    one = entry.decision
    return (
        f"score {one.score:.1f}: memory {one.memory_some:.1f} %, storage {one.io_some:.1f} %, "
        f"{one.swap_ins:.0f} pages/s back from disk swap"
    )


def _stamp(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_s))


def _clock(began: AuditEntry, entry: AuditEntry) -> str:
    """Return the time of day, and the day too if it is another one."""
    then = _stamp(entry.unix_s)
    return then if then[:10] != _stamp(began.unix_s)[:10] else then[11:]


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise ConfigError(f"--last {text!r} is not a number of decisions", hint="give 1 or more")
    return int(text)
