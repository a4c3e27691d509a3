"""Which Debian packages guests are made of, exactly: ``vm-images/guest.lock.json``.

The lock has a version and a hash for every package of the root and of each layer. They are of
one state of the archive, so that layers fit the root; moving one moves all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hyperbox import files
from hyperbox.errors import ConfigError
from hyperbox.foreign import read_text
from hyperbox.harness.lab.debian_archive import DebianArchive, PackageGone, Progress
from hyperbox.harness.lab.kernel_matrix import (
    LOCK_FORMAT,
    Package,
    package_from,
    parse_lock_file,
)
from hyperbox.paths import cache_directory, project_directory

__all__ = [
    "GUEST_SUITE",
    "ROOT",
    "GuestLock",
    "GuestPackages",
    "fetched",
    "guest_archive",
    "guest_lock_document",
    "guest_lock_path",
    "moved_packages",
    "packages_directory",
    "parse_guest_lock",
    "pinned",
    "read_guest_lock",
    "resolve_guests",
    "write_guest_lock",
]

GUEST_SUITE = "trixie"
ROOT = "root"
"""The part of the lock that is every guest's; the others have the names of layers."""
_SHOWN = 3  # moved packages that a remark names


@dataclass(frozen=True)
class GuestLock:
    """The locked packages by name, and for each part the names of all that it is installed of."""

    packages: Mapping[str, Package]
    parts: Mapping[str, tuple[str, ...]]

    def versions(self) -> dict[str, str]:
        """Return the version of every package."""
        return {name: package.version for name, package in self.packages.items()}


@dataclass(frozen=True)
class GuestPackages:
    """What one part is installed of; `remarks` say where that is not what the lock says."""

    packages: tuple[Package, ...]
    remarks: tuple[str, ...] = ()

    def key(self) -> list[str]:
        """Return what decides the content: the hashes, in order."""
        return [package.sha256 for package in self.packages]


def guest_lock_path() -> Path:
    """Return the path of the lock file."""
    return project_directory() / "vm-images" / "guest.lock.json"


def packages_directory() -> Path:
    """Return where fetched packages lie, each under its hash."""
    return cache_directory() / "guest" / "debs"


def guest_archive(mirror: str | None = None) -> DebianArchive:
    """Return the archive that guests' packages come from; see `debian_mirror` for which."""
    return DebianArchive(cache_directory() / "guest" / "apt", mirror=mirror)


def read_guest_lock() -> GuestLock | None:
    """Read the lock file; None if there is none, ConfigError if it is unreadable or wrong."""
    path = guest_lock_path()
    return parse_guest_lock(read_text(path, refusal=ConfigError)) if path.exists() else None


def write_guest_lock(lock: GuestLock) -> None:
    """Replace the lock file."""
    files.write_json(guest_lock_path(), guest_lock_document(lock))


def parse_guest_lock(text: str) -> GuestLock:
    """Read ``guest.lock.json``; pure.

    Raises
    ------
    ConfigError
        If it is not JSON, of another format, or an entry is incomplete.
    """
    return parse_lock_file("guest.lock.json", text, _lock_of)


def _lock_of(document: Any) -> GuestLock:
    packages = {one.name: one for one in map(package_from, document["packages"])}
    parts = {str(part): tuple(names) for part, names in document["parts"].items()}
    unknown = [name for names in parts.values() for name in names if name not in packages]
    if unknown:
        raise ConfigError(f"guest.lock.json names {unknown[0]!r} and has no such package")
    return GuestLock(packages, parts)


def guest_lock_document(lock: GuestLock) -> dict[str, object]:
    """Return the JSON document that `parse_guest_lock` reads; pure."""
    return {
        "format": LOCK_FORMAT,
        "packages": [asdict(lock.packages[name]) for name in sorted(lock.packages)],
        "parts": {part: list(names) for part, names in lock.parts.items()},
    }


def moved_packages(then: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """Return the packages whose versions differ, one text each: "libc6 2.41-12 -> none"; pure."""
    return tuple(
        f"{name} {then.get(name, 'none')} -> {now.get(name, 'none')}"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    )


def resolve_guests(archive: DebianArchive, wanted: Mapping[str, Sequence[str]]) -> GuestLock:
    """Return the lock of what the archive has now.

    Parameters
    ----------
    wanted
        For each part the names of the packages to install.

    Raises
    ------
    HarnessError
        As of `DebianArchive.closures`.
    """
    found = archive.closures(GUEST_SUITE, wanted)
    packages = {package.name: package for part in found.values() for package in part}
    parts = {part: tuple(sorted(one.name for one in some)) for part, some in found.items()}
    return GuestLock(packages, parts)


def pinned(part: str, names: Sequence[str]) -> GuestPackages | None:
    """Return what the lock says of a part; None if it does not have it or lacks one of `names`."""
    lock = read_guest_lock()
    if lock is None or not {*names} <= {*lock.parts.get(part, ())}:
        return None
    return GuestPackages(tuple(lock.packages[name] for name in lock.parts[part]))


def fetched(part: str, names: Sequence[str], progress: Progress | None = None) -> GuestPackages:
    """Return the packages of a part, their files in `packages_directory`.

    They are the locked ones. Where the archive has one of these no more, or the lock has no such
    part, they are the newest, of a layer those that the root does not have, and a remark says so.

    Raises
    ------
    HarnessError
        As of `DebianArchive.download_all` and `DebianArchive.closures`.
    """
    archive = guest_archive()
    locked = pinned(part, names)
    why = f"{part} is not locked"
    if locked is not None:
        try:
            archive.download_all(locked.packages, packages_directory(), progress)
        except PackageGone as gone:
            why = gone.message
        else:
            return locked
    root = pinned(ROOT, ()) if part != ROOT else None
    beside = {one.name: one for one in root.packages} if root else {}
    newest = {one.name: one for one in resolve_guests(archive, {part: names}).packages.values()}
    packages = {**newest, **beside}
    archive.download_all(tuple(packages.values()), packages_directory(), progress)
    then = {one.name: one.version for one in locked.packages} if locked else {}
    now = {name: one.version for name, one in packages.items()}
    moved = moved_packages(then, now) if locked else ()
    more = f" and {len(moved) - _SHOWN} more" if len(moved) > _SHOWN else ""
    changes = f": {', '.join(moved[:_SHOWN])}{more}" if moved else ""
    remark = f"guest packages: {why}; newest used{changes}"
    return GuestPackages(tuple(packages.values()), (remark,))
