from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from hyperbox.errors import HarnessError
from hyperbox.harness.lab.debian_archive import DebianArchive, PackageGone
from hyperbox.harness.lab.kernel_lock import hash_pool_packages, lockable
from hyperbox.harness.lab.kernel_matrix import KernelRelease, Package

LISTED = Package("linux-binary-7.1.8", "7.1.8-1", "a" * 64, 5, "trixie", "pool/binary.deb")
UNLISTED = Package("linux-modules-7.1.8", "7.1.8-1", "", 0, "trixie", "pool/m.deb", listed=False)
RELEASE = KernelRelease("7.1", "7.1.8", "7.1.8-1", (LISTED, UNLISTED))


@pytest.fixture
def archive(tmp_path: Path) -> DebianArchive:
    """A mirror on disk that has the file of the part that no list names."""
    pool = tmp_path / "debian" / "pool"
    pool.mkdir(parents=True)
    (pool / "m.deb").write_bytes(b"modules")
    return DebianArchive(tmp_path / "apt", mirror=f"file://{tmp_path}/debian")


def test_a_hash_is_taken_once_and_kept(archive: DebianArchive, tmp_path: Path) -> None:
    digest = hashlib.sha256(b"modules").hexdigest()
    whole = hash_pool_packages(RELEASE, archive, tmp_path / "kernels")
    assert whole.packages == (LISTED, replace(UNLISTED, sha256=digest, size=7))
    assert (tmp_path / "kernels/debs" / f"{digest}.deb").read_bytes() == b"modules"
    (tmp_path / "debian/pool/m.deb").write_bytes(b"other modules")
    assert hash_pool_packages(RELEASE, archive, tmp_path / "kernels") == whole


def test_a_release_that_is_vouched_for_needs_nothing(tmp_path: Path) -> None:
    nowhere = DebianArchive(tmp_path, mirror="file:///nonexistent")
    whole = replace(RELEASE, packages=(LISTED,))
    assert hash_pool_packages(whole, nowhere, tmp_path / "kernels") is whole
    assert not (tmp_path / "kernels").exists()


def test_a_part_that_left_the_pool_is_gone(archive: DebianArchive, tmp_path: Path) -> None:
    (tmp_path / "debian/pool/m.deb").unlink()
    with pytest.raises(PackageGone, match=r"linux-modules-7\.1\.8"):
        hash_pool_packages(RELEASE, archive, tmp_path / "kernels")
    assert not (tmp_path / "kernels/unlisted.json").exists()


@pytest.mark.parametrize("text", ["", "[]", '{"pool/m.deb": 5}', '{"pool/m.deb": {}}'])
def test_a_damaged_record_is_refused_not_taken_anew(
    archive: DebianArchive, tmp_path: Path, text: str
) -> None:
    record = tmp_path / "kernels/unlisted.json"
    record.parent.mkdir()
    record.write_text(text)
    with pytest.raises(HarnessError, match=r"unlisted\.json is damaged"):
        hash_pool_packages(RELEASE, archive, tmp_path / "kernels")
    assert record.read_text() == text


STEM, VERSION = "7.1.13+deb13-cloud-amd64", "7.1.13-1~bpo13+1"
IMAGE = Package(f"linux-binary-{STEM}", VERSION, "2" * 64, 9, "trixie", "pool/i.deb")


@pytest.fixture
def pool(tmp_path: Path, archive: DebianArchive) -> Path:
    """What the mirror has of a kernel whose modules no list names any more."""
    pool = tmp_path / "debian/pool/main/l/linux"
    pool.mkdir(parents=True)
    for part in ("base", "modules"):
        (pool / f"linux-{part}-{STEM}_{VERSION}_amd64.deb").write_text(part)
    return pool


def test_unsigned_parts_are_locked_only_where_that_is_allowed(
    archive: DebianArchive, pool: Path, tmp_path: Path
) -> None:
    with pytest.raises(HarnessError, match=r"no signed list names the modules of 7\.1") as caught:
        lockable("7.1", archive, [IMAGE], "cloud-amd64", tmp_path / "kernels")
    assert "--allow-unsigned" in caught.value.hint
    assert not (tmp_path / "kernels").exists()
    found = lockable(
        "7.1", archive, [IMAGE], "cloud-amd64", tmp_path / "kernels", allow_unsigned=True
    )
    base, _, modules = found.packages
    assert [part.listed for part in found.packages] == [False, True, False]
    assert base.size == 4
    path = pool / f"linux-modules-{STEM}_{VERSION}_amd64.deb"
    assert modules.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    # a changed file does not replace a hash that is known, in the lock or out of it
    path.write_text("evil")
    for locked in (found, None):
        again = lockable(
            "7.1",
            archive,
            [IMAGE],
            "cloud-amd64",
            tmp_path / "kernels",
            locked=locked,
            allow_unsigned=True,
        )
        assert again == found
    # what is locked stays so without being allowed anew: nothing is taken from the mirror
    assert lockable("7.1", archive, [IMAGE], "cloud-amd64", tmp_path, locked=found) == found
    with pytest.raises(HarnessError, match=r"no kernel of the series 7\.2"):
        lockable("7.2", archive, [IMAGE], "cloud-amd64", tmp_path)


def test_a_mirror_with_older_kernels_does_not_move_the_lock(
    archive: DebianArchive, tmp_path: Path
) -> None:
    def image(upstream: str) -> Package:
        name = f"linux-image-{upstream}+deb13-cloud-amd64"
        return Package(name, f"{upstream}-1", "3" * 64, 30_000_000, "trixie", "pool/i.deb")

    def newest(packages: list[Package], locked: KernelRelease | None) -> KernelRelease:
        return lockable("6.12", archive, packages, "cloud-amd64", tmp_path, locked=locked)

    old, new = newest([image("6.12.90")], None), newest([image("6.12.118")], None)
    assert newest([image("6.12.118")], old) == new
    assert newest([image("6.12.118")], new) == new
    with pytest.raises(HarnessError, match=r"6\.12\.90-1 only, which is older than the locked"):
        newest([image("6.12.90")], new)
