from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from hyperbox.cli import kernels
from hyperbox.errors import ConfigError
from hyperbox.files import write_json
from hyperbox.harness.lab.debian_archive import MirrorSilent
from hyperbox.harness.lab.kernel_kit import kernels_directory
from hyperbox.harness.lab.kernel_lock import read_lock, read_matrix
from hyperbox.harness.lab.kernel_matrix import lock_document, parse_lock

NOBODY = "http://127.0.0.1:9/debian"  # port 9: nothing listens


def call(*words: str) -> int:
    parser = argparse.ArgumentParser()
    kernels.add_parser(parser.add_subparsers(required=True))
    arguments = parser.parse_args(["kernels", *words])
    status = arguments.run(arguments)
    assert isinstance(status, int)
    return status


def test_list_shows_every_series(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("list", "--json") == 0
    rows = json.loads(capsys.readouterr().out)["kernels"]
    assert [row["series"] for row in rows] == list(read_matrix().labels())
    assert all(row["locked"] for row in rows)
    assert call("list") == 0
    text = capsys.readouterr().out
    assert all(label in text for label in read_matrix().labels())


def test_list_works_in_an_empty_cache_without_a_mirror(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPERBOX_CACHE", str(tmp_path))
    assert call("list", "--mirror", NOBODY, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert not document["lists_known"]
    assert document["left_out"] == []
    assert not any(row["cached"] for row in document["kernels"])
    with pytest.raises(MirrorSilent):
        call("list", "--mirror", NOBODY, "--refresh")


def test_fetch_gives_kits_as_json_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("fetch", "6.12", "--json") == 0
    (kit,) = json.loads(capsys.readouterr().out)
    assert kit["label"] == "6.12"
    assert Path(kit["vmlinuz"]).is_relative_to(kernels_directory())
    assert Path(kit["modules_image"]).exists()
    assert call("fetch", "6.12") == 0
    assert kit["release"] in capsys.readouterr().out


def test_unknown_series_is_bad_usage() -> None:
    with pytest.raises(ConfigError, match="unknown kernel"):
        call("fetch", "2.4")


@pytest.fixture
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "lock.json"
    write_json(path, lock_document(read_lock()))
    monkeypatch.setattr("hyperbox.harness.lab.kernel_lock.lock_path", lambda: path)
    monkeypatch.setattr("hyperbox.cli.kernels.lock_path", lambda: path)
    return path


def test_lock_with_nothing_to_do_needs_no_mirror(
    own_lock: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = own_lock.read_bytes()
    assert call("lock", "--mirror", NOBODY) == 0
    assert "all 11 series are locked" in capsys.readouterr().out
    assert own_lock.read_bytes() == before


def test_lock_fills_in_from_the_signed_lists(own_lock: Path) -> None:
    locked = read_lock()
    write_json(own_lock, lock_document({name: locked[name] for name in locked if name != "7.3"}))
    assert call("lock") == 0
    filled = parse_lock(own_lock.read_text())
    assert list(filled) == list(locked)
    assert all(part.listed for part in filled["7.3"].packages)
    assert {name: filled[name] for name in filled if name != "7.3"} == {
        name: locked[name] for name in locked if name != "7.3"
    }


def test_silent_mirror_leaves_the_lock_alone(
    own_lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPERBOX_CACHE", str(tmp_path / "cache"))
    before = own_lock.read_bytes()
    with pytest.raises(MirrorSilent):
        call("update", "--mirror", NOBODY)
    assert own_lock.read_bytes() == before
