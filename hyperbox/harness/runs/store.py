"""The run directory: append-only, atomic, the truth of a run.

``run.json`` says what was planned; each attempt at a cell is a directory that appears whole,
by rename, or not at all. The layout is described by the schemas in `runs/schema`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import stat
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hyperbox import files
from hyperbox.errors import ConfigError, HarnessError
from hyperbox.harness.model import (
    Arm,
    Cell,
    Experiment,
    Gate,
    Lane,
    MachineRequest,
    Metric,
    Rule,
    Scale,
)
from hyperbox.harness.runs.attempt import Attempt
from hyperbox.harness.runs.documents import read_document, untimely, utc, write_document
from hyperbox.harness.runs.plan import Plan, fault_of
from hyperbox.harness.runs.record import (
    Record,
    attempt_number,
    counting,
    evidence,
    read_record,
    record_document,
    samples_table,
)
from hyperbox.harness.runs.schema import SCHEMA_VERSION

__all__ = ["RunInfo", "RunStore", "plan_document", "plan_from"]

_TIME_UNITS = ("ns", "us", "ms", "s", "min", "h", "d")


@dataclass(frozen=True)
class RunInfo:
    """What ``run.json`` says; `document` is all of it."""

    plan: Plan
    status: str
    document: Mapping[str, Any]


class RunStore:
    """A run directory, for writing by any number of workers.

    Create it with `create` or open it with `open`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    def create(
        cls,
        directory: Path,
        plan: Plan,
        *,
        target: str,
        asked: Mapping[str, object],
        versions: Mapping[str, str],
        environment: Mapping[str, object],
    ) -> RunStore:
        """Start a run directory; ConfigError if it holds a run already."""
        if (directory / "run.json").exists():
            raise ConfigError(
                f"{directory} holds a run already", hint=f"continue it with --resume {directory}"
            )
        store = cls(directory)
        document = {
            "schema_version": SCHEMA_VERSION,
            "status": "running",
            "created": utc(),
            "ended": None,
            "target": target,
            "asked": dict(asked),
            "plan": plan_document(plan),
            "versions": dict(versions),
            "environment": dict(environment),
        }
        store._write_run(document)
        return store

    @classmethod
    def open(cls, directory: Path) -> RunStore:
        """Open an existing run directory; ConfigError if it is none."""
        try:
            mode = (directory / "run.json").stat().st_mode
            wrong = "" if stat.S_ISREG(mode) else "its run.json is not a file"
        except FileNotFoundError:
            wrong = "no run.json"
        except NotADirectoryError:
            wrong = "it is not a directory"
        except OSError as error:
            wrong = f"cannot read its run.json: {error.strerror or error}"
        if wrong:
            raise ConfigError(
                f"{directory} is not a run directory: {wrong}",
                hint="use the directory that `hyperbox validate` named",
            )
        return cls(directory)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the run against a second hyperbox; what killed ones left is removed first.

        Raises
        ------
        ConfigError, HarnessError
            As `held`; HarnessError also if what is left cannot be removed.
        """
        with self.held():
            self._clear_halves()
            yield

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run: what is half-written in it was left by a process that was killed.

        Raises
        ------
        ConfigError
            If another hyperbox works in it.
        HarnessError
            If the directory cannot be made, locked or written.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise files.explained(error, self.directory) from error
        try:
            _lock(handle, self.directory)
            yield
        finally:
            os.close(handle)

    def halves(self) -> tuple[Path, ...]:
        """Return what is being written; of a run that is `held` here, by nobody any more."""
        patterns = ("cells/*/.attempt-*", ".run.json.*", "report/**/.*")
        found = {path for pattern in patterns for path in self.directory.glob(pattern)}
        return tuple(sorted(found))

    def _clear_halves(self) -> None:
        for leftover in self.halves():
            if leftover.name.startswith(".attempt-"):
                shutil.rmtree(leftover, ignore_errors=True)
                continue
            try:
                leftover.unlink(missing_ok=True)
            except OSError as error:
                raise files.explained(error, leftover) from error

    def info(self) -> RunInfo:
        """Read and check ``run.json``."""
        path = self.directory / "run.json"
        hint = "restore it from a copy: nothing else says what was to be decided"
        try:
            document = read_document(path, "run")
        except HarnessError as error:
            raise HarnessError(error.message, hint=error.hint or hint) from error
        plan = plan_from(document["plan"])
        fault = fault_of(plan) or untimely(document)
        if fault:
            raise HarnessError(f"{path} is not a valid run.json: {fault}", hint=hint)
        return RunInfo(plan, document["status"], document)

    def set_status(self, status: str) -> None:
        """Set ``running``, ``interrupted``, ``failed`` or ``complete``, with the time."""
        document = dict(self.info().document)
        document["status"] = status
        document["ended"] = None if status == "running" else utc()
        self._write_run(document)

    def records(self, cell: Cell) -> tuple[Record, ...]:
        """Return the attempts at a cell, oldest first."""
        return tuple(read_record(path) for path in self.attempts(cell))

    def attempts(self, cell: Cell) -> tuple[Path, ...]:
        """Return the directories of the attempts at a cell, oldest first, unread.

        Raises
        ------
        HarnessError
            If the cell's directory cannot be listed.
        """
        home = self.directory / "cells" / cell.key
        found = [(attempt_number(name), name) for name in _names(home)]
        return tuple(home / name for number, name in sorted(found) if number)

    def strays(self, plan: Plan) -> tuple[Path, ...]:
        """Return what lies among cells and attempts and is none; HarnessError as `attempts`."""
        home = self.directory / "cells"
        planned = {cell.key for cell in plan.cells()}
        there = _names(home)
        found = [home / name for name in there if name not in planned]
        for key in planned.intersection(there):
            with contextlib.suppress(HarnessError):  # reported with its cell
                found += [
                    home / key / name
                    for name in _names(home / key)
                    if not attempt_number(name) and not name.startswith(".attempt-")
                ]
        return tuple(sorted(found))

    def latest(self, cell: Cell) -> Record | None:
        """Return the attempt that counts."""
        return counting(self.records(cell))

    def record(self, cell: Cell, attempt: Attempt, experiment: Experiment) -> Record:
        """Write an attempt: whole, durable, under the next free number.

        Raises
        ------
        HarnessError
            If it cannot be written; nothing is left of it then.
        """
        home = self.directory / "cells" / cell.key
        scratch = home / f".attempt-{os.getpid()}-{threading.get_native_id()}"
        number = len(self.records(cell)) + 1
        try:
            shutil.rmtree(scratch, ignore_errors=True)
            samples = samples_table(attempt.samples, experiment)
            while True:
                document = record_document(cell, attempt, number, samples)
                write_document(scratch / "record.json", "record", document)
                self._write_evidence(scratch, attempt, samples)
                if _publish(scratch, home / f"attempt-{number}"):
                    return Record(home / f"attempt-{number}", document)
                number += 1
        except OSError as error:
            raise HarnessError(f"cannot write {home}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _write_evidence(self, scratch: Path, attempt: Attempt, samples: bytes) -> None:
        files.write_bytes(scratch / "samples.parquet", samples)
        for name, content in evidence(attempt).items():
            files.write_bytes(scratch / name, content)

    def _write_run(self, document: Mapping[str, Any]) -> None:
        write_document(self.directory / "run.json", "run", document)


def plan_document(plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON data."""
    parsed: dict[str, Any] = json.loads(json.dumps(asdict(plan)))
    return parsed


