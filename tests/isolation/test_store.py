"""The store of profiles: versions that stay, damage that is named, links that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hyperbox.errors import ConfigError
from hyperbox.isolation.default_profile import default_profile
from hyperbox.isolation.learning import learn, regenerate
from hyperbox.isolation.recording import Recording
from hyperbox.isolation.store import ProfileStore
from hyperbox.linux.syscalls import Abi


def recording(*names: str) -> Recording:
    return Recording({Abi.X86_64: frozenset(names)}, ended="exit 0")


@pytest.fixture
def store(tmp_path: Path) -> ProfileStore:
    return ProfileStore(tmp_path / "seccomp")


def test_versions_follow_what_is_learned(store: ProfileStore) -> None:
    first = learn(store, "web", recording("mlock"))
    same = learn(store, "web", recording("mlock"))
    assert store.load("web").metadata["runs"] == 2  # the profile is the same, its runs are not
    second = learn(store, "web", recording("mincore"))
    assert (first.number, same.number, second.number) == (1, 1, 2)
    assert store.versions("web") == (1, 2)
    assert len(store.recordings("web")) == 3
    found = store.load("web")
    assert {"mlock", "mincore"} <= found.profile.allowed()
    assert found.default == default_profile()
    assert found.metadata["runs"] == 3
    assert found.metadata["new_calls"] == [1, 0, 1]


def test_going_back_and_forth(store: ProfileStore) -> None:
    learn(store, "web", recording("mlock"))
    learn(store, "web", recording("mincore"))
    assert store.roll_back("web") == 1
    assert "mincore" not in store.load("web").profile.allowed()
    with pytest.raises(ConfigError, match="no version before 1"):
        store.roll_back("web")
    assert store.roll_back("web", 2) == 2
    with pytest.raises(ConfigError, match="no version 9"):
        store.load("web", 9)


def test_another_default_makes_another_version(store: ProfileStore) -> None:
    learn(store, "web", recording("socket"))
    assert regenerate(store, "web", "docker-20.10.24").number == 2


def test_the_backup_is_of_the_default_that_a_version_was_made_from(store: ProfileStore) -> None:
    learned = learn(store, "web", recording("read"))
    profile, other = learned.generated.profile, default_profile("docker-20.10.24")
    assert store.add_version("web", profile, other, {}) == 2
    assert store.load("web").default == other


@pytest.mark.parametrize("name", ["../x", "", "A", "a/b", "x" * 64, ".hidden"])
def test_names_that_are_paths_are_refused(store: ProfileStore, name: str) -> None:
    with pytest.raises(ConfigError, match="is not a name for a profile"):
        learn(store, name, recording("read"))


def test_a_store_that_others_can_change_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(ConfigError, match="others may write"):
        ProfileStore(tmp_path / "open")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="or a link"):
        ProfileStore(tmp_path / "link")


@pytest.mark.parametrize("part", ["profile.json", "default.json", "metadata.json"])
@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff"])
def test_damage_is_named(store: ProfileStore, part: str, damage: bytes) -> None:
    learn(store, "web", recording("read"))
    path = store.directory / "web/versions/0001" / part
    path.write_bytes(damage)
    with pytest.raises(ConfigError) as caught:
        store.load("web")
    assert str(path) in caught.value.message


def test_a_recording_of_another_version_is_refused(store: ProfileStore) -> None:
    learn(store, "web", recording("read"))
    path = store.directory / "web/recordings/0001.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(ConfigError, match="not a recording of this version"):
        store.recordings("web")


@pytest.mark.parametrize("place", ["web", "web/versions", "web/versions/0001", "web/recordings"])
def test_a_link_or_an_open_directory_within_is_refused(
    store: ProfileStore, tmp_path: Path, place: str
) -> None:
    learn(store, "web", recording("read"))
    path = store.directory / place
    path.chmod(0o777)
    with pytest.raises(ConfigError, match="others may write"):
        store.load("web")
    path.chmod(0o755)
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    with pytest.raises(ConfigError, match="or a link"):
        store.load("web")


def test_a_link_to_a_file_is_refused(store: ProfileStore, tmp_path: Path) -> None:
    learn(store, "web", recording("read"))
    path = store.directory / "web/versions/0001/profile.json"
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    with pytest.raises(ConfigError, match="is a link"):
        store.load("web")


@pytest.mark.parametrize("text", ["", "x", "-1", "1 2", "9" * 5000])
def test_a_damaged_number_in_force_is_named_and_put_right(store: ProfileStore, text: str) -> None:
    learn(store, "web", recording("read"))
    (store.directory / "web/current").write_text(text)
    with pytest.raises(ConfigError, match="number of a version"):
        store.load("web")
    assert store.roll_back("web", 1) == 1
    assert store.load("web").number == 1
