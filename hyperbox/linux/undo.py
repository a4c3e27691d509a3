"""Every kind of change that hyperbox makes to a machine, and how each is undone.

``python3 -m hyperbox.linux.undo`` is the repair of ``hyperbox doctor --repair`` for a machine
that has nothing but a bare python: a line for each change that a killed run left, exit status
3 if one of them cannot be undone.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from hyperbox.errors import ExitCode
from hyperbox.journal import ChangeKind, UndoOutcome
from hyperbox.linux.cgroup import CGROUP, CONTROLLER
from hyperbox.linux.knob import KNOB
from hyperbox.linux.mounts import MOUNT
from hyperbox.linux.null_blk import NULL_BLK
from hyperbox.linux.oci_runtime import CONTAINER
from hyperbox.linux.swap import SWAP
from hyperbox.linux.zram import ZRAM
from hyperbox.printing import one_line
from hyperbox.repair import repair

__all__ = ["KINDS", "main"]

KINDS: Mapping[str, ChangeKind] = {
    kind.name: kind for kind in (CGROUP, CONTAINER, CONTROLLER, KNOB, MOUNT, NULL_BLK, SWAP, ZRAM)
}
"""Every kind by its name in the journal."""


def main() -> int:
    """Undo what killed runs left; return the exit code."""
    done = repair(KINDS)
    for one in done:
        print(one_line(str(one)), flush=True)
    failed = any(one.outcome is UndoOutcome.FAILED for one in done)
    return ExitCode.HARNESS_ERROR if failed else ExitCode.PASS


if __name__ == "__main__":
    sys.exit(main())
