"""What all tests share: skips with their reason, and a check that guests leave nothing."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip by marker what needs root or QEMU and cannot have it here."""
    lacking = {}
    if os.geteuid() != 0:
        lacking["root"] = pytest.mark.skip(reason="needs root")
    if shutil.which("qemu-system-x86_64") is None:
        lacking["vm"] = pytest.mark.skip(reason="needs qemu-system-x86_64")
    for item in items:
        for marker, skip in lacking.items():
            if item.get_closest_marker(marker):
                item.add_marker(skip)


# A script's background job is started with SIGINT ignored, nohup's with SIGHUP, and children
# inherit that: tests that end programs by these signals would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# No test is a stopwatch: on a busy machine a deadline says nothing about the code.
hypothesis.settings.register_profile("hyperbox", deadline=None)
hypothesis.settings.load_profile("hyperbox")


@pytest.fixture
def no_leftovers() -> Iterator[None]:
    """Fail if the test leaves files of guests behind; other processes have theirs."""
    own, directory = f"hyperbox-{os.getpid()}-*", Path("/dev/shm")
    before = set(directory.glob(own))
    yield
    assert set(directory.glob(own)) <= before
