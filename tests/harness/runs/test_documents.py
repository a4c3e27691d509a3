"""Documents of a run directory: sealed, read strictly, shown in one line."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperbox.errors import HarnessError
from hyperbox.harness.runs.documents import (
    document_bytes,
    read_document,
    utc,
    write_document,
)
from hyperbox.harness.runs.record import read_record
from hyperbox.harness.runs.schema import schema
from tests.mutation import batches

DATA = Path(__file__).parents[1] / "report" / "data"
RUN = DATA / "schema-2" / "run.json"
RECORD = DATA / "schema-2/cells/6.12--psi.monitor_cpu--exact/attempt-1/record.json"
READ = read_record(RECORD.parent)

texts = st.text(st.characters(codec="utf-8"), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts | st.floats(allow_nan=False).filter(abs),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def finite(value: Any) -> bool:
    return "Infinity" not in json.dumps(value)


def run_with(environment: Mapping[str, Any]) -> dict[str, Any]:
    document = json.loads(RUN.read_text())
    del document["seal"]
    return {**document, "environment": environment}


@given(environment=st.dictionaries(texts, values, max_size=3).filter(finite))
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("one") / "run.json"
    document = run_with(environment)
    write_document(path, "run", document)
    assert read_document(path, "run") == document


@settings(max_examples=100, deadline=None)  # of 50 inputs each
@given(texts=batches([RECORD.read_text()]))
def test_a_record_is_read_as_it_was_written_or_refused(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    directory = tmp_path_factory.mktemp("some") / "attempt-1"
    directory.mkdir()
    for text in texts:
        (directory / "record.json").write_text(text)
        with contextlib.suppress(HarnessError):
            assert read_record(directory) == replace(READ, directory=directory)


@given(place=st.integers(0, RUN.stat().st_size - 1), byte=st.integers(0, 255))
def test_no_byte_changes_unseen(
    tmp_path_factory: pytest.TempPathFactory, place: int, byte: int
) -> None:
    content = bytearray(RUN.read_bytes())
    same = content[place] == byte
    content[place] = byte
    path = tmp_path_factory.mktemp("one") / "run.json"
    path.write_bytes(content)
    if same:
        read_document(path, "run")
        return
    with pytest.raises(HarnessError) as caught:
        read_document(path, "run")
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message


def test_a_seal_within_is_not_the_documents_own(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    document = run_with({"seal": "0" * 64, "\n  ": '\n  "seal": "' + "0" * 64})
    write_document(path, "run", document)
    assert read_document(path, "run") == document


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        (b'"status":', b'"status": "failed", "status":', "the key 'status' stands twice"),
        (b'"seed": 1', b'"seed": ' + b"9" * 500, "a number has 50"),
        (b'"seed": 1', b'"seed": 1e999', "a number is NaN or infinite"),
        (b'"seed": 1', b'"seed": NaN', "a number is NaN or infinite"),
        (b'"seed": 1', b'"seed": -Infinity', "a number is NaN or infinite"),
        (b'"complete"', b'"\\ud800"', "half of a surrogate pair"),
        (b'"complete"', b'"\xff"', "can't decode byte 0xff"),
        (b'"plan":', b'"plan": ' + b"[" * 100_000, "nested too deeply"),
        (b"{", b"\xef\xbb\xbf{", "BOM"),
        (b'"schema_version": 2', b'"schema_version": 3', "has schema version 3, this hyperbox"),
        (b'"schema_version": 2', b'"schema_version": 0', "has schema version 0, this hyperbox"),
        (b'"schema_version": 2', b'"schema_version": true', "schema_version: True is not one of"),
        (b'"seal":', b'"seel":', "'seel' was unexpected"),
    ],
)
def test_doubtful_documents_are_refused(tmp_path: Path, old: bytes, new: bytes, shown: str) -> None:
    path = tmp_path / "run.json"
    content = RUN.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    with pytest.raises(HarnessError) as caught:
        read_document(path, "run")
    assert shown in caught.value.message
    assert "\n" not in caught.value.message


def test_text_that_is_no_unicode_is_written_as_such() -> None:
    """A guest's JSON may hold half a surrogate pair, a file's name any byte."""
    content = document_bytes({"reason": "a\ud800b", "path": os.fsdecode(b"\xff")})
    assert json.loads(content)["reason"] == "a\N{REPLACEMENT CHARACTER}b"


def nameless(place: str, found: Any) -> list[str]:
    """Return the paths of properties that a schema does not explain."""
    if isinstance(found, list):
        return [path for item in found for path in nameless(place, item)]
    if not isinstance(found, dict):
        return []
    lacking = []
    for key, value in found.items():
        if key == "properties" and "if" not in place:
            lacking += [f"{place}/{n}" for n, one in value.items() if "description" not in one]
        if key not in ("if", "then", "else"):
            lacking += nameless(f"{place}/{key}", value)
    return lacking


@pytest.mark.parametrize("kind", ["run", "record"])
def test_every_field_is_explained(kind: str) -> None:
    assert nameless("", schema(kind)) == []


def test_times_are_utc_with_milliseconds() -> None:
    assert utc(0.0015) == "1970-01-01T00:00:00.001Z"
