"""How a machine ended, judged by what it left: console, QEMU's events, exit status; pure.

A guest that the kernel's panic reset, one that powered itself off, a QEMU that was killed and
a machine that runs on without answering all look alike from the agent's channel: silent.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hyperbox.errors import BootTimeout, GuestCrash, MachineLost
from hyperbox.harness.lab.crash import find_crash

__all__ = ["ExitEvidence", "never_booted", "what_happened"]

_STOPPED = "stopped answering"


@dataclass(frozen=True)
class ExitEvidence:
    """What is left of a machine.

    `events` are QEMU's (docs/interop/qmp-spec), oldest first; `status` is QEMU's exit status
    (negative: signal), None while it runs; `errors` is what it wrote to its error stream.
    `halted` says by what QEMU is stopped, if it is; `mute` that its monitor does not answer.
    """

    console: str
    events: Sequence[Mapping[str, Any]] = ()
    status: int | None = None
    errors: str = ""
    halted: str = ""
    mute: bool = False


def what_happened(message: str, remains: ExitEvidence) -> MachineLost:
    """Return the error for a machine that went away, with a fingerprint that names its end.

    `message` says how the harness noticed. A report of the kernel counts most, then the
    panic that QEMU was notified of, then how QEMU ended.
    """
    crash = find_crash(remains.console)
    if crash is not None:
        return GuestCrash(
            f"the guest crashed: {crash.kind}: {crash.message}", fingerprint=crash.fingerprint
        )
    if any(event["event"] == "GUEST_PANICKED" for event in remains.events):
        return GuestCrash(
            "the guest panicked, and its console does not say why", fingerprint="panic: unreported"
        )
    name, hint = _name(remains)
    errors = f": {remains.errors}" if remains.errors else ""
    return MachineLost(
        f"{message} ({name}; {_state(remains)}{errors})", fingerprint=name, hint=hint
    )


def never_booted(timeout: float, remains: ExitEvidence) -> BootTimeout:
    """Return the error for a guest whose agent did not answer within `timeout` seconds."""
    lines = [line.strip() for line in remains.console.splitlines() if line.strip()]
    crash = find_crash(remains.console)
    where = crash.fingerprint if crash else lines[-1] if lines else "nothing on the console"
    tail = lines[-1] if lines else "(nothing)"
    return BootTimeout(
        f"no agent after {timeout:g} s; console ends: {tail}",
        fingerprint=f"never boots: {_without_time(where)}",
    )


def _name(remains: ExitEvidence) -> tuple[str, str]:
    """Return the fingerprint of an end that the kernel did not report, and a hint."""
    status = remains.status
    if status is None:
        return _name_of_living(remains)
    if status < 0:
        hint = ""
        if -status == signal.SIGBUS:
            hint = "the host has no memory left for the guest: see `free -m`, use fewer --jobs"
        return f"QEMU death: {_signal_name(-status)}", hint
    if status > 0:
        return f"QEMU death: status {status}", ""
    reasons = [
        str(event.get("data", {}).get("reason", ""))
        for event in remains.events
        if event["event"] == "SHUTDOWN"
    ]
    reason = reasons[-1] if reasons else "without a reason"
    if reason in ("guest-shutdown", "guest-reset"):
        return f"{'power-off' if reason == 'guest-shutdown' else 'reset'}: by the guest", ""
    return f"QEMU death: {reason}", ""


def _name_of_living(remains: ExitEvidence) -> tuple[str, str]:
    if remains.halted:
        return f"QEMU stopped: {remains.halted}", "see what stops processes on this machine"
    if remains.mute:
        return "QEMU hangs: no answer from its monitor", ""
    return f"{_STOPPED}: no report", ""


def _state(remains: ExitEvidence) -> str:
    errors = f": {remains.errors}" if remains.errors else ""
    if remains.status is not None:
        return f"QEMU ended with status {remains.status}{errors}"
    return f"QEMU {'is stopped' if remains.halted else 'still runs'}{errors}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _without_time(line: str) -> str:
    return line.partition("] ")[2] if line.startswith("[") else line
