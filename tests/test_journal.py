"""The journal: on disk before the change, whatever is cut short, whoever else is there."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperbox import journal
from hyperbox.errors import HarnessError, WorkloadError
from hyperbox.journal import ChangeKind, Sharing, UndoOutcome
from hyperbox.linux.knob import KnobChange, changed
from hyperbox.records import Change, read_directory, this_process

undone: list[str] = []


def _undo(change: Change) -> UndoOutcome:
    undone.append(change.subject)
    return UndoOutcome.UNDONE


def kind(sharing: Sharing = Sharing.ANY) -> ChangeKind:
    return ChangeKind("test", lambda change: change.subject, _undo, sharing)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HYPERBOX_STATE", os.fspath(tmp_path / "state"))
    undone.clear()
    return journal.state_directory()


def outstanding(state: Path) -> list[str]:
    return [change.subject for change in read_directory(state)]


@contextlib.contextmanager
def another_process(kind: ChangeKind, subject: str) -> Iterator[None]:
    """Have a second process hold a change; it undoes nothing."""
    said, tell = os.pipe()
    heard, end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(end)
        journal.begin(kind, subject)
        os.write(tell, b"x")
        os.read(heard, 1)
        os._exit(0)
    os.read(said, 1)
    try:
        yield
    finally:
        os.close(end)
        os.waitpid(child, 0)
        for descriptor in (said, tell, heard):
            os.close(descriptor)


def test_a_change_is_on_record_before_and_gone_after(state: Path) -> None:
    with journal.undoing(kind(), "first", size=3) as record:
        (change,) = read_directory(state)
        assert change == record.change
        assert (change.owner, change.facts) == (this_process(), {"size": 3})
        record.note(size=4, names=["a"])
        assert read_directory(state)[0].facts == {"size": 4, "names": ["a"]}
        with journal.undoing(kind(), "second"):
            assert outstanding(state) == ["second", "first"]
        assert undone == ["second"]
        assert outstanding(state) == ["first"]
    assert undone == ["second", "first"]
    assert not list(state.glob("*.jsonl"))


def test_what_cannot_be_undone_stays_on_record(state: Path) -> None:
    def refuse(_change: Change) -> UndoOutcome:
        raise WorkloadError("planted")

    record = journal.begin(ChangeKind("test", str, refuse), "stuck")
    with pytest.raises(WorkloadError, match="planted"):
        record.undo()
    assert outstanding(state) == ["stuck"]
    record.forget()


def test_a_long_life_does_not_grow_the_file(state: Path) -> None:
    with journal.undoing(kind(), "kept", first=1), journal.undoing(kind(), "noted") as record:
        for number in range(3000):
            record.note(number=number, padding="x" * 50)
        (path,) = state.glob("*.jsonl")
        assert path.stat().st_size < 80_000
        noted, kept = read_directory(state)
        assert (noted.facts["number"], kept.facts) == (2999, {"first": 1})
    assert not list(state.iterdir()) or [p.name for p in state.iterdir()] == ["lock"]


def test_one_process_at_a_time(state: Path) -> None:
    alone = kind(Sharing.NONE)
    with another_process(alone, "/knob"):
        with pytest.raises(WorkloadError, match=r"/knob is being changed by process \d+ already"):
            journal.begin(alone, "/knob")
        assert outstanding(state) == ["/knob"]
        journal.begin(alone, "/other").undo()
    record = journal.begin(alone, "/knob")  # the other has ended, its record is for a repair
    journal.begin(alone, "/knob").undo()  # the same process may nest
    record.undo()


def test_the_last_process_undoes(state: Path) -> None:
    shared = kind(Sharing.LAST)
    record = journal.begin(shared, "point")
    with another_process(shared, "point"):
        assert record.undo() is UndoOutcome.SHARED
        assert undone == []
    again = journal.begin(shared, "point")
    assert again.undo() is UndoOutcome.UNDONE


def test_a_forked_child_leaves_its_parents_changes_alone(state: Path) -> None:
    with journal.undoing(kind(), "mine") as record:
        child = os.fork()
        if child == 0:
            os._exit(0 if record.undo() is UndoOutcome.SHARED else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert outstanding(state) == ["mine"]


def test_threads_share_a_file(state: Path) -> None:
    def work(number: int) -> None:
        for _ in range(20):
            with journal.exclusively(), journal.exclusively():
                pass
            with journal.undoing(kind(), f"thread {number}") as record:
                record.note(step=1)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    with journal.undoing(kind(), "main"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outstanding(state) == ["main"]
    assert len(undone) == 81


def test_without_a_journal_nothing_is_changed(tmp_path: Path, state: Path) -> None:
    state.parent.write_text("a file where the directory should be")
    knob = tmp_path / "knob"
    knob.write_text("60")
    with pytest.raises(HarnessError, match="cannot keep the journal") as caught, changed(knob, 10):
        pass
    assert "HYPERBOX_STATE" in caught.value.hint
    assert knob.read_text() == "60"


@pytest.fixture
def full_disk(state: Path) -> Iterator[Path]:
    state.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", state], check=True)
    try:
        yield state
    finally:
        subprocess.run(["umount", state], check=True)


@pytest.mark.root
@pytest.mark.parametrize("space_comes_back", [False, True])
def test_a_full_disk_stops_changes_not_their_undoing(
    tmp_path: Path, full_disk: Path, space_comes_back: bool
) -> None:
    path = tmp_path / "knob"
    path.write_text("000060")  # a plain file keeps what a shorter value does not cover

    def apply_many(knob: KnobChange) -> None:
        for value in range(2000):
            knob.apply(f"{value:06}")

    with KnobChange(path) as knob:
        knob.apply("000010")
        (full_disk / "filler").write_bytes(bytes(4096))  # the journal keeps the rest of its page
        with pytest.raises(HarnessError, match="No space left"):
            apply_many(knob)
        assert path.read_text() == knob.ours
        if space_comes_back:
            (full_disk / "filler").unlink()
            knob.apply("000011")  # a line was cut short; the next ones are whole
            assert read_directory(full_disk)[0].facts["ours"] == "000011"
    assert path.read_text() == "000060"
    assert not list(full_disk.glob("*.jsonl"))


@pytest.mark.root
def test_what_others_wrote_is_not_trusted(state: Path, tmp_path: Path) -> None:
    record = journal.begin(kind(), "mine")
    (path,) = state.glob("*.jsonl")
    theirs = path.with_name(path.name.replace(str(os.getpid()), "1", 1))
    theirs.write_text(path.read_text())
    assert outstanding(state) == ["mine", "mine"]
    os.chown(theirs, 65534, 65534)
    assert outstanding(state) == ["mine"]
    theirs.unlink()
    (tmp_path / "planted").write_text(path.read_text())
    theirs.symlink_to(tmp_path / "planted")
    assert outstanding(state) == ["mine"]
    theirs.unlink()
    os.mkfifo(theirs)  # must not hang either
    assert outstanding(state) == ["mine"]
    record.undo()


def test_the_state_directory_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYPERBOX_STATE")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    own, roots = journal.state_directories()
    assert own == Path("/run/user/7/hyperbox/journal")
    assert roots == Path("/run/hyperbox/journal")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert journal.state_directory() == Path("/state/hyperbox/journal")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/seven")
    assert journal.state_directory() == Path("/home/seven/.local/state/hyperbox/journal")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert journal.state_directories() == (roots,)
