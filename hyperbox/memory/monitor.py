"""``python3 -m hyperbox.memory.monitor``: the monitor by itself, one JSON line a sample."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from hyperbox.errors import HyperboxError
from hyperbox.memory.psi import HISTORY, INTERVAL_S, Sampler, watch
from hyperbox.printing import complain

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run until the count is reached or a signal ends it; return the exit code."""
    parser = argparse.ArgumentParser(prog="hyperbox.memory.monitor", description=__doc__)
    parser.add_argument("--interval", type=float, default=INTERVAL_S, help="seconds")
    parser.add_argument("--history", type=int, default=HISTORY, help="samples kept")
    parser.add_argument("--count", type=int, default=None, help="samples taken; default: no end")
    chosen = parser.parse_args(argv)
    if chosen.interval <= 0 or chosen.history < 1:
        parser.error("interval and history must be above 0")
    try:
        with Sampler(history=chosen.history) as sampler:
            watch(sampler, _print, interval_s=chosen.interval, count=chosen.count)
    except HyperboxError as error:
        complain(f"hyperbox.memory.monitor: {error.message}")
        return error.exit_code
    except KeyboardInterrupt:
        pass
    return 0


def _print(sampler: Sampler) -> None:
    print(json.dumps(sampler.report()), flush=True)


if __name__ == "__main__":
    sys.exit(main())
