"""Where BPF is not allowed or cannot work, the tracer says why in one line, and nothing else.

Two situations: no capabilities, and a pid namespace of its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from hyperbox.errors import HyperboxError
from hyperbox.observability.ebpf import Tracer
from hyperbox.observability.instrument import Instrument, Scope
from hyperbox.processes import require, run
from suites.program import Measured, run_program

__all__ = ["SITUATIONS", "main"]

_TIMEOUT_S = 60.0
_TRY = "--try"
_REFUSED = 3
SITUATIONS: Mapping[str, tuple[Sequence[str], str]] = {
    "no capabilities": (
        ("setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--no-new-privs"),
        "CAP_BPF",
    ),
    "a pid namespace": (("unshare", "--pid", "--fork"), "outside of the container"),
}
"""What starts a program in the situation, and what the tracer's hint has to say."""


def main() -> int:
    """Measure; or try to trace, print the error, and return `_REFUSED`."""
    if sys.argv[1:] == [_TRY]:
        return _try()
    return run_program(_measure)


def _try() -> int:
    try:
        with Tracer(Scope()):
            return 0
    except HyperboxError as error:
        print(f"{error.message} ({error.hint})")
        return _REFUSED


def _measure() -> Measured:
    assert Instrument.OBJECT.exists()
    said = {}
    unclear = []
    for name, (words, wanted) in SITUATIONS.items():
        require(words[0], "util-linux")
        command = [*words, sys.executable, "-m", "suites.ebpf.fallback", _TRY]
        environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
        done = run(command, timeout=_TIMEOUT_S, check=False, environment=environment, cwd=Path("/"))
        said[name] = done.text()
        clear = done.status == _REFUSED and wanted in done.text() and not done.stderr
        if not clear or len(done.text().splitlines()) != 1:
            unclear.append(name)
            said[name] += done.stderr.decode(errors="replace")
    return Measured(
        {"unclear": float(len(unclear)), "situations": float(len(SITUATIONS))}, {"said": said}
    )


if __name__ == "__main__":
    sys.exit(main())
