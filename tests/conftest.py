"""Tests that this machine cannot run are skipped with the reason, never silently."""

from __future__ import annotations

import os
import shutil

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
