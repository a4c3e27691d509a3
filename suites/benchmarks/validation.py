"""What a user waits for: the default validation, with everything in the caches."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from hyperbox.errors import ExitCode, HarnessError
from hyperbox.harness.lab.guest_image import root_image
from hyperbox.harness.lab.kernel_kit import kernel_kits
from hyperbox.harness.lab.kernel_lock import read_matrix
from hyperbox.processes import run

_LIMIT_S = 3000.0
_DECIDED = (ExitCode.PASS, ExitCode.GATE_FAILED, ExitCode.INCONCLUSIVE)


class ValidationBenchmark:
    """Wall-clock time of one `hyperbox validate` from its start to its exit."""

    timeout = 3600
    unit = "s"

    def setup(self) -> None:
        """Fill the caches: kernels and guest root."""
        kernel_kits(read_matrix().expand(["default"]))
        root_image()

    def track_default_run(self) -> float:
        """Seconds; the target is at most 600 on two cores without KVM."""
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name) / "run"
            argv = [sys.executable, "-m", "hyperbox", "validate", "--run-directory", str(directory)]
            before = time.monotonic()
            done = run(argv, timeout=_LIMIT_S, environment=_settings(), check=False)
            seconds = time.monotonic() - before
        if done.status not in _DECIDED:
            errors = done.stderr.decode(errors="replace").strip()
            raise HarnessError(f"the run broke with exit code {done.status}: {errors}")
        return seconds


def _settings() -> dict[str, str]:
    """Variables that say where the caches and the mirror are."""
    names = ("HYPERBOX_CACHE", "HYPERBOX_DEBIAN_MIRROR", "XDG_CACHE_HOME")
    return {name: os.environ[name] for name in names if name in os.environ}
