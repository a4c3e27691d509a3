"""What guests are made of is pinned, and what is not as pinned is said package by package."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hyperbox.cli.main import main
from hyperbox.errors import ConfigError, HarnessError
from hyperbox.files import write_sealed
from hyperbox.harness.lab import guest_lock
from hyperbox.harness.lab.debian_archive import DebianArchive, HashMismatch
from hyperbox.harness.lab.guest_lock import (
    ROOT,
    GuestLock,
    fetched,
    guest_lock_document,
    moved_packages,
    packages_directory,
    parse_guest_lock,
    pinned,
    read_guest_lock,
    resolve_guests,
    write_guest_lock,
)
from hyperbox.harness.lab.image_cache import GuestImage
from hyperbox.harness.lab.kernel_matrix import Package
from hyperbox.harness.lab.layers import guest_parts
from hyperbox.harness.lab.vm_laboratory import guest_packages
from tests.harness.lab.test_debian_archive import Repository, mirror, repository

__all__ = ["mirror", "repository"]  # fixtures


def test_the_committed_lock_has_all_that_is_declared() -> None:
    lock = read_guest_lock()
    assert lock is not None
    assert {*lock.parts} == {*guest_parts()}
    assert [part for part, names in guest_parts().items() if pinned(part, names) is None] == []
    assert parse_guest_lock(json.dumps(guest_lock_document(lock))) == lock
    root = {*lock.parts[ROOT]}
    assert [part for part, names in lock.parts.items() if not root <= {*names}] == []


ONE = Package("tool", "1:1.0-1", "a" * 64, 5, "trixie", "pool/tool.deb")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 9}, "unknown format 9"),
        ({"parts": []}, "wrong kind"),
        ({"parts": {"root": ["tool", "other"]}}, "names 'other' and has no such package"),
        ({"packages": [{"name": "tool"}]}, "wrong kind"),
        ({"packages": [{**vars(ONE), "sha256": "short"}]}, "no proper sha256"),
        ({"packages": 5}, "wrong kind"),
    ],
)
def test_a_broken_lock_is_one_clear_error(change: dict[str, Any], said: str) -> None:
    document = guest_lock_document(GuestLock({"tool": ONE}, {"root": ("tool",)}))
    with pytest.raises(ConfigError, match=said):
        parse_guest_lock(json.dumps({**document, **change}))
    for name in document:
        lacking = {key: value for key, value in document.items() if key != name}
        with pytest.raises(ConfigError, match=f"lacks the key '{name}'"):
            parse_guest_lock(json.dumps(lacking))


def test_moved_packages_are_named_one_by_one() -> None:
    then = {"libc6": "2.41-12", "python3": "3.13", "gone": "1"}
    now = {"libc6": "2.41-13", "python3": "3.13", "new": "2"}
    assert moved_packages(then, now) == (
        "gone 1 -> none",
        "libc6 2.41-12 -> 2.41-13",
        "new none -> 2",
    )
    assert moved_packages(then, then) == ()


class Archive:
    """A signed archive of small packages: tool needs lib."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository

    def publish(self, **versions: str) -> None:
        """Have these versions and no others."""
        top = self.repository.directory / "debian"
        stanzas = []
        for old in top.glob("pool/*.deb"):
            old.unlink()
        for name, version in versions.items():
            deb = self._deb(name, version)
            file = f"pool/{name}_{version}_amd64.deb"
            (top / "pool").mkdir(parents=True, exist_ok=True)
            deb.replace(top / file)
            data = (top / file).read_bytes()
            stanzas.append(
                f"Package: {name}\nVersion: {version}\nArchitecture: amd64\n"
                f"{self._more(name)}Filename: {file}\nSize: {len(data)}\n"
                f"SHA256: {hashlib.sha256(data).hexdigest()}\nDescription: d\n"
            )
        listing = "\n".join(stanzas).encode()
        release = top / "dists/trixie"
        (release / "main/binary-amd64").mkdir(parents=True, exist_ok=True)
        (release / "main/binary-amd64/Packages").write_bytes(listing)
        digest = hashlib.sha256(listing).hexdigest()
        number = len(list(top.glob("*.number")))
        (top / f"{number}.number").touch()
        (release / "Release").write_text(
            f"Origin: Test\nSuite: trixie\nCodename: trixie\nArchitectures: amd64\n"
            f"Date: Sat, 01 Jan 2022 00:00:{number:02} UTC\nComponents: main\n"
            f"SHA256:\n {digest} {len(listing)} main/binary-amd64/Packages\n"
        )
        signed, plain = release / "InRelease", release / "Release"
        self.repository.gpg("--yes", "--clearsign", "-o", signed, plain)
        for path in (signed, plain, release / "main/binary-amd64/Packages"):
            # HTTP's times have seconds: apt would take two publications in one for the same.
            os.utime(path, (_PUBLISHED + 10 * number, _PUBLISHED + 10 * number))

    def _deb(self, name: str, version: str) -> Path:
        tree = self.repository.directory / f"{name}-{version}"
        (tree / "DEBIAN").mkdir(parents=True, exist_ok=True)
        (tree / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: amd64\n{self._more(name)}"
            "Maintainer: m\nDescription: d\n"
        )
        deb = tree.with_suffix(".deb")
        subprocess.run(["dpkg-deb", "-Znone", "-b", tree, deb], check=True, capture_output=True)
        return deb

    @staticmethod
    def _more(name: str) -> str:
        return {
            "base": "Essential: yes\nPriority: required\n",
            "tool": "Depends: lib\nRecommends: other\n",
        }.get(name, "")


