"""What killed processes left is undone, at whatever point they were killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hyperbox import journal
from hyperbox.journal import ChangeKind, UndoOutcome
from hyperbox.linux.knob import KNOB, KnobChange, changed, write_knob
from hyperbox.linux.undo import KINDS
from hyperbox.repair import damage, left_behind, repair
from tests.linux.crashing import killed_at, points_of


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HYPERBOX_STATE", os.fspath(tmp_path / "state"))
    return journal.state_directory()


@pytest.fixture
def knobs(tmp_path: Path) -> tuple[Path, Path]:
    found = (tmp_path / "one", tmp_path / "two")
    for path in found:
        path.write_text("60")
    return found


def outcomes() -> list[UndoOutcome]:
    return [one.outcome for one in repair(KINDS)]


def die_with(*changes: tuple[Path, str]) -> None:
    """Have a process make changes and kill itself."""
    child = os.fork()
    if child == 0:
        for path, value in changes:
            KnobChange(path).apply(value)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


@contextlib.contextmanager
def living_with(change: Callable[[], object]) -> Iterator[None]:
    """Have a process that has made a change and waits for the end of the block."""
    said, tell = os.pipe()
    heard, end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(end)
        kept = change()
        os.write(tell, b"x")
        os.read(heard, 1)
        os._exit(0 if kept is not None else 1)
    os.read(said, 1)
    try:
        yield
    finally:
        os.close(end)
        os.waitpid(child, 0)
        for descriptor in (said, tell, heard):
            os.close(descriptor)


def hold(path: Path, value: str) -> KnobChange:
    knob = KnobChange(path)
    knob.apply(value)
    return knob


def test_every_line_may_be_the_last_one(knobs: tuple[Path, Path], state: Path) -> None:
    one, two = knobs

    def body() -> None:
        with changed(one, 10), KnobChange(two) as knob, changed(one, 20):
            knob.apply(30)
            knob.apply(40)

    points = points_of(body, often=1)
    assert len(points) > 100
    left = 0
    for line in points:
        assert killed_at(body, line)
        left += bool(damage(KINDS))
        assert {one.outcome for one in repair(KINDS)} <= {UndoOutcome.UNDONE, UndoOutcome.NOTHING}
        assert [path.read_text() for path in knobs] == ["60", "60"], line
        assert not list(state.glob("*.jsonl"))
    assert left > 50  # else nothing was tested


def test_every_line_of_a_repair_may_be_its_last_one(knobs: tuple[Path, Path]) -> None:
    one, two = knobs

    def repair_all() -> None:
        repair(KINDS)

    die_with((one, "10"), (two, "20"))
    points = points_of(repair_all, often=1)
    for line in points:
        die_with((one, "10"), (two, "20"))
        assert killed_at(repair_all, line)
        assert set(outcomes()) <= {UndoOutcome.UNDONE, UndoOutcome.NOTHING}
        assert [path.read_text() for path in knobs] == ["60", "60"], line
    assert len(points) > 50  # else nothing was tested


def test_what_is_left_is_said_in_words_and_undone_once(knobs: tuple[Path, Path]) -> None:
    one, two = knobs
    die_with((one, "10"), (two, "20"))
    assert damage(KINDS) == (f"{two} is 20, was 60", f"{one} is 10, was 60")
    assert [str(done) for done in repair(KINDS)] == [
        f"undone: {two} is 20, was 60",
        f"undone: {one} is 10, was 60",
    ]
    assert damage(KINDS) == ()
    assert repair(KINDS) == ()


def test_changes_of_a_living_process_are_not_touched(knobs: tuple[Path, Path]) -> None:
    one, _ = knobs
    with living_with(lambda: hold(one, "10")):
        assert damage(KINDS) == ()
        assert repair(KINDS) == ()
        assert one.read_text() == "10"
    assert outcomes() == [UndoOutcome.UNDONE]  # it has ended without undoing


def test_a_dead_ones_change_waits_for_the_living_one_on_top_of_it(
    knobs: tuple[Path, Path],
) -> None:
    one, two = knobs
    die_with((one, "10"), (two, "10"))
    with living_with(lambda: hold(one, "20")):
        results = {done.change.subject: done for done in repair(KINDS)}
        assert results[os.fspath(two)].outcome is UndoOutcome.UNDONE
        assert results[os.fspath(one)].outcome is UndoOutcome.FAILED
        assert "is changing it now" in results[os.fspath(one)].reason
        assert one.read_text() == "20"
    assert outcomes() == [UndoOutcome.UNDONE, UndoOutcome.UNDONE]
    assert one.read_text() == "60"


def test_the_newest_is_undone_first_whoever_made_it(knobs: tuple[Path, Path]) -> None:
    one, _ = knobs
    for value in ("10", "20", "30"):
        die_with((one, value))
    assert outcomes() == [UndoOutcome.UNDONE] * 3
    assert one.read_text() == "60"


def test_what_somebody_else_changed_is_left_alone(knobs: tuple[Path, Path]) -> None:
    one, two = knobs
    die_with((one, "10"), (two, "20"))
    write_knob(one, "33")
    assert damage(KINDS) == (f"{two} is 20, was 60",)
    assert outcomes() == [UndoOutcome.UNDONE, UndoOutcome.FOREIGN]
    assert [one.read_text(), two.read_text()] == ["33", "60"]
    assert repair(KINDS) == ()


def test_what_has_vanished_needs_no_undoing(knobs: tuple[Path, Path]) -> None:
    one, two = knobs
    die_with((one, "10"), (two, "20"))
    one.unlink()
    assert damage(KINDS) == (f"{two} is 20, was 60",)
    assert outcomes() == [UndoOutcome.UNDONE, UndoOutcome.NOTHING]
    assert not one.exists()


def test_one_that_cannot_be_undone_holds_up_no_other(knobs: tuple[Path, Path]) -> None:
    one, two = knobs
    die_with((two, "10"), (one, "10"))
    one.unlink()
    one.mkdir()
    assert len(damage(KINDS)) == 2
    stuck, undone = repair(KINDS)
    assert (stuck.outcome, undone.outcome) == (UndoOutcome.FAILED, UndoOutcome.UNDONE)
    assert "Is a directory" in str(stuck)
    assert "\n" not in str(stuck)
    assert two.read_text() == "60"
    one.rmdir()
    one.write_text("10")
    assert outcomes() == [UndoOutcome.UNDONE]
    assert one.read_text() == "60"


def test_a_kind_of_a_newer_version_stays_on_record() -> None:
    child = os.fork()
    if child == 0:
        journal.begin(ChangeKind("future", str, lambda _: UndoOutcome.UNDONE), "thing")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (one,) = repair(KINDS)
    assert (
        str(one) == "cannot be undone: future thing: this version knows no changes of kind future"
    )
    assert damage(KINDS) == ("future thing",)


def test_an_earlier_boot_is_forgotten(knobs: tuple[Path, Path], state: Path) -> None:
    one, _ = knobs
    die_with((one, "10"))
    (path,) = state.glob("*.jsonl")
    pid, start, namespace, boot, ending = path.name.split(".")
    path.rename(path.with_name(f"{pid}.{start}.{namespace}.{boot[::-1]}.{ending}"))
    assert left_behind() == ()
    assert repair(KINDS) == ()
    assert one.read_text() == "10"  # set again since the boot by who knows whom
    assert not list(state.glob("*.jsonl"))


def test_a_recycled_number_is_not_taken_for_the_owner(
    knobs: tuple[Path, Path], state: Path
) -> None:
    one, _ = knobs
    die_with((one, "10"))
    (path,) = state.glob("*.jsonl")
    owner = left_behind()[0].owner
    mine = replace(owner, pid=os.getpid())
    path.rename(
        state / f"{mine.pid}.{mine.start}.{mine.namespace}.{mine.boot}.jsonl"
    )  # as if our number had been the dead one's
    assert outcomes() == [UndoOutcome.UNDONE]
    assert one.read_text() == "60"


def test_repairs_can_be_narrowed_to_processes(knobs: tuple[Path, Path]) -> None:
    one, two = knobs
    die_with((one, "10"))
    pid = left_behind()[0].owner.pid
    die_with((two, "10"))
    assert [done.change.subject for done in repair(KINDS, pids=[pid])] == [os.fspath(one)]
    assert [path.read_text() for path in knobs] == ["60", "10"]


def test_two_repairs_at_once_undo_each_change_once(tmp_path: Path) -> None:
    paths = [tmp_path / f"knob{number}" for number in range(40)]
    for path in paths:
        path.write_text("60")
    die_with(*((path, "10") for path in paths))
    program = [sys.executable, "-m", "hyperbox.linux.undo"]
    root = Path(__file__).parents[1]
    both = [subprocess.Popen(program, cwd=root, stdout=subprocess.PIPE) for _ in range(2)]
    said = b"".join(process.communicate(timeout=60)[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert said.count(b"undone: ") == len(said.splitlines()) == 40
    assert all(path.read_text() == "60" for path in paths)


def test_knobs_are_the_kind_on_record(knobs: tuple[Path, Path]) -> None:
    die_with((knobs[0], "10"))
    (change,) = left_behind()
    assert (change.kind, change.facts) == (
        KNOB.name,
        {"original": "60", "ours": "10", "intended": "10"},
    )
