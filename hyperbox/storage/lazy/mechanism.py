"""The ways of serving an image that is not here yet, and what each of them answers to a trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from hyperbox.errors import KernelFeatureMissing
from hyperbox.storage.lazy.lazy_image import LazyImage

__all__ = ["Adapter", "Mechanism", "Preference", "Server", "choose_mechanism"]


class Mechanism(StrEnum):
    """How the kernel asks for what is missing, the best one first.

    What fails closed comes before what fails open.
    """

    FSCACHE = "fscache"
    """EROFS over fscache on demand: cachefiles asks (Linux 5.19 to 7.1, if it is built in)."""
    FILE = "file-backed"
    """EROFS mounted from a file that FUSE serves (Linux 6.12)."""
    FANOTIFY = "fanotify"
    """EROFS mounted from a sparse file that is filled before reads (Linux 6.14)."""
    LOOP = "loop"
    """EROFS on a loop device over a file that FUSE serves."""


class Server(Protocol):
    """Answers the kernel's questions about one image until it is stopped."""

    def stop(self) -> None:
        """End; what was not answered waits for the next server of the same descriptor."""


class Adapter(Protocol):
    """One way to give the kernel an image; a file each."""

    def begin(self, image: LazyImage, place: Path) -> int:
        """Return a new descriptor through which the kernel asks; nothing is asked yet.

        Parameters
        ----------
        place
            A path of its own for what has to be in the tree; absent.

        Raises
        ------
        KernelFeatureMissing, WorkloadError
            If the kernel cannot, or refuses.
        """

    def serve(self, image: LazyImage, descriptor: int, place: Path) -> Server:
        """Answer what is asked through a descriptor, that of a dead process as well."""

    def source(self, image: LazyImage, place: Path) -> Path:
        """Return the file that is the whole image to the kernel."""

    def end(self, image: LazyImage, descriptor: int, place: Path) -> None:
        """Undo `begin`; nothing may be mounted from it any more."""

    def releases(self, image: LazyImage, descriptor: int, place: Path) -> bool:
        """Let a complete image go on without any process; whether that is possible."""


@dataclass(frozen=True)
class Preference:
    """The mechanism that is taken, why, and what each one before it answered."""

    mechanism: Mechanism
    reason: str
    refused: Mapping[Mechanism, str]

    def as_json(self) -> dict[str, object]:
        """Return it for a record."""
        refused = {str(one): why for one, why in self.refused.items()}
        return {"mechanism": str(self.mechanism), "reason": self.reason, "refused": refused}


def choose_mechanism(
    trial: Callable[[Mechanism], str], wanted: Sequence[Mechanism] = tuple(Mechanism)
) -> Preference:
    """Return the first mechanism that works.

    Parameters
    ----------
    trial
        Returns what trying one comes to: "" where it works.

    Raises
    ------
    KernelFeatureMissing
        If none does.
    """
    refused: dict[Mechanism, str] = {}
    for mechanism in wanted:
        why = trial(mechanism)
        if not why:
            said = "; ".join(f"{one}: {reason}" for one, reason in refused.items())
            reason = f"{mechanism} works" + (f"; {said}" if said else "")
            return Preference(mechanism, reason, refused)
        refused[mechanism] = why
    said = "; ".join(f"{one}: {reason}" for one, reason in refused.items())
    raise KernelFeatureMissing(
        f"images cannot be loaded lazily on this machine: {said}", hint="pull the image whole"
    )
