"""Actuators over planted files: probing, changing, putting back, and what is never done."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hyperbox.errors import ConfigError, KernelFeatureMissing, WorkloadError
from hyperbox.journal import state_directory
from hyperbox.memory.actuators import KnobActuator, swappiness
from hyperbox.memory.fast_swap import FirstOf
from hyperbox.memory.reclaim import MemoryHighActuator, PageCacheActuator
from hyperbox.memory.tuning import FAST_SWAPS, STEPS, TunerOptions, actuators
from hyperbox.processes import spawn, stop
from hyperbox.records import read_directory

MIB = 1 << 20
HIGH = "900000000"  # a planted file is not cut like a kernel's: never shorter than what is written


@pytest.fixture(autouse=True)
def journal(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERBOX_STATE", str(tmp_path_factory.mktemp("state")))


def outstanding() -> list[str]:
    return [change.subject for change in read_directory(state_directory())]


@pytest.fixture
def knobs(tmp_path: Path) -> tuple[Path, Path]:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("1\n")
    two.write_text("N\n")
    return one, two


def test_settings_are_journalled_changed_and_put_back(knobs: tuple[Path, Path]) -> None:
    one, two = knobs
    actuator = KnobActuator("step", "a step", lambda: [(one, "5"), (two, "Y")])
    assert actuator.unavailable() == ""
    assert actuator.apply() == (f"{one} 1 -> 5", f"{two} N -> Y")
    assert outstanding() == [str(two), str(one)]
    assert not actuator.lost()
    assert actuator.revert(calm=True) == (f"{two} back to N", f"{one} back to 1")
    assert (one.read_text(), two.read_text()) == ("1\n", "N\n")
    assert outstanding() == []


def test_value_of_somebody_else_stays_and_is_said(knobs: tuple[Path, Path]) -> None:
    one, _ = knobs
    actuator = KnobActuator("step", "a step", lambda: [(one, "5")])
    actuator.apply()
    one.write_text("7")
    assert actuator.lost()
    assert "somebody else" in actuator.revert(calm=True)[0]
    assert one.read_text() == "7"


def test_half_made_step_is_put_back_on_any_end(knobs: tuple[Path, Path]) -> None:
    one, two = knobs
    gone = two.with_name("gone")
    actuator = KnobActuator("step", "a step", lambda: [(one, "5")])
    for fault in (gone, two):
        if fault is two:  # a signal in the middle: the second setting is never read
            two.unlink()
            two.mkdir()
        broken = KnobActuator("broken", "", lambda fault=fault: [(one, "5"), (fault, "1")])  # type: ignore[misc]
        with pytest.raises((KernelFeatureMissing, WorkloadError)):
            broken.apply()
        assert one.read_text().strip() == "1"
    assert actuator.unavailable() == ""
    assert outstanding() == []


def test_step_without_anything_to_change_is_unavailable(knobs: tuple[Path, Path]) -> None:
    one, _ = knobs
    assert "so already" in KnobActuator("step", "", lambda: [(one, "1")]).unavailable()
    missing = KnobActuator("step", "", lambda: [(one.with_name("none"), "1")])
    assert "No such file" in missing.unavailable()


@pytest.mark.parametrize("value", [-1, 0, 10, 19, 201])
def test_swappiness_is_never_below_twenty(value: int) -> None:
    with pytest.raises(ConfigError, match=f"swappiness {value} is outside 20"):
        swappiness(value, lambda: True)


def test_swappiness_stays_without_fast_swap() -> None:
    assert "no fast swap" in swappiness(100, lambda: False).unavailable()


class Rung:
    """A rung that works, is unavailable, or is refused."""

    title = ""

    def __init__(self, name: str, missing: str = "", refuses: str = "") -> None:
        self.name, self.missing, self.refuses = name, missing, refuses
        self.made = False

    def unavailable(self) -> str:
        return self.missing

    def apply(self) -> tuple[str, ...]:
        if self.refuses:
            raise WorkloadError(self.refuses)
        self.made = True
        return (f"{self.name} made",)

    def tick(self) -> tuple[str, ...]:
        return ()

    def lost(self) -> bool:
        return False

    def revert(self, *, calm: bool) -> tuple[str, ...]:
        self.made = False
        return (f"{self.name} undone",)


def test_ladder_takes_the_first_that_works_and_says_why() -> None:
    rungs = [Rung("a", missing="not built"), Rung("b", refuses="busy"), Rung("c"), Rung("d")]
    ladder = FirstOf("fast", "", rungs)
    assert ladder.unavailable() == ""
    assert ladder.apply() == ("c made", "no a: not built", "no b: busy")
    assert [rung.made for rung in rungs] == [False, False, True, False]
    assert ladder.revert(calm=True) == ("c undone",)


def test_ladder_without_a_rung_gives_every_reason() -> None:
    ladder = FirstOf("fast", "", [Rung("a", missing="not built"), Rung("b", missing="no disk")])
    assert ladder.unavailable() == "a: not built; b: no disk"
    with pytest.raises(KernelFeatureMissing, match="no a: not built; no b: no disk"):
        ladder.apply()


def group(path: Path, current: int, low: str = "0") -> Path:
    path.mkdir()
    (path / "memory.current").write_text(str(current))
    (path / "memory.low").write_text(low)
    (path / "memory.high").write_text(HIGH)
    return path


def test_memory_high_is_lowered_in_steps_and_put_back(tmp_path: Path) -> None:
    streamer = group(tmp_path / "streamer", 100 * MIB)
    steps = [MemoryHighActuator([streamer], level=level) for level in (1, 2)]
    assert steps[0].apply() == (f"streamer: memory.high {HIGH} -> {85 * MIB}",)
    (streamer / "memory.current").write_text(str(85 * MIB))
    steps[1].apply()
    assert (streamer / "memory.high").read_text().startswith(str(72 * MIB))
    assert not steps[0].lost()
    steps[1].revert(calm=True)
    steps[0].revert(calm=True)
    assert (streamer / "memory.high").read_text() == HIGH


@pytest.mark.parametrize(("current", "low"), [(10 * MIB, "0"), (100 * MIB, str(90 * MIB))])
def test_memory_high_spares_the_small_and_the_protected(
    tmp_path: Path, current: int, low: str
) -> None:
    streamer = group(tmp_path / "streamer", current, low)
    with pytest.raises(KernelFeatureMissing, match="uses enough"):
        MemoryHighActuator([streamer]).apply()
    assert (streamer / "memory.high").read_text() == HIGH


def test_cgroup_that_vanishes_is_passed_over(tmp_path: Path) -> None:
    streamer, other = group(tmp_path / "a", 100 * MIB), group(tmp_path / "b", 100 * MIB)
    actuator = MemoryHighActuator([streamer, other])
    actuator.apply()
    for file in streamer.iterdir():
        file.unlink()
    streamer.rmdir()
    assert not actuator.lost()
    actuator.revert(calm=False)
    assert (other / "memory.high").read_text() == HIGH
    assert outstanding() == []


def test_file_that_is_open_for_moments_is_found(tmp_path: Path) -> None:
    program = (
        "import sys, time\nprint(flush=True)\nwhile True:\n"
        "    time.sleep(0.02)\n    with open(sys.argv[1]):\n        time.sleep(0.02)\n"
    )
    (tmp_path / "small").write_text("page")
    reader = spawn([sys.executable, "-c", program, tmp_path / "small"], stdout=subprocess.PIPE)
    try:
        assert reader.stdout is not None
        reader.stdout.readline()
        (tmp_path / "cgroup.procs").write_text(f"{reader.pid}\n")
        for _ in range(10):
            assert "1 open files dropped" in PageCacheActuator([tmp_path]).apply()[0]
    finally:
        stop(reader)
    with pytest.raises(KernelFeatureMissing, match="no streaming cgroup has page cache"):
        PageCacheActuator([tmp_path]).apply()


def test_looking_for_open_files_takes_no_longer_for_many_cgroups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("hyperbox.memory.reclaim.time.sleep", slept.append)
    groups = [tmp_path / str(number) for number in range(30)]
    for directory in groups:
        directory.mkdir()
        (directory / "cgroup.procs").write_text("")
    assert PageCacheActuator(groups).tick() == ()
    assert 0 < sum(slept) <= 0.2  # a signal must find the tuner again within a second


def test_cgroup_that_has_gone_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("hyperbox.memory.reclaim.time.sleep", slept.append)
    assert PageCacheActuator([tmp_path / "gone"]).tick() == ()
    assert slept == []


def test_nobody_is_touched_who_was_not_named() -> None:
    for actuator in (PageCacheActuator([]), MemoryHighActuator([])):
        assert actuator.unavailable() == "no cgroup is named as streaming"


@pytest.mark.parametrize("fast", FAST_SWAPS)
def test_names_of_the_steps_are_what_simulation_plays(fast: str) -> None:
    steps, ahead = actuators(TunerOptions(fast_swap=fast))
    assert tuple(step.name for step in steps) == STEPS
    assert bool(ahead) is (fast != "none")
    names = [part.name for part in (*steps, *ahead)]
    assert len(names) == len(set(names))
