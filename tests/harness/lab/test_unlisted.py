from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from hyperbox.errors import HarnessError
from hyperbox.harness.lab.debian_archive import DebianArchive, PackageGone
from hyperbox.harness.lab.kernel_matrix import KernelRelease, Package
from hyperbox.harness.lab.unlisted import hash_pool_packages

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
