"""A workload's command line: a help that says it all, numbers that are numbers, an end.

Bad usage, too little memory and an interruption are a line and an exit code, never a trace.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from hyperbox import interruption
from hyperbox.errors import WorkloadError
from hyperbox.linux.huge_pages import refuse_huge_pages

__all__ = ["ended", "number", "parser", "whole"]

_NO_MEMORY = 3  # as of the harness: nothing could be measured
_MOST = 1 << 40


class _Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Paragraphs stay paragraphs, and every option says its default."""


def parser(name: str, documentation: str | None, example: str) -> argparse.ArgumentParser:
    """Return a parser whose help is a module's documentation, and a command to begin with."""
    return argparse.ArgumentParser(
        prog=name,
        description=(documentation or "").replace("``", "`").strip(),
        epilog=f"example: {example}",
        formatter_class=_Formatter,
        allow_abbrev=False,
    )


def whole(least: int, most: int = _MOST) -> Callable[[str], int]:
    """Return what argparse's `type` takes: whole numbers from `least` to `most`."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
        return int(_within(int(text), least, most))

    return parse


def number(least: float, most: float = float(_MOST)) -> Callable[[str], float]:
    """Return what argparse's `type` takes: numbers from `least` to `most`."""

    def parse(text: str) -> float:
        try:
            return _within(float(text), least, most)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None

    return parse


def ended(main: Callable[[], int], *, small_pages: bool = False) -> int:
    """Run a workload's main function; return the exit code of the process.

    That is 130 after SIGINT and 143 after SIGTERM, once what it started or made is gone. With
    `small_pages` its memory is what it asks for: khugepaged makes a huge page of any stretch of a
    heap in which one page is used (``max_ptes_none``), at a time that nobody knows, and charges
    it to the cgroup of then: 2 MiB of the suite's 24, in some starts and not in others.
    """
    signal.signal(signal.SIGTERM, _terminated)
    try:
        if small_pages:
            refuse_huge_pages()
        with interruption.reraise_lost_signals():
            return main()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        sys.stderr.close()  # the interpreter would complain about its last flush
        return 128 + signal.SIGPIPE
    except WorkloadError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    except MemoryError:
        print("not enough memory for that", file=sys.stderr)
        return _NO_MEMORY


def _terminated(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _within(value: float, least: float, most: float) -> float:
    if math.isnan(value) or not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{value:g} is not from {least:g} to {most:g}")
    return value
