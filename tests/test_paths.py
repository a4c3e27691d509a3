"""Where the user's files lie, by the XDG base directory specification."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hyperbox.errors import ConfigError
from hyperbox.paths import cache_directory, user_directory


def test_variables_are_followed_if_they_are_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYPERBOX_CACHE", raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    for value in ("", "relative", "./x"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_directory() == Path("/home/me/.cache/hyperbox")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_directory() == Path("/caches/hyperbox")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert user_directory("XDG_CACHE_HOME", ".cache") == Path("/home/me/.cache")


@pytest.mark.parametrize("name", ['a"b', "a\nb", "a\x1bb", "\udcff"])
@pytest.mark.parametrize("variable", ["HYPERBOX_CACHE", "XDG_CACHE_HOME"])
def test_a_cache_where_apt_cannot_work_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, variable: str, name: str
) -> None:
    monkeypatch.delenv("HYPERBOX_CACHE", raising=False)
    monkeypatch.setenv(variable, f"/caches/{name}")
    with pytest.raises(ConfigError, match="which apt cannot handle") as caught:
        cache_directory()
    assert caught.value.message.isprintable()


def test_a_cache_may_have_other_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERBOX_CACHE", "/a, b's/ü/50%;{x}")
    assert cache_directory() == Path("/a, b's/ü/50%;{x}")


@pytest.mark.root
def test_a_user_without_a_home_is_told_what_to_set() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, sys, hyperbox.cli.psi; from hyperbox.cli.main import main\n"
            "os.setuid(54321)\n"
            "for name in ('XDG_STATE_HOME', 'HYPERBOX_STATE', 'HOME'): os.environ.pop(name, None)\n"
            "sys.exit(main(['psi', 'decisions']))",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 64
    assert done.stderr.splitlines() == [
        "hyperbox: error: user 54321 has no home directory",
        "hint: set HOME or XDG_STATE_HOME",
    ]
