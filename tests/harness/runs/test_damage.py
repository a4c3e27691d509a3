"""A run directory mutated at random: nothing crashes, nothing becomes a PASS, all is named."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperbox.errors import HyperboxError
from hyperbox.harness.model import Outcome, Verdict
from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.exports import summary, verdicts_csv
from hyperbox.harness.report.github import annotation_lines, job_summary
from hyperbox.harness.report.junit import junit_xml
from hyperbox.harness.report.kcidb import kcidb
from hyperbox.harness.runs.loading import load_run

DATA = Path(__file__).parents[1] / "report" / "data"
OLD, NEW = DATA / "schema-1", DATA / "schema-2"
FILES = sorted(path.relative_to(NEW) for path in NEW.rglob("*") if path.is_file())
PLACES = sorted(path.relative_to(NEW) for path in NEW.rglob("*"))
LOGS = ("serial.log", "dmesg.txt", "kernel.config")


@contextmanager
def copy_of(frozen: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        shutil.copytree(frozen, Path(name) / "run")
        yield Path(name) / "run"


def loaded(directory: Path) -> tuple[RunData | None, str]:
    """Read a run; return it, or why it cannot be read at all: one line, and what to do about it."""
    try:
        return load_run(directory), ""
    except HyperboxError as error:
        shown, hint = error.message, error.hint
    assert "\n" not in shown
    assert str(directory / "run.json") in shown or str(directory) + " is not a run" in shown
    assert hint
    return None, shown


@cache
def whole() -> dict[tuple[str, str], Verdict]:
    return {(verdict.gate, verdict.kernel): verdict for verdict in load_run(NEW).verdicts}


def owners(run: RunData) -> dict[tuple[str, str], str]:
    """Return the directory of the cell behind each verdict."""
    return {
        (gate.id, one.cell.kernel): one.cell.key
        for one in run.cells
        for gate in run.gates
        if gate.experiment == one.experiment.id
    }


def forms(run: RunData) -> dict[str, str]:
    """Return every form for programs and for mail; each must parse."""
    junit = junit_xml(run)
    ET.fromstring(junit)
    return {
        "JSON": json.dumps(summary(run), allow_nan=False, ensure_ascii=False),
        "kcidb": json.dumps(kcidb(run), allow_nan=False, ensure_ascii=False),
        "CSV": verdicts_csv(run),
        "JUnit": junit,
        "Markdown": job_summary(run),
        "GitHub": "\n".join(annotation_lines(run)),
    }


def change(path: Path, how: str, place: float, byte: int) -> bool:
    """Damage a file; whether anything is different then."""
    before = path.read_bytes()
    at = int(place * len(before))
    after = before[:at] + (b"" if how == "cut" else bytes([byte]) + before[at + 1 :])
    path.write_bytes(after)
    return after != before


damages = {
    "how": st.sampled_from(["cut", "flip"]),
    "place": st.floats(0, 1, exclude_max=True),
    "byte": st.integers(0, 255),
}
quickly = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@quickly
@given(which=st.sampled_from(FILES), **damages)
def test_one_changed_file_is_named_and_hurts_its_cell_only(
    which: Path, how: str, place: float, byte: int
) -> None:
    with copy_of(NEW) as directory:
        changed = change(directory / which, how, place, byte)
        run, _ = loaded(directory)
        shown = forms(run) if run else {}
    assert (run is None) is (which.name == "run.json" and changed)
    if run is None:
        return
    harmless = which.name == "kernel.config" and not any("kernel.config" in p for p in run.problems)
    if changed and not harmless:
        assert [p for p in run.problems if str(directory / which) in p]
        for form, text in shown.items():
            assert which.name in text, f"{form} says which file it was"
    for verdict in run.verdicts:
        before = whole()[verdict.gate, verdict.kernel]
        hurt = (
            changed
            and which.name not in LOGS
            and owners(run)[verdict.gate, verdict.kernel] == which.parts[1]
        )
        assert verdict.outcome is Outcome.ERROR if hurt else verdict == before


@quickly
@given(which=st.lists(st.sampled_from(PLACES[1:]), min_size=1, max_size=3), as_link=st.booleans())
def test_what_is_gone_is_named_and_passes_nothing(which: list[Path], as_link: bool) -> None:
    with copy_of(NEW) as directory:
        for path in (directory / name for name in which):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            if as_link and path.parent.is_dir():
                path.symlink_to("/nowhere")
        run, _ = loaded(directory)
        if run is not None:
            forms(run)
    assert (run is None) is (Path("run.json") in which)
    if run is None:
        return
    decisive = [name for name in which if name.name not in LOGS]
    assert bool(run.problems) >= bool(decisive)
    for verdict in run.verdicts:
        key = owners(run)[verdict.gate, verdict.kernel]
        hurt = any(name.name == "cells" or key in name.parts for name in decisive)
        before = whole()[verdict.gate, verdict.kernel]
        assert verdict.outcome is Outcome.ERROR if hurt else verdict == before


@quickly
@given(which=st.sampled_from([f for f in FILES if (OLD / f).exists()]), **damages)
def test_runs_without_seals_never_crash_the_report(
    which: Path, how: str, place: float, byte: int
) -> None:
    """What a seal would show may go unseen there; samples have their hash on record."""
    with copy_of(OLD) as directory:
        changed = change(directory / which, how, place, byte)
        run, _ = loaded(directory)
        if run is not None:
            forms(run)
    if run is None:
        assert which.name == "run.json"
    elif changed and which.name == "samples.parquet":
        hurt = [v for v in run.verdicts if owners(run)[v.gate, v.kernel] == which.parts[1]]
        assert {verdict.outcome for verdict in hurt} == {Outcome.ERROR}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), name=st.sampled_from(["run.json", "record.json"]))
def test_any_value_of_any_type_anywhere_is_one_line_or_a_report(
    data: st.DataObject, name: str
) -> None:
    """A record without a seal, as somebody else's program may write it."""
    with copy_of(OLD) as directory:
        path = next(path for path in sorted(directory.rglob(name)))
        document = json.loads(path.read_text())
        place = document
        while True:
            keys = range(len(place)) if isinstance(place, list) else sorted(place)
            key = data.draw(st.sampled_from(keys))
            if (
                not isinstance(place[key], (dict, list))
                or not place[key]
                or data.draw(st.booleans())
            ):
                break
            place = place[key]
        place[key] = data.draw(_JSON)
        path.write_text(json.dumps(document))
        run, _ = loaded(directory)
        if run is not None:
            forms(run)
        assert run is not None or name == "run.json"


@pytest.mark.parametrize("cut", [0, 1, 0.01, 0.25, 0.5, 0.75, 0.99, -1])
@pytest.mark.parametrize("which", FILES, ids=str)
def test_files_cut_short_are_never_whole(which: Path, cut: float) -> None:
    with copy_of(NEW) as directory:
        content = (directory / which).read_bytes()
        at = int(cut) if cut in (0, 1, -1) else int(cut * len(content))
        (directory / which).write_bytes(content[:at])
        run, _ = loaded(directory)
    assert (run is None) is (which.name == "run.json")
    if run is not None and which.name in ("record.json", "samples.parquet"):
        assert sum(verdict.outcome is Outcome.ERROR for verdict in run.verdicts) in (1, 3)
        assert len(run.problems) == 1
        assert str(directory / which) in run.problems[0]
