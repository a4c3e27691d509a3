"""One attempt at a cell, on disk: what its record says and what lies beside it.

The layout is described by the schema in `runs/schema`.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hyperbox.errors import HarnessError
from hyperbox.foreign import read_bytes
from hyperbox.harness.model import Cell, Experiment, Sample
from hyperbox.harness.runs.attempt import Attempt, AttemptState
from hyperbox.harness.runs.documents import digest, read_document, untimely, utc
from hyperbox.harness.runs.schema import SCHEMA_VERSION

__all__ = [
    "Record",
    "attempt_number",
    "counting",
    "evidence",
    "read_record",
    "read_samples",
    "record_document",
    "samples_table",
]

_ATTEMPT = re.compile("attempt-([1-9][0-9]{0,5})")
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
class Record:
    """One attempt on disk: its directory and what its ``record.json`` says."""

    directory: Path
    document: Mapping[str, Any]

    @property
    def state(self) -> AttemptState:
        """How the attempt ended."""
        return AttemptState(self.document["state"])

    @property
    def finished(self) -> bool:
        """Whether a resumed run leaves the cell alone."""
        return self.state is not AttemptState.FAILED

    def samples(self) -> tuple[Sample, ...]:
        """Read the samples, checked against the count and hash on record."""
        return read_samples(self)

    def evidence(self, name: str) -> bytes:
        """Read a file that no verdict needs; empty if it was taken away.

        Raises
        ------
        HarnessError
            If it cannot be read or is not what was put on record.
        """
        path = self.directory / name
        if not os.path.lexists(path):
            return b""
        data = read_bytes(path)
        if self.document.get("evidence", {}).get(name, digest(data)) != digest(data):
            raise HarnessError(f"{path} is damaged: its SHA-256 is not the one on record")
        return data


def counting(records: Sequence[Record]) -> Record | None:
    """Return the attempt that counts: the first finished one, else the newest."""
    finished = [record for record in records if record.finished]
    return next(iter([*finished, *records[-1:]]), None)


def read_record(directory: Path) -> Record:
    """Read an attempt's ``record.json``.

    Raises
    ------
    HarnessError
        If it is damaged, of another kind, or belongs to an attempt of another number.
    """
    path = directory / "record.json"
    hint = f"restore it, or take away {directory.parent}: a resumed run measures its cell again"
    try:
        document = read_document(path, "record")
    except HarnessError as error:
        raise HarnessError(error.message, hint=error.hint or hint) from error
    fault = untimely(document)
    if document["attempt"] != attempt_number(directory.name):
        fault = f"it is the record of attempt {document['attempt']}"
    if fault:
        raise HarnessError(f"{path} is not a valid record.json: {fault}", hint=hint)
    return Record(directory, document)


def attempt_number(name: str) -> int:
    """Return the number of an attempt by the name of its directory; 0 if it is none."""
    found = _ATTEMPT.fullmatch(name)
    return int(found[1]) if found else 0


def record_document(cell: Cell, attempt: Attempt, number: int, samples: bytes) -> dict[str, Any]:
    """Return the content of ``record.json``."""
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
            "sha256": digest(samples),
        },
        "evidence": {name: digest(content) for name, content in evidence(attempt).items()},
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
    data = read_bytes(path)
    if digest(data) != expected["sha256"]:
        raise HarnessError(f"{path} is damaged: its SHA-256 is not the one on record")
    try:
        # Threads cost more than they bring for a few kilobytes.
        table = pq.ParquetFile(io.BytesIO(data)).read(list(_FIELDS), use_threads=False)
        columns = table.cast(pa.schema([_COLUMNS.field(name) for name in _FIELDS])).to_pydict()
        # Names repeat in every row: one object each keeps a large run small.
        names = [list(map(sys.intern, columns[name])) for name in ("arm", "metric")]
        places = [list(map(int, columns[name])) for name in ("block", "position")]
        rows = zip(*places, *names, columns["value"], strict=True)
        samples = tuple(Sample(*row) for row in rows)
    except (pa.ArrowException, KeyError, OSError, TypeError, ValueError) as error:
        raise HarnessError(f"{path} holds no valid samples: {error}") from error
    if len(samples) != expected["count"]:
        raise HarnessError(f"{path} holds {len(samples)} samples, not {expected['count']}")
    return samples


def samples_table(samples: tuple[Sample, ...], experiment: Experiment) -> bytes:
    """Return the content of ``samples.parquet``."""
    rows = [{**asdict(s), "unit": experiment.metric(s.metric).unit} for s in samples]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=_COLUMNS), buffer)
    return buffer.getvalue()


def evidence(attempt: Attempt) -> dict[str, bytes]:
    """Return the files of an attempt that no verdict needs."""
    found = attempt.artifacts
    texts = (found.serial, found.dmesg, found.kernel_config) if found else ("", "", "")
    names = ("serial.log", "dmesg.txt", "kernel.config")
    return {name: text.encode(errors="replace") for name, text in zip(names, texts, strict=True)}
