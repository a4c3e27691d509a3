"""What the verbs that boot a guest for people share."""

from __future__ import annotations

import pytest

from hyperbox.cli.guest_options import lost
from hyperbox.errors import GuestCrash


def test_a_console_that_cannot_be_kept_does_not_hide_the_crash(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HYPERBOX_CACHE", "/dev/null/cache")
    crash = GuestCrash("the guest crashed", fingerprint="panic: here")
    crash.console = "[    1.0] Kernel panic"
    shown = lost("6.12", crash)
    assert shown.message.startswith("kernel 6.12: the guest crashed [panic: here]; ")
    assert "its console is lost: cannot write" in shown.message
