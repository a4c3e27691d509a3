"""Which way of mounting images this kernel has: EROFS, else composefs, else overlayfs.

Nothing is concluded from version numbers: a rung is tried with an image of a few files, once per
boot, and its answer is kept until the next one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hyperbox.errors import HyperboxError, KernelFeatureMissing
from hyperbox.files import read_sealed, write_sealed
from hyperbox.journal import state_directory
from hyperbox.storage.rung import LADDER, Rung
from hyperbox.storage.trial_image import try_rung

__all__ = ["Choice", "Enabled", "choose", "probed"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Enabled(StrEnum):
    """The setting ``erofs_enabled``."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


@dataclass(frozen=True)
class Choice:
    """The rung that images are mounted on, and why; `refused` has what each one above answered."""

    rung: Rung
    reason: str
    refused: Mapping[Rung, str]

    def as_json(self) -> dict[str, object]:
        """Return it for a record."""
        refused = {str(rung): why for rung, why in self.refused.items()}
        return {"rung": str(self.rung), "reason": self.reason, "refused": refused}


def choose(enabled: Enabled, answers: Mapping[Rung, str]) -> Choice:
    """Choose a rung; pure.

    Parameters
    ----------
    answers
        What trying each rung came to: "" where it works.

    Raises
    ------
    KernelFeatureMissing
        If no rung works, or EROFS has to be and does not.
    """
    refused: dict[Rung, str] = {}
    for rung in LADDER:
        if rung is Rung.EROFS and enabled is Enabled.OFF:
            refused[rung] = "erofs_enabled is off"
        elif not answers[rung]:
            return Choice(rung, _reason(rung, enabled, refused), refused)
        elif rung is Rung.EROFS and enabled is Enabled.ON:
            raise KernelFeatureMissing(
                f"EROFS does not work on this kernel: {answers[rung]}",
                hint="with erofs_enabled = auto the next rung is taken",
            )
        else:
            refused[rung] = answers[rung]
    said = "; ".join(f"{rung}: {why}" for rung, why in refused.items())
    raise KernelFeatureMissing(f"images cannot be mounted on this machine: {said}")


def probed(
    record: Path | None = None, place: Path | None = None, rungs: Iterable[Rung] = LADDER
) -> dict[Rung, str]:
    """Return what trying each rung came to on this boot: "" where it works, else why not.

    Parameters
    ----------
    record
        Where the answers are kept; by default beside the journal.
    place
        Directory on the file system that images will be on, by default that of temporary files:
        EROFS mounts from files of ext4, but not of tmpfs, which has no ``read_folio``.
    """
    path = record or state_directory().parent / "image-rungs.json"
    boot = f"{_BOOT_ID.read_text().strip()} {place or ''}"
    known = (read_sealed(path) if path.exists() else None) or {}
    if known.get("boot") != boot:
        known = {"boot": boot}
    new = {str(rung): _answer(rung, place) for rung in rungs if rung not in known}
    if new:
        known |= new
        write_sealed(path, known)
    return {rung: str(known[rung]) for rung in rungs}


def _answer(rung: Rung, place: Path | None) -> str:
    with tempfile.TemporaryDirectory(prefix=".trial-", dir=place) as directory:
        try:
            return try_rung(rung, Path(directory))
        except (HyperboxError, OSError) as error:
            return str(error)


def _reason(rung: Rung, enabled: Enabled, refused: Mapping[Rung, str]) -> str:
    if not refused:
        return "erofs_enabled is on, and EROFS works" if enabled is Enabled.ON else "EROFS works"
    said = "; ".join(f"{one}: {why}" for one, why in refused.items())
    return f"{rung} works; {said}"
