"""The audit trail: what is appended reads back, torn lines cost nobody else, stories are shown."""

from __future__ import annotations

import json
import os
import resource
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.errors import HarnessError
from hyperbox.memory import audit
from hyperbox.memory.audit import AuditEntry, Trail, as_line, parse_trail, read_trail, stories
from hyperbox.memory.decisions import Action, Decision, TunerState
from hyperbox.memory.readings import SECOND_NS
from hyperbox.memory.tuning import TunerOptions, Tuning
from tests.daemon.conftest import has_pressure

hundredths = st.integers(0, 10_000).map(lambda value: value / 100)
decisions = st.builds(
    Decision,
    st.integers(0, 2**53),
    st.sampled_from(TunerState),
    st.sampled_from(Action),
    st.text(max_size=8),
    st.text(max_size=20),
    hundredths,
    hundredths,
    hundredths,
    st.integers(0, 10_000).map(float),
    st.lists(st.text(max_size=10), max_size=3).map(tuple),
)
entries = st.builds(
    AuditEntry, st.integers(0, 2**40).map(lambda ms: ms / 1000), st.integers(1, 2**22), decisions
)


def entry(second: int, action: Action, step: str = "", *changes: str, pid: int = 7) -> AuditEntry:
    decision = Decision(second * SECOND_NS, TunerState.HOLD, action, step, "why", changes=changes)
    return AuditEntry(float(second), pid, decision)


@given(st.lists(entries, max_size=5))
def test_written_trail_reads_back(wanted: list[AuditEntry]) -> None:
    assert parse_trail("\n".join(map(as_line, wanted))) == tuple(wanted)


@given(entries, st.integers(0, 200), st.text(max_size=30))
def test_torn_and_foreign_lines_are_left_out(whole: AuditEntry, cut: int, nonsense: str) -> None:
    line = as_line(whole)
    torn = line[: min(cut, len(line) - 1)]
    found = parse_trail("\n".join((torn, nonsense, line, '{"at": true}', "[]")))
    assert found == (whole,)


@pytest.mark.parametrize(
    ("name", "value"),
    [("state", "later"), ("action", "later"), ("score", "x"), ("pid", None), ("changes", "x")],
)
def test_entry_of_a_later_version_is_left_out(name: str, value: object) -> None:
    said = json.loads(as_line(entry(1, Action.APPLY, "one")))
    assert parse_trail(json.dumps(said)) != ()
    assert parse_trail(json.dumps(said | {name: value})) == ()
    del said[name]
    assert (parse_trail(json.dumps(said)) == ()) is (name != "changes")


def test_step_is_told_with_what_became_of_it() -> None:
    shown = stories(
        [
            entry(1, Action.PREPARE, "ahead"),
            entry(2, Action.APPLY, "one"),
            entry(3, Action.NOTHING),
            entry(4, Action.KEEP, "one"),
            entry(5, Action.APPLY, "two"),
            entry(6, Action.REVERT, "two"),
            entry(7, Action.NOTHING, "", "ahead was undone by somebody else and is left alone"),
            entry(8, Action.RESTORE, "one"),
            entry(9, Action.APPLY, "one"),
            entry(10, Action.KEEP, "one", pid=8),  # of another process: no part of it
        ]
    )
    times = [(s.began.unix_s, [one.unix_s for one in s.then]) for s in shown]
    assert times == [(1, [7]), (2, [4, 8]), (3, []), (5, [6]), (9, []), (10, [])]
    assert [one["action"] for one in shown[1].as_json()["then"]] == ["keep", "restore"]  # type: ignore[attr-defined]


def test_loss_and_next_step_in_one_decision_belong_to_both() -> None:
    shown = stories(
        [
            entry(1, Action.APPLY, "one"),
            entry(2, Action.APPLY, "two", "one was undone by somebody else and is left alone"),
        ]
    )
    assert [(s.began.unix_s, len(s.then)) for s in shown] == [(1, 1), (2, 0)]


def test_trail_is_bounded_and_readable_by_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_MOST_BYTES", 1000)
    path = tmp_path / "log" / "decisions.jsonl"
    before = os.umask(0o077)
    try:
        trail = Trail(path)
        for second in range(100):
            trail.add(entry(second, Action.APPLY, "one"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert path.stat().st_size < 2000
    found = [int(one.unix_s) for one in read_trail(path)]
    assert found == list(range(100 - len(found), 100))
    assert len(found) >= 6
    assert sorted(one.name for one in path.parent.iterdir()) == ["decisions.jsonl", "decisions.old"]


def test_full_disk_costs_one_entry(tmp_path: Path) -> None:
    trail = Trail(tmp_path / "decisions.jsonl")
    trail.add(entry(1, Action.APPLY, "one"))
    size = trail.path.stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, before[1]))  # a write is cut short there
    try:
        with pytest.raises(HarnessError, match="cannot keep the trail"):
            trail.add(entry(2, Action.KEEP, "one"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    trail.add(entry(3, Action.RESTORE, "one"))
    assert [one.unix_s for one in read_trail(trail.path)] == [1, 3]


def test_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "decisions.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HarnessError, match="cannot keep the trail"):
        Trail(tmp_path / "decisions.jsonl").add(entry(1, Action.APPLY, "one"))
    assert not (tmp_path / "elsewhere").exists()


def test_no_trail_is_an_empty_one(tmp_path: Path) -> None:
    assert read_trail(tmp_path / "none.jsonl") == ()


@has_pressure
@pytest.mark.parametrize("dry", [False, True])
def test_tuner_keeps_its_trail_and_a_dry_run_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dry: bool
) -> None:
    monkeypatch.setenv("HYPERBOX_STATE", str(tmp_path))
    with Tuning(TunerOptions(fast_swap="none", dry_run=dry)) as tuning:
        first = tuning.step()
        tuning.step()  # nothing new
    found = read_trail(audit.trail_file())
    assert len(found) <= 2  # the second one's state may have moved on a busy machine
    assert [one.pid for one in found[:1]] == ([] if dry else [os.getpid()])
    if found:
        rounded = replace(first, score=round(first.score, 2))
        assert found[0].decision.reason == rounded.reason


@has_pressure
def test_tuner_without_a_trail_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPERBOX_STATE", str(tmp_path))
    (tmp_path / "decisions.jsonl").mkdir()
    with Tuning(TunerOptions(fast_swap="none")) as tuning:
        said = tuning.step().changes
        assert said[-1].startswith("no trail: cannot keep the trail")
        assert not any("no trail" in change for change in tuning.step().changes)
