"""Where learned profiles are kept: recordings, versions with metadata, and the default behind each.

Layout below the store (default `STORE`)::

    NAME/recordings/0001.json             what one run did
    NAME/versions/0001/profile.json       the profile, canonical
                      /default.json       the default it was made from, resolved
                      /metadata.json      when, from what, how large, how complete
    NAME/current                          number of the version in force

Profile and default of a version never change once they are there; its metadata follow the runs.
Going back writes `current` anew.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperbox.errors import ConfigError
from hyperbox.files import explained, locked, replace_file, write_bytes, write_json, write_text
from hyperbox.foreign import read_json, read_text
from hyperbox.isolation.profile import Profile, parse_profile
from hyperbox.isolation.recording import Recording, parse_recording

__all__ = ["STORE", "ProfileStore", "StoredVersion"]

STORE = Path("/var/lib/hyperbox/seccomp")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_NUMBER = re.compile(r"[0-9]{4,}")
_NUMBER_IN_FORCE = re.compile(r"[0-9]{1,9}")
_MOST_BYTES = 4 << 20  # of a file of the store; the largest default has 12 KB


@dataclass(frozen=True)
class StoredVersion:
    """One version of a profile."""

    name: str
    number: int
    profile: Profile
    default: Profile
    metadata: Mapping[str, Any]


class ProfileStore:
    """A directory of profiles by name.

    Raises
    ------
    ConfigError
        If the directory is a link, or others than its owner may write to it: whoever can change a
        profile decides what containers may do.
    """

    def __init__(self, directory: Path = STORE) -> None:
        self.directory = directory
        with contextlib.suppress(FileNotFoundError):
            _trusted(directory)

    def names(self) -> tuple[str, ...]:
        """Return the names that have a recording or a profile, sorted."""
        with contextlib.suppress(FileNotFoundError):
            return tuple(
                sorted(
                    path.name
                    for path in self.directory.iterdir()
                    if path.is_dir() and _NAME.fullmatch(path.name)
                )
            )
        return ()

    def check_name(self, name: str) -> None:
        """Refuse what cannot be the name of a profile.

        Raises
        ------
        ConfigError
            If it is none.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} is not a name for a profile",
                hint="lower-case letters, digits, '.', '_', '-'; at most 63, no '/'",
            )

    def recordings(self, name: str) -> tuple[Recording, ...]:
        """Return the recordings of a name, oldest first.

        Raises
        ------
        ConfigError
            If there is no such name, or a recording is damaged.
        """
        place = self._place(name) / "recordings"
        return tuple(parse_recording(_read(place / f), os.fspath(place / f)) for f in _files(place))

    def add_recording(self, name: str, recording: Recording) -> int:
        """Keep a recording and return its number; makes the name if it is new."""
        place = self._made(name) / "recordings"
        with locked(place.parent / "lock"):
            number = _next(path.stem for path in place.glob("*.json"))
            write_bytes(place / f"{number:04d}.json", recording.encoded())
        return number

    def versions(self, name: str) -> tuple[int, ...]:
        """Return the numbers of the versions of a name, oldest first."""
        place = self._place(name) / "versions"
        found = (path.name for path in place.glob("*") if _NUMBER.fullmatch(path.name))
        return tuple(sorted(int(number) for number in found))

    def current(self, name: str) -> int | None:
        """Return the number of the version in force; None if there is none yet."""
        path = self._place(name) / "current"
        if not path.exists():
            return None
        text = read_text(path, most=_MOST_BYTES, refusal=ConfigError).strip()
        if not _NUMBER_IN_FORCE.fullmatch(text):
            raise ConfigError(
                f"{path}: the number of a version is expected",
                hint="seccomp rollback NAME --version N",
            )
        return int(text)

    def load(self, name: str, number: int | None = None) -> StoredVersion:
        """Return a version, by default the one in force.

        Raises
        ------
        ConfigError
            If there is no such name or version, or it is damaged.
        """
        wanted = self.current(name) if number is None else number
        if wanted is None or wanted not in self.versions(name):
            versions = ", ".join(map(str, self.versions(name))) or "none"
            what = "no profile yet" if number is None else f"no version {number}"
            raise ConfigError(f"{name}: {what}", hint=f"versions: {versions}")
        place = self._place(name) / "versions" / f"{wanted:04d}"
        _trusted(place)
        documents = {part: _read(place / f"{part}.json") for part in ("profile", "default")}
        profiles = {
            part: parse_profile(document, os.fspath(place / f"{part}.json"))
            for part, document in documents.items()
        }
        metadata = _read(place / "metadata.json")
        if not isinstance(metadata, dict):
            raise ConfigError(f"{place / 'metadata.json'}: an object is expected")
        return StoredVersion(name, wanted, profiles["profile"], profiles["default"], metadata)

    def add_version(
        self, name: str, profile: Profile, default: Profile, metadata: Mapping[str, object]
    ) -> int:
        """Keep a new version, put it in force and return its number.

        If profile and default equal those in force, that version stays and has new metadata.
        """
        place = self._made(name) / "versions"
        place.mkdir(exist_ok=True)
        with locked(place.parent / "lock"):
            current = self.current(name)
            if current is not None and self._is_current(name, profile, default):
                write_json(place / f"{current:04d}" / "metadata.json", dict(metadata))
                return current
            number = _next(map(str, self.versions(name)))
            made = Path(tempfile.mkdtemp(prefix=".new-", dir=place))
            try:
                made.chmod(0o755)
                write_bytes(made / "profile.json", profile.encoded())
                write_bytes(made / "default.json", default.encoded())
                write_json(made / "metadata.json", dict(metadata))
                replace_file(made, place / f"{number:04d}")
            except BaseException:
                shutil.rmtree(made, ignore_errors=True)
                raise
            write_text(place.parent / "current", f"{number}\n")
        return number

    def roll_back(self, name: str, number: int | None = None) -> int:
        """Put an earlier version in force, by default the one before; return its number.

        Raises
        ------
        ConfigError
            If there is none.
        """
        with locked(self._place(name) / "lock"):
            wanted = self._before_current(name) if number is None else number
            self.load(name, wanted)
            write_text(self._place(name) / "current", f"{wanted}\n")
        return wanted

    def _is_current(self, name: str, profile: Profile, default: Profile) -> bool:
        found = self.load(name)
        return (found.profile, found.default) == (profile.canonical(), default.canonical())

    def _before_current(self, name: str) -> int:
        current = self.current(name) or 0
        earlier = [one for one in self.versions(name) if one < current]
        if not earlier:
            raise ConfigError(f"{name}: no version before {current}")
        return earlier[-1]

    def _place(self, name: str) -> Path:
        self.check_name(name)
        place = self.directory / name
        try:
            _trusted(place)
        except FileNotFoundError:
            known = ", ".join(self.names()) or "none"
            raise ConfigError(f"no profile is called {name}", hint=f"profiles: {known}") from None
        for part in ("recordings", "versions"):
            with contextlib.suppress(FileNotFoundError):
                _trusted(place / part)
        return place

    def _made(self, name: str) -> Path:
        if _NAME.fullmatch(name):
            try:
                self.directory.mkdir(parents=True, exist_ok=True, mode=0o755)
                (self.directory / name / "recordings").mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise explained(error, self.directory) from error
        return self._place(name)


def _files(place: Path) -> Sequence[str]:
    found = (path.name for path in place.glob("*.json") if _NUMBER.fullmatch(path.stem))
    return sorted(found, key=lambda name: int(Path(name).stem))


def _next(numbers: Any) -> int:
    return max((int(one) for one in numbers if one.isdecimal()), default=0) + 1


def _trusted(directory: Path) -> None:
    """Refuse a directory that somebody else can change; FileNotFoundError if there is none."""
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"{directory}: the profile store is not a directory, or a link")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            f"{directory}: others may write to the profile store", hint=f"chmod go-w {directory}"
        )
    if found.st_uid not in (0, os.geteuid()):
        raise ConfigError(
            f"{directory}: the profile store belongs to user {found.st_uid}",
            hint="it must be root's or your own",
        )


def _read(path: Path) -> object:
    if path.is_symlink():
        raise ConfigError(f"{path} is a link; the profile store has none")
    return read_json(path, most=_MOST_BYTES, refusal=ConfigError)
