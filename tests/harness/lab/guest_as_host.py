"""A program for guests: measures the guest itself as the host target does, changes allowed.

With the argument ``kill`` the suite's program is killed as soon as it has changed a setting, its
last change before it measures. What came of it, every kind of change seen meanwhile, and the
machine before and after are printed as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading

from hyperbox.harness.declarations import load_suites
from hyperbox.harness.lab.host import HOST, HostLaboratory
from hyperbox.journal import state_directory
from hyperbox.records import read_directory
from tests.linux.crashing import machine


def main() -> None:
    """Measure one arm of the pressure experiment on this machine."""
    experiments = [experiment for suite in load_suites() for experiment in suite.experiments]
    experiment = next(one for one in experiments if one.id == "psi.pressure_reduction")
    argv = [word.replace("{arm}", "zram_generator") for word in experiment.program]
    before, ended = machine(), threading.Event()
    seen: set[str] = set()

    def watch() -> None:
        while not ended.wait(0.05):
            changes = read_directory(state_directory())
            seen.update(change.kind for change in changes)
            if sys.argv[1] == "kill" and "knob" in seen:
                os.kill(changes[0].owner.pid, signal.SIGKILL)
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    with HostLaboratory(allow_changes=True).source(HOST, experiment).fresh() as host:
        done = host.execute(argv, timeout=300)
    ended.set()
    watcher.join()
    said = done.stdout.decode() or done.stderr.decode()
    found = {"status": done.status, "said": said, "seen": sorted(seen)}
    print(json.dumps(found | {"before": before, "after": machine()}))


if __name__ == "__main__":
    main()
