"""Which containers there are: those that run are on record, those in the background keep a log.

A running container is a change of the machine, so the journal has it (see
`hyperbox.linux.oci_runtime.CONTAINER`). One that was started in the background has a directory as
well, which stays after its end until it is removed::

    NAME/container.json     its command and root, and when it was made
        /log                what it printed
        /ended.json         its exit status
"""

from __future__ import annotations

import re
import secrets
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hyperbox.errors import ConfigError
from hyperbox.files import write_json
from hyperbox.foreign import read_json
from hyperbox.journal import on_record, state_directory
from hyperbox.linux.oci_runtime import CONTAINER, OciRuntime, runtime_of
from hyperbox.records import Change, read_directory
from hyperbox.runtime.bundle import Container

__all__ = ["ContainerEntry", "ContainerRegistry", "new_name"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class ContainerEntry:
    """A container that runs, has ended, or lost its hyperbox.

    Parameters
    ----------
    state
        ``running``, ``exited``, ``lost`` (its hyperbox was killed; what is left is for
        ``hyperbox doctor --repair``).
    status
        Exit status of one that has ended.
    """

    name: str
    state: str
    command: tuple[str, ...]
    rootfs: str
    created: str
    status: int | None = None
    change: Change | None = None

    def runtime(self) -> OciRuntime:
        """Return the runtime that holds it.

        Raises
        ------
        ConfigError
            If it does not run.
        """
        if self.change is None or self.state != "running":
            raise ConfigError(f"container {self.name} does not run", hint="hyperbox ps --all")
        return runtime_of(self.change)


def new_name() -> str:
    """Return a name that no other container has."""
    return secrets.token_hex(6)


class ContainerRegistry:
    """The containers of this user."""

    def __init__(self) -> None:
        self.directory = state_directory().parent / "containers"

    def entries(self) -> tuple[ContainerEntry, ...]:
        """Return every container, the oldest first."""
        found = {entry.name: entry for entry in self._kept()}
        for change in read_directory(state_directory()):
            if change.kind == CONTAINER.name and change.owner.booted_now():
                found[change.subject] = _on_record(change)
        return tuple(sorted(found.values(), key=lambda entry: (entry.created, entry.name)))

    def find(self, name: str) -> ContainerEntry:
        """Return a container by its name, or the beginning of it that no other one has.

        Raises
        ------
        ConfigError
            If there is none, or several.
        """
        entries = self.entries()
        for entry in entries:
            if entry.name == name:
                return entry
        fitting = [entry for entry in entries if name and entry.name.startswith(name)]
        if len(fitting) != 1:
            what = "several containers begin with" if fitting else "no container is called"
            names = ", ".join(entry.name for entry in fitting or entries) or "none"
            raise ConfigError(f"{what} {name!r}", hint=f"containers: {names}")
        return fitting[0]

    def check_new(self, name: str) -> None:
        """Refuse a name that is none, or is taken.

        Raises
        ------
        ConfigError
            If it is so.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} is not a name for a container",
                hint="lower-case letters, digits, '.', '_', '-'; at most 63",
            )
        if (self.directory / name).exists() or on_record(CONTAINER, name):
            raise ConfigError(f"there is a container {name}", hint=f"hyperbox rm {name}")

    def keep(self, name: str, container: Container) -> Path:
        """Make the directory of a container in the background; return the path of its log."""
        place = self.directory / name
        write_json(place / "container.json", facts(container))
        return self.log(name)

    def log(self, name: str) -> Path:
        """Return where a container in the background prints to."""
        return self.directory / name / "log"

    def ended(self, name: str, status: int, reason: str) -> None:
        """Keep how a container in the background ended."""
        write_json(self.directory / name / "ended.json", {"status": status, "reason": reason})

    def reason(self, name: str) -> tuple[int, str] | None:
        """Return the status of one that has ended, and why its command never ran, if it did not."""
        path = self.directory / name / "ended.json"
        if not path.exists():
            return None
        document = read_json(path, most=_MOST_BYTES)
        return int(document["status"]), str(document["reason"])

    def remove(self, name: str) -> None:
        """Forget a container that does not run, and its log."""
        shutil.rmtree(self.directory / name, ignore_errors=True)

    def _kept(self) -> list[ContainerEntry]:
        found = []
        for path in sorted(self.directory.glob("*/container.json")):
            document = read_json(path, most=_MOST_BYTES)
            name = path.parent.name
            ended = self.reason(name)
            entry = ContainerEntry(
                name,
                "lost" if ended is None else "exited",
                tuple(document["command"]),
                str(document["rootfs"]),
                str(document["created"]),
                None if ended is None else ended[0],
            )
            found.append(entry)
        return found


def facts(container: Container) -> dict[str, str | list[str]]:
    """Return what is kept of a container that is made now."""
    return {
        "command": list(container.command),
        "rootfs": str(container.rootfs),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _on_record(change: Change) -> ContainerEntry:
    command = change.facts.get("command", ())
    return ContainerEntry(
        change.subject,
        "running" if change.owner.lives() else "lost",
        (command,) if isinstance(command, str) else tuple(map(str, command)),  # type: ignore[arg-type]
        change.text("rootfs"),
        change.text("created"),
        change=change,
    )
