"""All kernels that Debian's archive has, point releases too, and how to name one; pure.

The matrix names one kernel a series; the archive keeps dozens: earlier point releases,
security updates, rebuilds for older releases of Debian. Bisection goes over all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cmp_to_key

from hyperbox.errors import ConfigError
from hyperbox.harness.lab.kernel_matrix import (
    KernelRelease,
    Package,
    compare_versions,
    newest,
    releases,
    unlisted_releases,
)

__all__ = ["find_release", "is_point_release", "point_releases", "span"]

_POINT = re.compile(r"\d+\.\d+\.\d+\S*")
_SERIES = re.compile(r"\d+\.\d+")
_BY_VERSION = cmp_to_key(compare_versions)


def is_point_release(name: str) -> bool:
    """Whether a name means one packaged kernel: ``6.12.90``, a version, ``uname -r``."""
    return _POINT.fullmatch(name) is not None


def point_releases(
    packages: Iterable[Package], flavour: str, locked: Iterable[KernelRelease] = ()
) -> tuple[KernelRelease, ...]:
    """Return every packaged kernel once, oldest version first.

    A release whose modules no signed list names any more is there too, with empty hashes;
    a locked one keeps the hashes that the lock vouches for.
    """
    listed = tuple(packages)
    found = {release.release: release for release in locked}
    for release in releases(listed, flavour):
        found.setdefault(release.release, release)
    for series in {_series_of(package.name) for package in listed} - {""}:
        for release in unlisted_releases(series, listed, flavour):
            found.setdefault(release.release, release)
    return tuple(sorted(found.values(), key=lambda one: _BY_VERSION(one.version)))


def find_release(
    name: str, candidates: Sequence[KernelRelease], locked: Mapping[str, KernelRelease]
) -> KernelRelease:
    """Return the kernel that a name means.

    Parameters
    ----------
    name
        A series (its locked kernel, else its newest), an upstream version such as
        ``6.12.90`` (the newest package of it), a package version, or ``uname -r``.
    candidates
        What there is, oldest first.

    Raises
    ------
    ConfigError
        If there is none; the hint names the nearest that there are.
    """
    if _SERIES.fullmatch(name):
        found = locked.get(name) or newest(name, reversed(candidates))
        if found is not None:
            return found
    for release in reversed(candidates):
        if name in (release.version, release.release, release.version.rpartition("-")[0]):
            return release
    raise ConfigError(f"no packaged kernel {name!r}", hint=_nearest(name, candidates))


def span(
    candidates: Sequence[KernelRelease], one: KernelRelease, other: KernelRelease
) -> tuple[KernelRelease, ...]:
    """Return the kernels from `one` to `other`, both included, in that direction."""
    versions = [release.version for release in candidates]
    start, end = versions.index(one.version), versions.index(other.version)
    if start <= end:
        return tuple(candidates[start : end + 1])
    return tuple(reversed(candidates[end : start + 1]))


def _series_of(name: str) -> str:
    match = re.match(r"linux-\w+-(\d+\.\d+)\.", name)
    return match[1] if match else ""


def _nearest(name: str, candidates: Sequence[KernelRelease]) -> str:
    upstream = [release.version.rpartition("-")[0] for release in candidates]
    series = ".".join(name.split(".")[:2])
    alike = [version for version in dict.fromkeys(upstream) if version.startswith(f"{series}.")]
    known = alike or list(dict.fromkeys(release.series for release in candidates))
    return f"the archive has {', '.join(known)}" if known else "the archive has none at all"
