"""A bisection on disk: the question, the kernels, and every try, in ``bisect.json``.

Tries are only ever added, and each write is atomic: a search that was killed at any point
goes on with the next try that it would have made. The evidence of try N lies in
``tries/N-VERSION``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hyperbox.errors import ConfigError, HarnessError
from hyperbox.files import write_json
from hyperbox.foreign import read_json
from hyperbox.harness.lab.kernel_matrix import KernelRelease
from hyperbox.harness.runs.bisection import Mark, tries_left
from hyperbox.harness.runs.documents import utc

__all__ = ["BisectionLog", "Candidate", "Question", "Try", "candidate"]

_FORMAT = 1
_FILE = "bisect.json"


@dataclass(frozen=True)
class Candidate:
    """A kernel of the row.

    `vouched` is false if neither a signed list nor the lock has the hashes of all its parts.
    """

    version: str
    release: str
    package: str
    vouched: bool


@dataclass(frozen=True)
class Question:
    """What is looked for: a gate's FAIL, or a command's non-zero status.

    `good` and `bad` are the ends as they were named. `blocks` and `seed` are for gates;
    `memory` (MiB), `timeout` (s), `crash` (the mark of a kernel that crashes) and `files`
    (pairs of absolute path here and path in the guest) for commands.
    """

    good: str
    bad: str
    lane: str
    gate: str | None = None
    blocks: int | None = None
    seed: int = 1
    command: tuple[str, ...] = ()
    memory: int | None = None
    timeout: float | None = None
    crash: str = "skip"
    files: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Try:
    """One judged kernel: its place in the row, the mark, why, host seconds, its evidence."""

    place: int
    mark: Mark
    reason: str
    seconds: float
    directory: str
    ended: str


def candidate(release: KernelRelease) -> Candidate:
    """Return what the log keeps of a packaged kernel."""
    package = release.kernel_package
    vouched = all(part.listed or part.sha256 for part in release.packages)
    return Candidate(release.version, release.release, package.name, vouched)


class BisectionLog:
    """A bisection directory; create it with `create` or open it with `open`."""

    def __init__(
        self, directory: Path, question: Question, row: Sequence[Candidate], tries: Sequence[Try]
    ) -> None:
        self.directory = directory
        self.question = question
        self.row = tuple(row)
        self.tries = tuple(tries)

    @classmethod
    def create(cls, directory: Path, question: Question, row: Sequence[Candidate]) -> BisectionLog:
        """Start a bisection; ConfigError if the directory has one already."""
        if (directory / _FILE).exists():
            raise ConfigError(
                f"{directory} holds a bisection already", hint=f"go on with --resume {directory}"
            )
        log = cls(directory, question, row, ())
        log._write()
        return log

    @classmethod
    def open(cls, directory: Path) -> BisectionLog:
        """Read a bisection.

        Raises
        ------
        ConfigError
            If there is none.
        HarnessError
            If it is damaged or of a newer hyperbox.
        """
        path = directory / _FILE
        if not os.path.lexists(path):
            raise ConfigError(f"{directory} is not a bisection: no {_FILE}")
        document = read_json(path)
        try:
            return cls(directory, *_read(document))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise HarnessError(f"{path} is damaged: {error!r}") from error

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the bisection against a second hyperbox; HarnessError if there is one."""
        handle = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise HarnessError(f"another hyperbox works on {self.directory}") from error
        try:
            yield
        finally:
            os.close(handle)

    def marks(self) -> Mapping[int, Mark]:
        """Return the mark of every place that was tried."""
        return {one.place: one.mark for one in self.tries}

    def place_of_evidence(self, place: int) -> Path:
        """Return the directory of the next try, which is at `place`."""
        return self.directory / "tries" / f"{len(self.tries) + 1:02}-{self.row[place].version}"

    def add(self, place: int, mark: Mark, reason: str, seconds: float) -> Try:
        """Put a try on record."""
        where = self.place_of_evidence(place).relative_to(self.directory).as_posix()
        one = Try(place, mark, reason, round(seconds, 1), where, utc())
        self.tries = (*self.tries, one)
        self._write()
        return one

    def _write(self) -> None:
        document = {
            "format": _FORMAT,
            "question": asdict(self.question),
            "row": [asdict(one) for one in self.row],
            "tries": [asdict(one) for one in self.tries],
        }
        write_json(self.directory / _FILE, document)


def _read(document: Mapping[str, Any]) -> tuple[Question, list[Candidate], list[Try]]:
    if document["format"] != _FORMAT:
        raise ValueError(f"unknown format {document['format']!r}")
    asked = document["question"]
    files = tuple((here, there) for here, there in asked["files"])
    question = Question(**{**asked, "command": tuple(asked["command"]), "files": files})
    row = [Candidate(**one) for one in document["row"]]
    tries = [Try(**{**one, "mark": Mark(one["mark"])}) for one in document["tries"]]
    if not all(0 <= one.place < len(row) for one in tries):
        raise ValueError("a try is outside the row")
    if len(row) < 2:
        raise ValueError("the row has no two ends")
    tries_left(len(row), {one.place: one.mark for one in tries})  # refuses contradictions
    return question, row, tries
