"""``python3 -m hyperbox.memory.tune``: the tuner by itself, one JSON line a decision."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from hyperbox import interruption
from hyperbox.errors import ExitCode, HyperboxError
from hyperbox.memory.decisions import Decision
from hyperbox.memory.tuning import Tuning
from hyperbox.memory.tuning_options import add_options, options_from
from hyperbox.printing import complain

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Tune until a signal ends it; everything is taken back then. Return the exit code."""
    parser = argparse.ArgumentParser(prog="hyperbox.memory.tune", description=__doc__)
    add_options(parser)
    parser.add_argument("--count", type=int, default=None, help="readings; default: no end")
    chosen = parser.parse_args(argv)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        with interruption.reraise_lost_signals():
            _tune(Tuning(options_from(chosen)), chosen.count)
    except HyperboxError as error:
        complain(f"hyperbox.memory.tune: {error.message}")
        return error.exit_code
    except KeyboardInterrupt:  # before it began
        return ExitCode.PASS
    return ExitCode.PASS


def _tune(tuning: Tuning, count: int | None) -> None:
    try:
        with contextlib.suppress(KeyboardInterrupt):  # the usual end
            tuning.run(_print, count=count)
    finally:
        for decision in tuning.close():
            _print(decision)
    tuning.check_put_back()


def _print(decision: Decision) -> None:
    print(json.dumps(decision.as_json()), flush=True)


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    """Leave by an exception; later signals must not cut the taking back short."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
