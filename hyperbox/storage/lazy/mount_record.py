"""What is on disk about a lazy mount, so that the process after a death can go on with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from hyperbox.files import read_sealed, write_sealed
from hyperbox.storage.lazy.mechanism import Mechanism

__all__ = ["LayerRecord", "MountRecord", "Phase", "read_records"]


class Phase(StrEnum):
    """How far a mount is."""

    BEGUN = "begun"
    """Something of it may be there; nobody uses it yet."""
    SERVED = "served"
    COMPLETE = "complete"
    """All of it is in the cache, and no process is needed."""
    BROKEN = "broken"
    """Its descriptor is lost: reads of what is not here fail."""


@dataclass(frozen=True)
class LayerRecord:
    """A layer that is loaded lazily: its index is in the cache under `key`."""

    key: str
    stored: int
    """Where its chunks end in the blob."""
    sources: tuple[str, ...]

    @classmethod
    def of(cls, said: Mapping[str, object]) -> LayerRecord:
        """Return what `MountRecord.write` has written of one."""
        sources = said["sources"]
        assert isinstance(sources, list)
        return cls(str(said["key"]), int(str(said["stored"])), tuple(map(str, sources)))


@dataclass(frozen=True)
class MountRecord:
    """A mount: where, of what, served how."""

    name: str
    """Of its descriptors and files: letters and digits."""
    point: str
    mechanism: Mechanism
    layer: LayerRecord
    phase: Phase
    reason: str = ""
    device: str = ""
    """Of the super block, ``major:minor``: where else it is mounted."""

    def write(self, directory: Path) -> None:
        """Write it; HarnessError if that cannot be done."""
        layer = {**vars(self.layer), "sources": list(self.layer.sources)}
        write_sealed(directory / f"{self.name}.json", {**vars(self), "layer": layer})

    def remove(self, directory: Path) -> None:
        """Forget it."""
        (directory / f"{self.name}.json").unlink(missing_ok=True)

    def at(self, phase: Phase, reason: str = "") -> MountRecord:
        """Return it as it is in another phase."""
        return replace(self, phase=phase, reason=reason or self.reason)


def read_records(directory: Path) -> Sequence[MountRecord]:
    """Return all mounts on record, by name; what is not whole is left out."""
    found = []
    for path in sorted(directory.glob("*.json")):
        said = read_sealed(path)
        if said is not None:
            found.append(
                MountRecord(
                    said["name"],
                    said["point"],
                    Mechanism(said["mechanism"]),
                    LayerRecord.of(said["layer"]),
                    Phase(said["phase"]),
                    said["reason"],
                    said.get("device", ""),
                )
            )
    return found
