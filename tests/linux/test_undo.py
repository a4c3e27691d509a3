"""Changes of this machine itself, killed and undone; guests have the others."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from hyperbox import journal
from hyperbox.errors import KernelFeatureMissing, WorkloadError
from hyperbox.journal import UndoOutcome, begin
from hyperbox.linux.cgroup import CGROUP, Cgroup, cgroup, cgroup_root
from hyperbox.linux.knob import (
    KNOB,
    KnobChange,
    KnobTaken,
    changed,
    read_knob,
    same_setting,
    setting,
    sysctl,
    write_knob,
)
from hyperbox.linux.mounts import MOUNT, mounted, mounts
from hyperbox.linux.swap import swapping
from hyperbox.linux.undo import KINDS
from hyperbox.processes import spawn, stop
from hyperbox.repair import damage, repair
from tests.linux.crashing import killed_at, points_of

PROJECT = Path(__file__).parents[2]
HARMLESS = "vm.stat_interval"  # seconds between updates of counters

has_cgroup2 = pytest.mark.skipif(not mounts("cgroup2"), reason="cgroup v2 is not mounted")


def _writable() -> bool:
    return os.access(sysctl(HARMLESS), os.W_OK)


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERBOX_STATE", os.fspath(tmp_path / "state"))


@pytest.fixture
def knob(tmp_path: Path) -> Path:
    path = tmp_path / "knob"
    path.write_text("60")
    return path


@pytest.mark.parametrize(
    ("written", "read", "same"),
    [
        ("10", "10", True),
        ("10", "60", False),
        ("1", "Y", True),
        ("N", "0", True),
        ("1", "N", False),
        ("never", "always madvise [never]", True),
        ("never", "always [madvise] never", False),
        ("lz4", "lzo [lz4]", True),
        ("4096 131072 6291456", "4096\t131072\t6291456", True),
        ("4096 131072 6291456", "4096\t131072\t6291457", False),
        ("50000000", str(50000000 // 4096 * 4096), True),
        ("100", "0", False),
        ("5000", "4097", False),
        ("max", "max", True),
    ],
)
def test_what_kernels_make_of_a_value(written: str, read: str, same: bool) -> None:
    assert same_setting(written, read) is same


@pytest.mark.parametrize(
    ("text", "value"),
    [("60", "60"), ("always [madvise] never", "madvise"), ("[only]", "[only]"), ("", "")],
)
def test_a_choice_is_written_as_its_word(text: str, value: str) -> None:
    assert setting(text) == value


def test_a_knob_may_be_applied_often_and_restored_once(knob: Path) -> None:
    change = KnobChange(knob)
    assert (change.original, change.ours, change.held()) == ("60", None, False)
    assert change.restore() is UndoOutcome.NOTHING
    for value in (10, 20, 30):
        assert change.apply(value) == str(value)
        assert (change.ours, change.held()) == (str(value), True)
    assert change.restore() is UndoOutcome.UNDONE
    assert (read_knob(knob), change.held(), change.restore()) == ("60", False, UndoOutcome.NOTHING)
    with change:
        change.apply(40)
    assert read_knob(knob) == "60"


def test_a_knob_that_was_taken_is_given_up(knob: Path) -> None:
    with KnobChange(knob) as change:
        change.apply(10)
        write_knob(knob, 33)
        assert not change.held()
        with pytest.raises(KnobTaken, match="holds '33', not our '10'"):
            change.apply(20)
    assert read_knob(knob) == "33"


def test_a_knob_that_vanishes_is_no_error_at_the_end(knob: Path) -> None:
    with KnobChange(knob) as change:
        change.apply(10)
        knob.unlink()
        assert not change.held()
        with pytest.raises(KernelFeatureMissing):
            change.apply(20)
    assert not knob.exists()


@pytest.mark.root
def test_a_knob_that_cannot_be_written_back_stays_on_record_until_it_can(knob: Path) -> None:
    change = KnobChange(knob)
    change.apply(10)
    subprocess.run(["mount", "--bind", knob, knob], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", knob], check=True)
        with pytest.raises(WorkloadError, match="Read-only file system"):
            change.restore()
    finally:
        subprocess.run(["umount", knob], check=True)
    assert len(journal.on_record(KNOB, knob)) == 1
    assert (read_knob(knob), change.held()) == ("10", True)
    assert change.restore() is UndoOutcome.UNDONE
    assert (read_knob(knob), journal.on_record(KNOB, knob)) == ("60", ())


@pytest.mark.root
@pytest.mark.skipif(not _writable(), reason=f"{HARMLESS} cannot be written here")
def test_a_refused_value_leaves_nothing_on_record() -> None:
    before = read_knob(sysctl(HARMLESS))
    with pytest.raises(WorkloadError, match="Invalid argument"):
        KnobChange(sysctl(HARMLESS)).apply("many")
    assert journal.on_record(KNOB, sysctl(HARMLESS)) == ()
    with KnobChange(sysctl(HARMLESS)) as change:
        change.apply(int(before) + 1)
        with pytest.raises(WorkloadError, match="Invalid argument"):
            change.apply("many")
        assert change.held()
    assert read_knob(sysctl(HARMLESS)) == before


@pytest.mark.root
@pytest.mark.skipif(not _writable(), reason=f"{HARMLESS} cannot be written here")
def test_a_real_sysctl_comes_back_from_any_kill() -> None:
    path = sysctl(HARMLESS)
    before = read_knob(path)

    def body() -> None:
        with changed(path, int(before) + 1), changed(path, int(before) + 2):
            pass

    seen = set()
    for line in _some(points_of(body, often=1), 40):
        killed_at(body, line)
        seen.add(read_knob(path))
        seen.update(damage(KINDS))
        repair(KINDS)
        assert read_knob(path) == before
    assert f"{HARMLESS} is {int(before) + 1}, was {before}" in seen


@has_cgroup2
@pytest.mark.root
def test_a_real_cgroup_goes_away_after_any_kill() -> None:
    root, made = cgroup_root(), []
    name = f"hyperbox-kill-{os.getpid()}"

    def body() -> None:
        with cgroup(name):
            pass

    for line in _some(points_of(body, often=1), 40):
        killed_at(body, line)
        made += list(root.glob(name))
        assert {one.outcome for one in repair(KINDS)} <= {UndoOutcome.UNDONE, UndoOutcome.NOTHING}
        assert list(root.glob(f"{name}*")) == []
    assert made


@has_cgroup2
@pytest.mark.root
def test_a_cgroup_goes_with_what_was_made_in_it() -> None:
    with cgroup(f"hyperbox-nest-{os.getpid()}") as group:
        inner = group.directory / "inner" / "innermost"
        inner.mkdir(parents=True)
        process = spawn(["sleep", "60"])
        try:
            Cgroup(inner).add(process.pid)
        except BaseException:
            stop(process)
            raise
    try:
        assert not group.directory.exists()
        assert process.poll() is None
    finally:
        stop(process)


@has_cgroup2
@pytest.mark.root
def test_a_cgroup_made_again_is_somebody_elses() -> None:
    directory = cgroup_root() / f"hyperbox-again-{os.getpid()}"
    directory.mkdir()
    try:
        record = begin(CGROUP, directory, inode=directory.stat().st_ino + 1)
        assert record.undo() is UndoOutcome.NOTHING
        assert directory.exists()
        with pytest.raises(WorkloadError, match="File exists"), cgroup(directory.name):
            pass
        assert directory.exists()
    finally:
        Cgroup(directory).remove()


@pytest.mark.root
def test_the_last_user_of_a_mount_unmounts_it(tmp_path: Path) -> None:
    kind = next((k for k in ("pstore", "binfmt_misc", "configfs", "tracefs") if _mountable(k)), "")
    if not kind:
        pytest.skip("every file system type that could be tried is mounted or unknown")
    point = tmp_path / "point"
    point.mkdir()
    with mounted(kind, point):
        with mounted(kind, tmp_path / "elsewhere") as where:
            assert where == point
        assert mounts(kind)[0].point == point
        assert len(journal.on_record(MOUNT, point)) == 1
    assert not mounts(kind)


def _mountable(kind: str) -> bool:
    known = Path("/proc/filesystems").read_text().split()
    return kind in known and not mounts(kind)


def test_a_device_that_cannot_be_formatted_leaves_nothing_on_record(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="mkswap"), swapping(tmp_path / "absent"):
        pass
    assert not list(journal.state_directory().glob("*.jsonl"))


def test_the_program_says_what_it_did(knob: Path) -> None:
    _die(lambda: KnobChange(knob).apply(10))
    assert _repair_program() == (0, f"undone: {knob} is 10, was 60\n")
    assert _repair_program() == (0, "")
    _die(lambda: KnobChange(knob).apply(10))
    knob.unlink()
    knob.mkdir()
    status, said = _repair_program()
    assert status == 3
    assert said.startswith(f"cannot be undone: knob {knob}: ")
    assert said.count("\n") == 1


@pytest.mark.root
def test_another_user_is_told_who_can_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own is for its user alone
        place = Path(name)
        place.chmod(0o755)
        monkeypatch.setenv("HYPERBOX_STATE", os.fspath(place / "state"))
        knob = place / "knob"
        knob.write_text("60\n")
        _die(lambda: KnobChange(knob).apply(10))
        assert _as_nobody(_is_told_to_run_as_another)
        assert [one.outcome for one in repair(KINDS)] == [UndoOutcome.UNDONE]


def _is_told_to_run_as_another() -> bool:
    (one,) = repair(KINDS)
    return one.outcome is UndoOutcome.FAILED and "run as" in one.reason


def _as_nobody(question: Callable[[], bool]) -> bool:
    child = os.fork()
    if child == 0:
        right = False
        try:  # it must not go on as a second pytest
            os.setuid(65534)
            right = question()
        finally:
            os._exit(0 if right else 1)
    return os.waitpid(child, 0)[1] == 0


def _some(points: list[int], count: int) -> list[int]:
    return random.Random(1).sample(points, min(count, len(points)))


def _die(change: Callable[[], object]) -> None:
    child = os.fork()
    if child == 0:
        change()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


def _repair_program() -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "hyperbox.linux.undo"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout
