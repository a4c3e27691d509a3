"""The run directory: append-only, atomic, the truth of a run.

``run.json`` says what was planned; each attempt at a cell is a directory that appears whole,
by rename, or not at all. The layout is described by the schemas in `runs/schema`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hyperbox import files
from hyperbox.errors import ConfigError, HarnessError
from hyperbox.harness.model import (
    Arm,
    Cell,
    Experiment,
    Gate,
    Lane,
    Metric,
    Rule,
    Sample,
    Scale,
)
from hyperbox.harness.runs.attempt import Attempt, State
from hyperbox.harness.runs.plan import Plan
from hyperbox.harness.runs.schema import SCHEMA_VERSION, check

__all__ = [
    "Record",
    "RunInfo",
    "RunStore",
    "counting",
    "read_record",
    "read_samples",
    "record_document",
    "samples_table",
    "utc",
]

_FIELDS = ("block", "position", "arm", "metric", "value")
_COLUMNS = pa.schema(
    [
        ("block", pa.int32()),
        ("position", pa.int32()),
        ("arm", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("unit", pa.string()),
    ]
)


@dataclass(frozen=True)
class RunInfo:
    """What ``run.json`` says; `document` is all of it."""

    plan: Plan
    status: str
    document: Mapping[str, Any]


@dataclass(frozen=True)
class Record:
    """One attempt on disk: its directory and what its ``record.json`` says."""

    directory: Path
    document: Mapping[str, Any]

    @property
    def state(self) -> State:
        """How the attempt ended."""
        return State(self.document["state"])

    @property
    def finished(self) -> bool:
        """Whether a resumed run leaves the cell alone."""
        return self.state is not State.FAILED

    def samples(self) -> tuple[Sample, ...]:
        """Read the samples, checked against the count and hash on record."""
        return read_samples(self)


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
        if not (directory / "run.json").is_file():
            raise ConfigError(
                f"{directory} is not a run directory: no run.json",
                hint="give the directory that `hyperbox validate` named",
            )
        return cls(directory)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the run against a second hyperbox; what dead ones left is removed first.

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
            self._clear_halves()
            yield
        finally:
            os.close(handle)

    def _clear_halves(self) -> None:
        """Remove what was being written when a hyperbox was killed."""
        for leftover in self.directory.glob("cells/*/.attempt-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for pattern in (".run.json.*", "report/.*", "report/**/.*"):
            for leftover in self.directory.glob(pattern):
                try:
                    leftover.unlink(missing_ok=True)
                except OSError as error:
                    raise files.explained(error, leftover) from error

    def info(self) -> RunInfo:
        """Read and check ``run.json``."""
        document = _read_json(self.directory / "run.json")
        check("run", document, str(self.directory / "run.json"))
        return RunInfo(plan_from(document["plan"]), document["status"], document)

    def set_status(self, status: str) -> None:
        """Set ``running``, ``interrupted``, ``failed`` or ``complete``, with the time."""
        document = dict(self.info().document)
        document["status"] = status
        document["ended"] = None if status == "running" else utc()
        self._write_run(document)

    def records(self, cell: Cell) -> tuple[Record, ...]:
        """Give the attempts at a cell, oldest first."""
        return tuple(read_record(path) for path in self.attempts(cell))

    def attempts(self, cell: Cell) -> tuple[Path, ...]:
        """Give the directories of the attempts at a cell, oldest first, unread."""
        found: list[tuple[int, Path]] = []
        for path in (self.directory / "cells" / cell.key).glob("attempt-*"):
            number = path.name.removeprefix("attempt-")
            if number.isdigit():
                found.append((int(number), path))
        return tuple(path for _, path in sorted(found))

    def latest(self, cell: Cell) -> Record | None:
        """Give the attempt that counts."""
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
                check("record", document, f"the record of {cell.key}")
                files.write_json(scratch / "record.json", document)
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
        evidence = attempt.artifacts
        files.write_text(scratch / "serial.log", evidence.serial if evidence else "")
        files.write_text(scratch / "dmesg.txt", evidence.dmesg if evidence else "")
        files.write_text(scratch / "kernel.config", evidence.kernel_config if evidence else "")

    def _write_run(self, document: Mapping[str, Any]) -> None:
        check("run", document, "run.json")
        files.write_json(self.directory / "run.json", document)


def counting(records: Sequence[Record]) -> Record | None:
    """Give the attempt that counts: the first finished one, else the newest."""
    finished = [record for record in records if record.finished]
    return next(iter([*finished, *records[-1:]]), None)


def utc(seconds: float | None = None) -> str:
    """Give a time (default: now) as ISO 8601 in UTC with milliseconds and ``Z``."""
    moment = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def plan_document(plan: Plan) -> dict[str, Any]:
    """Give a plan as JSON data."""
    parsed: dict[str, Any] = json.loads(json.dumps(asdict(plan)))
    return parsed


def plan_from(document: Mapping[str, Any]) -> Plan:
    """Give the plan back from checked JSON data."""
    return Plan(
        kernels=tuple(document["kernels"]),
        lane=Lane(document["lane"]),
        experiments=tuple(_experiment(item) for item in document["experiments"]),
        gates=tuple(_gate(item) for item in document["gates"]),
        seed=document["seed"],
        beside=tuple(Lane(lane) for lane in document.get("beside", ())),
    )


def _gate(item: Mapping[str, Any]) -> Gate:
    """Give a gate back; runs of old hyperboxes have no scale: they knew ratios only."""
    scale = Scale(item.get("scale", Gate.scale))
    return Gate(**{**item, "rule": Rule(item["rule"]), "scale": scale})


def record_document(cell: Cell, attempt: Attempt, number: int, samples: bytes) -> dict[str, Any]:
    """Give the content of ``record.json``."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "cell": asdict(cell),
        "attempt": number,
        "state": attempt.state,
        "reason": attempt.reason,
        "error": attempt.error,
        "fingerprint": attempt.fingerprint,
        "trace": attempt.trace,
        "retry": attempt.retry,
        "started": utc(attempt.started),
        "ended": utc(attempt.ended),
        "blocks": [asdict(block) for block in attempt.blocks],
        "environment": dict(attempt.environment),
        "warnings": list(attempt.warnings),
        "samples": {
            "count": len(attempt.samples),
            "sha256": hashlib.sha256(samples).hexdigest(),
        },
    }
    parsed: dict[str, Any] = json.loads(json.dumps(document))
    return parsed


def read_samples(record: Record) -> tuple[Sample, ...]:
    """Read an attempt's samples.

    Raises
    ------
    HarnessError
        If the file is missing, damaged, or not the one on record.
    """
    path = record.directory / "samples.parquet"
    expected = record.document["samples"]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise HarnessError(f"cannot read {path}: {error.strerror or error}") from error
    if hashlib.sha256(data).hexdigest() != expected["sha256"]:
        raise HarnessError(f"{path} is damaged: its SHA-256 is not the one on record")
    try:
        # Threads cost more than they bring for a few kilobytes.
        table = pq.ParquetFile(io.BytesIO(data)).read(list(_FIELDS), use_threads=False)
        columns = table.to_pydict()
        # Names repeat in every row: one object each keeps a large run small.
        names = [list(map(sys.intern, columns[name])) for name in ("arm", "metric")]
        rows = zip(columns["block"], columns["position"], *names, columns["value"], strict=True)
        return tuple(Sample(*row) for row in rows)
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise HarnessError(f"{path} holds no valid samples: {error}") from error


def samples_table(samples: tuple[Sample, ...], experiment: Experiment) -> bytes:
    """Give the content of ``samples.parquet``."""
    rows = [{**asdict(s), "unit": experiment.metric(s.metric).unit} for s in samples]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=_COLUMNS), buffer)
    return buffer.getvalue()


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
    return Experiment(
        **{
            **item,
            "arms": tuple(Arm(**arm) for arm in item["arms"]),
            "metrics": tuple(Metric(**metric) for metric in item["metrics"]),
            "program": tuple(item["program"]),
            "prepare": tuple(item["prepare"]),
        }
    )


def read_record(directory: Path) -> Record:
    """Read an attempt's ``record.json``; HarnessError if it is damaged or of another kind."""
    document = _read_json(directory / "record.json")
    check("record", document, str(directory / "record.json"))
    return Record(directory, document)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise HarnessError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise HarnessError(f"{path} is not JSON: {error}") from error
