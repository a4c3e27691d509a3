"""The matrix and its lock file on disk: reading, filling, moving to newer versions."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from hyperbox.errors import ConfigError, HarnessError
from hyperbox.files import sha256_file, write_json
from hyperbox.foreign import read_text
from hyperbox.harness.lab.debian_archive import DebianArchive, PackageGone
from hyperbox.harness.lab.kernel_matrix import (
    KernelRelease,
    Matrix,
    Package,
    lock_document,
    newest,
    parse_lock,
    parse_matrix,
    releases,
    unlisted_releases,
)
from hyperbox.paths import project_directory

__all__ = ["lock_path", "lockable", "read_lock", "read_matrix", "write_lock"]

Progress = Callable[[str, float], None]


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
    write_json(lock_path(), lock_document(locked))


def lockable(
    series: str,
    archive: DebianArchive,
    packages: Iterable[Package],
    flavour: str,
    scratch: Path,
    locked: KernelRelease | None = None,
) -> KernelRelease:
    """Return the newest release of a series that can be locked, with all hashes.

    If the signed lists name no whole release of the series any more, parts that are still
    in the pool beside the listed kernel image are fetched and hashed; they are marked as
    not listed. The hashes that `locked` has of such parts are kept: they are never taken
    from the mirror twice.

    Raises
    ------
    HarnessError
        If the mirror has no release of the series.
    """
    listed = tuple(packages)
    found = newest(series, releases(listed, flavour))
    if found is not None:
        return found
    for candidate in unlisted_releases(series, listed, flavour):
        if locked is not None and locked.release == candidate.release:
            return locked
        try:
            parts = tuple(_hashed(part, archive, scratch) for part in candidate.packages)
        except PackageGone:
            continue
        return replace(candidate, packages=parts)
    raise HarnessError(f"the mirror {archive.mirror} has no kernel of the series {series}")


def _hashed(package: Package, archive: DebianArchive, scratch: Path) -> Package:
    if package.listed:
        return package
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        file = Path(directory) / "deb"
        archive.download_unlisted(package, file)
        return replace(package, sha256=sha256_file(file), size=file.stat().st_size)
