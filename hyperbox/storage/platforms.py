"""Which manifest of an index is for which machine. Pure.

Follows the OCI image specification, image-index.md; the order of variants is that of
containerd's package `platforms` (compare.go).
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass

from hyperbox.errors import ConfigError

__all__ = ["Platform", "machine_platform", "parse_platform"]

_MACHINES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm/v7",
    "armv6l": "arm/v6",
    "i386": "386",
    "i686": "386",
    "loongarch64": "loong64",
}
"""Names of uname(2) that differ from Go's."""
_USUAL = {"amd64": "v1", "arm64": "v8", "arm": "v7"}
"""What no variant means."""
_VARIANT = re.compile(r"v([0-9]{1,4})")


@dataclass(frozen=True)
class Platform:
    """What an image runs on, in Go's names.

    Parameters
    ----------
    variant
        Of the processor, such as ``v7``; empty for the usual one.
    os_features
        What else it needs; ``erofs`` marks images whose layers are EROFS (draft erofs image
        specification).
    """

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return it as ``--platform`` takes it: ``linux/arm/v7``."""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @property
    def is_known(self) -> bool:
        """Whether it names a machine; attestations are filed under ``unknown/unknown``."""
        return "unknown" not in (self.os, self.architecture)

    def rank(self, wanted: Platform) -> int:
        """Return how well an image for this platform fits a machine: 0 not at all, more is better.

        A machine runs images for its own and earlier variants of its processor.
        """
        if (self.os, self.architecture) != (wanted.os, wanted.architecture):
            return 0
        if not set(self.os_features) <= set(wanted.os_features):
            return 0
        mine, theirs = self._variant(), wanted._variant()
        if mine == theirs:
            return 10_000
        ours, others = _VARIANT.fullmatch(mine), _VARIANT.fullmatch(theirs)
        if ours is None or others is None or int(ours[1]) > int(others[1]):
            return 0
        return 1 + int(ours[1])

    def _variant(self) -> str:
        return self.variant or _USUAL.get(self.architecture, "")


def parse_platform(text: str) -> Platform:
    """Parse ``OS/ARCHITECTURE[/VARIANT]``.

    Raises
    ------
    ConfigError
        If it is something else.
    """
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(re.fullmatch(r"[a-z0-9_.-]{1,40}", p) for p in parts):
        raise ConfigError(
            f"{text[:80]!r} is not a platform", hint="OS/ARCHITECTURE[/VARIANT]: linux/arm64"
        )
    return Platform(parts[0], parts[1], parts[2] if len(parts) == 3 else "")


def machine_platform() -> Platform:
    """Return the platform of this machine."""
    machine = platform.machine()
    return parse_platform(f"linux/{_MACHINES.get(machine, machine)}")
