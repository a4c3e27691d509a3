"""Settings of containers: a table of ``hyperbox.toml``, shared by the verbs that run them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hyperbox.isolation.default_profile import DEFAULTS, NEWEST
from hyperbox.isolation.recorders import BACK_ENDS
from hyperbox.isolation.store import STORE
from hyperbox.linux.oci_runtime import RUNTIMES
from hyperbox.settings import InFile, SettingKind, SettingsTable, declared

__all__ = ["CONTAINERS", "ContainerSettings"]


@dataclass(frozen=True)
class ContainerSettings:
    """What `hyperbox run` and `hyperbox seccomp` need to know beside the container itself."""

    store: Path = declared(
        STORE, "where learned seccomp profiles are", SettingKind.PATH, metavar="DIR"
    )
    runtime: str | None = declared(
        None, "the OCI runtime", choices=RUNTIMES, usual="the first that works here"
    )
    recorder: str | None = declared(
        None, "how system calls are recorded", choices=BACK_ENDS, usual="the first that works here"
    )
    default_profile: str = declared(
        NEWEST,
        "the engine's profile that learned ones stay within, and that others run under",
        choices=tuple(DEFAULTS),
    )

    @property
    def back_ends(self) -> tuple[str, ...]:
        """Return the recorders to try, in this order."""
        return BACK_ENDS if self.recorder is None else (self.recorder,)


CONTAINERS = SettingsTable("containers", ContainerSettings, in_file=InFile.NAMED)
