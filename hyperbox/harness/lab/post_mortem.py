"""What became of a QEMU whose guest went silent: asked in bounded time, whatever its state."""

from __future__ import annotations

import contextlib
import subprocess

from hyperbox.harness.lab.exit_evidence import ExitEvidence
from hyperbox.harness.lab.monitor import Monitor, MonitorError
from hyperbox.harness.lab.process_stat import stat_of

__all__ = ["examine_remains", "halted"]

_DYING_S = 2.0  # from the end of its channels to the end of the process
_QUESTION_S = 15.0
_ANSWER_TO_NMI_S = 3.0
_LEAVING_S = 10.0  # from the end of its monitor, on a machine that is busy


def halted(process: subprocess.Popen[bytes]) -> str:
    """Return by what a process is stopped; empty if it may run, or has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return stat_of(process.pid).halted if process.poll() is None else ""
    return ""


def examine_remains(process: subprocess.Popen[bytes], monitor: Monitor | None) -> ExitEvidence:
    """Return QEMU's status, state and events; a guest that runs is asked what it does.

    Takes half a minute at most, and what is on console and error stream is the caller's to add.
    """
    stopped = halted(process)
    if not stopped:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_DYING_S)
        if process.poll() is None and monitor is not None:
            _question(process, monitor)
    return ExitEvidence(
        console="",
        events=monitor.last_words() if monitor is not None else [],
        status=process.poll(),
        halted=stopped,
        mute=monitor is not None and monitor.mute,
    )


def _question(process: subprocess.Popen[bytes], monitor: Monitor) -> None:
    """Send an interrupt that cannot be masked: the kernel reports what it does and ends."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        try:
            if monitor.command("query-status", limit=_QUESTION_S)["status"] == "running":
                monitor.command("inject-nmi", limit=_QUESTION_S)
                process.wait(timeout=_ANSWER_TO_NMI_S)
        except MonitorError:
            if not monitor.mute:  # it has hung up, so it is about to end
                process.wait(timeout=_LEAVING_S)