VERSIONS = {"base": "1", "apt": "1", "lib": "1:1.0+x-1", "tool": "1", "other": "1", "extra": "1"}
_PUBLISHED = 1_640_995_200  # 1 January 2022
NAMES = ("tool",)


@pytest.fixture
def archive(
    repository: Repository, mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Archive:
    monkeypatch.setenv("HYPERBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(guest_lock, "guest_lock_path", lambda: tmp_path / "guest.lock.json")
    monkeypatch.setattr(
        guest_lock,
        "guest_archive",
        lambda: DebianArchive(tmp_path / "apt", mirror=mirror, keyring=repository.keyring),
    )
    made = Archive(repository)
    made.publish(**VERSIONS)
    return made


def versions(packages: tuple[Package, ...]) -> dict[str, str]:
    return {one.name: one.version for one in packages}


def test_what_the_lock_says_is_fetched_as_long_as_the_archive_has_it(archive: Archive) -> None:
    write_guest_lock(resolve_guests(guest_lock.guest_archive(), {ROOT: NAMES}))
    lock = read_guest_lock()
    assert lock is not None
    assert lock.versions() == {name: VERSIONS[name] for name in ("base", "apt", "lib", "tool")}
    found = fetched(ROOT, NAMES)
    assert found.remarks == ()
    assert versions(found.packages) == lock.versions()
    for package in found.packages:
        data = (packages_directory() / f"{package.sha256}.deb").read_bytes()
        assert hashlib.sha256(data).hexdigest() == package.sha256
    # the archive moves on, and what is here stays good
    archive.publish(**{**VERSIONS, "lib": "1:1.0+x-2"})
    assert fetched(ROOT, NAMES) == found
    # a layer that is not locked gets what is newest beside the root's
    layer = fetched("demo", ("tool", "extra"))
    assert versions(layer.packages) == {**lock.versions(), "extra": "1"}
    assert layer.remarks == ("guest packages: demo is not locked; newest used",)
    # a package that is here no more and not there either
    (packages_directory() / f"{lock.packages['lib'].sha256}.deb").unlink()
    newer = fetched(ROOT, NAMES)
    assert versions(newer.packages) == {**lock.versions(), "lib": "1:1.0+x-2"}
    (remark,) = newer.remarks
    assert "lib 1:1.0+x-1 is not on" in remark
    assert remark.endswith("newest used: lib 1:1.0+x-1 -> 1:1.0+x-2")


def test_another_file_than_the_locked_one_is_refused(archive: Archive) -> None:
    write_guest_lock(resolve_guests(guest_lock.guest_archive(), {ROOT: NAMES}))
    pool = archive.repository.directory / "debian/pool"
    path = pool / "tool_1_amd64.deb"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(HashMismatch):
        fetched(ROOT, NAMES)


def test_a_package_that_does_not_exist_is_named(archive: Archive) -> None:
    with pytest.raises(HarnessError, match="Unable to locate package nothing-such"):
        fetched(ROOT, ("nothing-such",))


def test_the_verb_lists_what_is_locked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["guests", "list", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {row["part"] for row in document["parts"]} == {*guest_parts()}
    assert all(set(row["asked"]) <= set(row["locked"]) for row in document["parts"])
    assert main(["guests", "lock", "--mirror", "http://127.0.0.1:9/debian"]) == 0
    assert "parts are locked" in capsys.readouterr().out


def test_records_name_the_packages_of_all_images(tmp_path: Path) -> None:
    facts: list[dict[str, Any]] = [
        {"packages": {"libc6": "1"}, "remarks": ["newest used"]},
        {"python": {"starlette": "1"}},  # a layer without Debian packages
        {"packages": {"wrk": "4"}, "remarks": ["newest used"]},
    ]
    images = []
    for number, some in enumerate(facts):
        write_sealed(tmp_path / f"{number}.json", some)
        images.append(GuestImage(tmp_path / f"{number}.erofs", "0" * 64))
    assert guest_packages(images) == {
        "guest_packages": {"libc6": "1", "wrk": "4"},
        "guest_remarks": ["newest used"],
    }
