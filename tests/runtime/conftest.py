"""A root file system of busybox, and a state directory of the tests' own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

APPLETS = (
    *("sh", "cat", "echo", "env", "hostname", "id", "ls", "pwd", "sleep", "stty", "touch"),
    *("grep", "mkdir", "tty"),
)


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed run leaves here is no leftover to the tests beside it."""
    monkeypatch.setenv("HYPERBOX_STATE", os.fspath(tmp_path / "state"))


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rootfs")
    root.chmod(0o755)  # other users than root look into it too
    (root / "bin").mkdir()
    (root / "bin/busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (root / "bin/busybox").chmod(0o755)
    for name in APPLETS:
        (root / "bin" / name).symlink_to("busybox")
    (root / "text").write_text("not a program\n")
    return root
