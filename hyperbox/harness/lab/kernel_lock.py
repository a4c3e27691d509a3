"""The matrix and its lock file on disk: reading, filling, moving to newer versions."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hyperbox import files
from hyperbox.errors import ConfigError, HarnessError
from hyperbox.foreign import read_json, read_text
from hyperbox.harness.lab.debian_archive import DebianArchive, PackageGone
from hyperbox.harness.lab.kernel_matrix import (
    KernelRelease,
    Matrix,
    Package,
    compare_versions,
    lock_document,
    newest,
    parse_lock,
    parse_matrix,
    releases,
    unlisted_releases,
)
from hyperbox.paths import project_directory

__all__ = [
    "hash_pool_packages",
    "lock_path",
    "lockable",
    "read_lock",
    "read_matrix",
    "write_lock",
]


def lock_path() -> Path:
    """Return the path of the lock file."""
    return project_directory() / "vm-images" / "kernels.lock.json"


def read_matrix() -> Matrix:
    """Read the project's kernel matrix.

    Raises
    ------
    ConfigError
        If it is unreadable or wrong.
    """
    return parse_matrix(
        read_text(project_directory() / "vm-images/matrix.toml", refusal=ConfigError)
    )


def read_lock() -> dict[str, KernelRelease]:
    """Read the lock file: the locked release of each series; empty if there is no file.

    Raises
    ------
    ConfigError
        If it is unreadable or wrong.
    """
    path = lock_path()
    return parse_lock(read_text(path, refusal=ConfigError)) if path.exists() else {}


def write_lock(locked: Mapping[str, KernelRelease]) -> None:
    """Replace the lock file."""
    files.write_json(lock_path(), lock_document(locked))


def lockable(
    series: str,
    archive: DebianArchive,
    packages: Iterable[Package],
    flavour: str,
    directory: Path,
    *,
    locked: KernelRelease | None = None,
    allow_unsigned: bool = False,
) -> KernelRelease:
    """Return the newest release of a series that can be locked, with all hashes.

    If the signed lists name no whole release of the series any more, its parts may still be
    in the pool beside the listed kernel image. They are taken if `allow_unsigned` says so,
    with the mirror's own hash, see `hash_pool_packages`, and are marked as not listed. What
    `locked` has of them is kept without being asked for again.

    Raises
    ------
    HarnessError
        If the mirror has no release of the series, only an older one than `locked`, or only
        one that no signed list names while `allow_unsigned` is false.
    """
    listed = tuple(packages)
    found = newest(series, releases(listed, flavour))
    if found is not None:
        if locked is not None and compare_versions(found.version, locked.version) < 0:
            raise HarnessError(
                f"the mirror {archive.mirror} has {series} in {found.version} only, which is "
                f"older than the locked {locked.version}",
                hint="use another mirror, or take the series out of the lock file first",
            )
        return found
    for candidate in unlisted_releases(series, listed, flavour):
        if locked is not None and locked.release == candidate.release:
            return locked
        if not allow_unsigned:
            raise HarnessError(
                f"no signed list names the modules of {series} ({candidate.version}) any more",
                hint="--allow-unsigned takes them with the hash of the mirror's own file",
            )
        with contextlib.suppress(PackageGone):
            return hash_pool_packages(candidate, archive, directory)
    raise HarnessError(f"the mirror {archive.mirror} has no kernel of the series {series}")


def hash_pool_packages(
    release: KernelRelease, archive: DebianArchive, directory: Path
) -> KernelRelease:
    """Return a release all of whose packages have a hash.

    Debian drops the modules of a series from its lists before the files leave the pool, see
    `unlisted_releases`. Nobody vouches for such a file; but it is never silently another one
    than the first time: `directory` holds ``unlisted.json``, what is known by file name, and
    ``debs/``, where the fetched files go under their hash.

    Raises
    ------
    PackageGone, MirrorSilent
        If a part has to be fetched and cannot.
    HarnessError
        If the record of known hashes is damaged.
    """
    if all(package.sha256 for package in release.packages):
        return release
    path = directory / "unlisted.json"
    with files.locked(path.with_suffix(".lock")):
        known = _known_hashes(path)
        for package in release.packages:
            if not package.sha256 and package.filename not in known:
                known[package.filename] = _fetched(package, archive, directory / "debs")
        files.write_json(path, known)
    parts = (replace(part, **known.get(part.filename, {})) for part in release.packages)
    return replace(release, packages=tuple(parts))


def _known_hashes(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    try:
        document = read_json(path)
        return {
            name: {"sha256": one["sha256"], "size": one["size"]} for name, one in document.items()
        }
    except (HarnessError, KeyError, TypeError, AttributeError) as error:
        raise HarnessError(
            f"{path} is damaged: {error}", hint="remove it; the hashes in it are then taken again"
        ) from error


def _fetched(package: Package, archive: DebianArchive, debs: Path) -> dict[str, Any]:
    """Fetch a part, keep it under its hash, and return hash and size."""
    debs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=debs, prefix=".fetching-") as scratch:
        file = Path(scratch) / "deb"
        archive.download_unlisted(package, file)
        facts = {"sha256": files.sha256_file(file), "size": file.stat().st_size}
        files.replace_file(file, debs / f"{facts['sha256']}.deb")
    return facts
