from __future__ import annotations

from pathlib import Path

import pytest

from hyperbox.errors import ConfigError
from hyperbox.harness.lab.kernel_lock import read_matrix
from hyperbox.harness.lab.kernel_selectors import expand_kernels


def test_selectors_keep_their_order_and_sets_are_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bzImage").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    found = expand_kernels(["bzImage", "host", "6.12.90", "default", "6.12", "host"])
    assert found == (str(tmp_path / "bzImage"), "host", "6.12.90", *read_matrix().sets["default"])


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown kernel '6\.13'"):
        expand_kernels(["6.13"])
