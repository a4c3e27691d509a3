"""Kernel parts that no signed list names any more: fetched once, their hash kept.

Debian drops the modules of a series from its lists before the files leave the pool, see
`kernel_matrix.unlisted_releases`. Nobody vouches for such a file; but it is never silently
another one than the first time, and whoever uses it says so.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from hyperbox.errors import HarnessError
from hyperbox.files import locked, sha256_file, write_json
from hyperbox.harness.lab.debian_archive import DebianArchive
from hyperbox.harness.lab.kernel_matrix import KernelRelease, Package

__all__ = ["hash_pool_packages"]


def hash_pool_packages(
    release: KernelRelease, archive: DebianArchive, directory: Path
) -> KernelRelease:
    """Return a release all of whose packages have a hash.

    `directory` holds ``unlisted.json``, what is known by file name, and ``debs/``, where the
    fetched files go under their hash.

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
    with locked(path.with_suffix(".lock")):
        known = _read(path)
        for package in release.packages:
            if not package.sha256 and package.filename not in known:
                known[package.filename] = _fetched(package, archive, directory / "debs")
        write_json(path, known)
    parts = (replace(part, **known.get(part.filename, {})) for part in release.packages)
    return replace(release, packages=tuple(parts))


def _read(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    try:
        document = json.loads(path.read_text())
        return {
            name: {"sha256": one["sha256"], "size": one["size"]} for name, one in document.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise HarnessError(
            f"{path} is damaged: {error}", hint="remove it; the hashes in it are then taken again"
        ) from error


def _fetched(package: Package, archive: DebianArchive, debs: Path) -> dict[str, Any]:
    """Fetch a part, keep it under its hash, and give hash and size."""
    debs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=debs, prefix=".fetching-") as scratch:
        file = Path(scratch) / "deb"
        archive.download_unlisted(package, file)
        facts = {"sha256": sha256_file(file), "size": file.stat().st_size}
        file.replace(debs / f"{facts['sha256']}.deb")
    return facts