def plan_from(document: Mapping[str, Any]) -> Plan:
    """Return the plan back from checked JSON data."""
    return Plan(
        kernels=tuple(document["kernels"]),
        lane=Lane(document["lane"]),
        experiments=tuple(_experiment(item) for item in document["experiments"]),
        gates=tuple(_gate(item) for item in document["gates"]),
        seed=int(document["seed"]),  # JSON knows 7.0 as an integer, too
        beside=tuple(Lane(lane) for lane in document.get("beside", ())),
    )


def _gate(item: Mapping[str, Any]) -> Gate:
    """Return a gate back; runs of old hyperboxes have no scale: they knew ratios only."""
    scale = Scale(item.get("scale", Gate.scale))
    return Gate(**{**item, "rule": Rule(item["rule"]), "scale": scale})


def _lock(handle: int, directory: Path) -> None:
    """Take the lock that the kernel drops when this process dies, however it dies."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(f"another hyperbox works in {directory}") from None
    except OSError as error:
        raise HarnessError(
            f"cannot lock {directory}: {error.strerror or error}",
            hint="choose a directory on a file system with flock(2)",
        ) from error


def _publish(scratch: Path, target: Path) -> bool:
    """Rename the finished directory into place; False if the number is taken."""
    try:
        scratch.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    handle = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return True


def _experiment(item: Mapping[str, Any]) -> Experiment:
    """Return an experiment back; before machines could be asked for, mitigations were off."""
    item = dict(item)
    before = {"commandline": item.pop("commandline", ""), "mitigations": False}
    return Experiment(
        **{
            **item,
            "machine": _machine(item.get("machine", before)),
            "arms": tuple(Arm(**arm) for arm in item["arms"]),
            "metrics": tuple(_metric(metric) for metric in item["metrics"]),
            "program": tuple(item["program"]),
            "prepare": tuple(item["prepare"]),
            "uses": tuple(item.get("uses", ())),
            "layers": tuple(item.get("layers", ())),
        }
    )


def _machine(item: Mapping[str, Any]) -> MachineRequest:
    return MachineRequest(
        **{**item, "without_modules": tuple(item.get("without_modules", ()))},
    )


def _metric(item: Mapping[str, Any]) -> Metric:
    """Return a metric back; runs of old hyperboxes have no ranges: only times were bounded."""
    least = Metric.least if item["unit"] in _TIME_UNITS else None
    return Metric(**{"least": least, **item})


def _names(directory: Path) -> list[str]:
    """List a directory; nothing if it is absent."""
    try:
        return os.listdir(directory)  # noqa: PTH208 - names are what is asked
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HarnessError(f"cannot read {directory}: {error.strerror or error}") from error
