"""How a machine ended, by what it left."""

from __future__ import annotations

from typing import Any

import pytest

from hyperbox.errors import GuestCrash
from hyperbox.harness.lab.exit_evidence import ExitEvidence, never_booted, what_happened

_PANIC = "[    1.0] Kernel panic - not syncing: planted\n[    1.0]  do_it+0x1/0x2\n"
_PANICKED: dict[str, Any] = {"event": "GUEST_PANICKED", "data": {"action": "run"}}


def _shutdown(reason: str) -> dict[str, Any]:
    return {"event": "SHUTDOWN", "data": {"guest": True, "reason": reason}}


@pytest.mark.parametrize(
    ("remains", "fingerprint", "crash"),
    [
        (ExitEvidence(_PANIC, [_PANICKED, _shutdown("guest-reset")], 0), "panic: do_it", True),
        (ExitEvidence(_PANIC, [], -9), "panic: do_it", True),
        (ExitEvidence("", [_PANICKED, _shutdown("guest-reset")], 0), "panic: unreported", True),
        (ExitEvidence("", [_shutdown("guest-reset")], 0), "reset: by the guest", False),
        (ExitEvidence("", [_shutdown("guest-shutdown")], 0), "power-off: by the guest", False),
        (ExitEvidence("", [_shutdown("host-signal")], 0), "QEMU death: host-signal", False),
        (ExitEvidence("", [], 0), "QEMU death: without a reason", False),
        (ExitEvidence("", [], -9), "QEMU death: SIGKILL", False),
        (ExitEvidence("", [], -99), "QEMU death: signal 99", False),
        (ExitEvidence("", [], 1, "bad option"), "QEMU death: status 1", False),
        (ExitEvidence("", [], None), "stopped answering: no report", False),
        (ExitEvidence("", [], None, halted="by a signal"), "QEMU stopped: by a signal", False),
        (ExitEvidence("", [], None, mute=True), "QEMU hangs: no answer from its monitor", False),
        (ExitEvidence("", [], -9, mute=True), "QEMU death: SIGKILL", False),
        (ExitEvidence(_PANIC, [], None, halted="by a signal"), "panic: do_it", True),
    ],
)
def test_every_end_has_a_name(remains: ExitEvidence, fingerprint: str, crash: bool) -> None:
    error = what_happened("the machine went away", remains)
    assert error.fingerprint == fingerprint
    assert isinstance(error, GuestCrash) is crash
    assert remains.errors in error.message


def test_death_for_want_of_memory_has_a_hint() -> None:
    assert "free -m" in what_happened("gone", ExitEvidence("", [], -7)).hint


@pytest.mark.parametrize(
    ("console", "fingerprint"),
    [
        ("", "never boots: nothing on the console"),
        ("[    0.5] waiting for root\n\n", "never boots: waiting for root"),
        (_PANIC, "never boots: panic: do_it"),
    ],
)
def test_a_boot_that_never_ends_is_named_by_its_console(console: str, fingerprint: str) -> None:
    error = never_booted(240, ExitEvidence(console))
    assert error.fingerprint == fingerprint
    assert "no agent after 240 s" in error.message
