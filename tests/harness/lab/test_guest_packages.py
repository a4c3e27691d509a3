"""The daemon's packages travel as one file: same packages, same bytes, importable as it lies."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hyperbox.harness.lab.guest_packages import guest_packages
from hyperbox.processes import run


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERBOX_CACHE", str(tmp_path / "cache"))


def test_everything_that_the_daemon_imports_is_in_it() -> None:
    packed = guest_packages()
    assert packed is not None
    asked = "import uvicorn, starlette.applications, prometheus_client; print(uvicorn.__file__)"
    # Isolated, and without site packages: nothing but the file can give them.
    script = f"import sys; sys.path.insert(0, {str(packed)!r}); {asked}"
    done = run([sys.executable, "-I", "-S", "-c", script], timeout=120)
    assert done.text().startswith(str(packed))


def test_it_is_made_once_and_the_same_each_time() -> None:
    first = guest_packages()
    assert first is not None
    before = (first.stat().st_ino, first.read_bytes())
    assert guest_packages() == first
    assert (first.stat().st_ino, first.read_bytes()) == before
    first.unlink()
    again = guest_packages()
    assert again is not None
    assert again.read_bytes() == before[1]


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_file_is_made_again(damage: str) -> None:
    packed = guest_packages()
    assert packed is not None
    whole = packed.read_bytes()
    half = len(whole) // 2
    rest = b"" if damage == "cut" else bytes([whole[half] ^ 1]) + whole[half + 1 :]
    packed.write_bytes(whole[:half] + rest)
    assert guest_packages() == packed
    assert packed.read_bytes() == whole
