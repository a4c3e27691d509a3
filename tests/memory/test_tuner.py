"""The tuner with planted actuators: what it makes, takes back, and does with refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperbox.errors import HyperboxError, KernelFeatureMissing, WorkloadError
from hyperbox.memory.decisions import Action, Decision, Rules, StepStatus, TunerState
from hyperbox.memory.readings import SECOND_NS, Reading
from hyperbox.memory.tuner import Tuner


class Planted:
    """An actuator over one value of a dictionary; its faults are the test's."""

    title = "planted"

    def __init__(self, name: str, machine: dict[str, int]) -> None:
        self.name = name
        self.machine = machine
        self.missing = ""
        self.refuses: HyperboxError | None = None
        self.keeps: HyperboxError | None = None
        self.ticks = 0
        self.original: int | None = None

    def unavailable(self) -> str:
        return self.missing

    def apply(self) -> tuple[str, ...]:
        if self.refuses:
            raise self.refuses
        assert self.original is None, "made twice"
        self.original = self.machine[self.name]
        self.machine[self.name] = self.original + 1
        return (f"{self.name} changed",)

    def tick(self) -> tuple[str, ...]:
        self.ticks += 1
        return ()

    def lost(self) -> bool:
        return self.original is not None and self.machine[self.name] != self.original + 1

    def revert(self, *, calm: bool) -> tuple[str, ...]:
        original, self.original = self.original, None
        if self.keeps:
            raise self.keeps
        if original is not None and self.machine[self.name] == original + 1:
            self.machine[self.name] = original
        return (f"{self.name} put back",)


class Bench:
    """A tuner over planted actuators, fed with pressure."""

    def __init__(self, **more: object) -> None:
        self.machine = {"one": 10, "two": 20, "ahead": 30}
        self.before = dict(self.machine)
        self.one, self.two, self.ahead = (Planted(name, self.machine) for name in self.machine)
        self.reading = Reading(SECOND_NS, 0, 0, 0, swaps=frozenset({"/dev/sda2"}))
        self.swaps = self.reading.swaps
        self.tuner = Tuner(
            [self.one, self.two],
            [self.ahead],
            rules=Rules(),
            swaps=lambda: self.swaps,
            **more,  # type: ignore[arg-type]
        )

    def feed(self, percent: float, **more: object) -> Decision:
        now = replace(
            self.reading,
            time_ns=self.reading.time_ns + 5 * SECOND_NS,
            memory_some_us=self.reading.memory_some_us + int(percent * 50_000),
            swaps=self.swaps,
        )
        self.reading = replace(now, **more)  # type: ignore[arg-type]
        return self.tuner.step(self.reading)

    def until(self, wanted: Action, percent: float) -> Decision:
        for _ in range(60):
            decision = self.feed(percent)
            if decision.action is wanted:
                return decision
        raise AssertionError(f"no {wanted}")


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_what_is_decided_is_made_and_said(bench: Bench) -> None:
    assert bench.feed(0).changes == ("ahead changed",)
    applied = bench.until(Action.APPLY, 90)
    assert (applied.step, applied.changes) == ("one", ("one changed",))
    assert bench.machine == {"one": 11, "two": 20, "ahead": 31}
    assert bench.tuner.made == ("ahead", "one")
    reverted = bench.until(Action.REVERT, 90)
    assert reverted.changes == ("one put back",)
    assert bench.machine["one"] == 10


def test_end_takes_everything_back_last_first(bench: Bench) -> None:
    bench.until(Action.APPLY, 90)
    bench.until(Action.KEEP, 84)
    bench.until(Action.APPLY, 84)
    done = bench.tuner.close()
    assert [decision.step for decision in done] == ["two", "one", "ahead"]
    assert bench.machine == bench.before
    assert bench.tuner.close() == ()


def test_dry_run_decides_the_same_and_changes_nothing() -> None:
    real, dry = Bench(), Bench(dry_run=True)
    loads = [0, 90, 90, 90, 90, 84, 84, 84, 84, 84, 5, 5] + [5] * 20
    for percent in loads:
        done, said = real.feed(percent), dry.feed(percent)
        assert replace(done, changes=()) == said
        assert dry.machine == dry.before
    assert dry.tuner.close() == ()


@pytest.mark.parametrize(
    "fault",
    [
        WorkloadError("cannot write '0' to /proc/sys/vm/page-cluster: Operation not permitted"),
        KernelFeatureMissing("cannot read /sys/fs/cgroup/a/memory.high: No such file or directory"),
        KernelFeatureMissing("no module zram"),
    ],
)
def test_refusal_is_on_record_and_the_next_step_is_tried(
    bench: Bench, fault: HyperboxError
) -> None:
    bench.one.refuses = fault
    refused = bench.until(Action.REFUSED, 90)
    assert (refused.step, refused.reason) == ("one", fault.message)
    assert bench.until(Action.APPLY, 90).step == "two"
    bench.tuner.close()
    assert bench.machine == bench.before


def test_preparation_that_fails_does_not_stop_the_steps(bench: Bench) -> None:
    bench.ahead.refuses = KernelFeatureMissing("no module zram")
    assert bench.feed(0).action is Action.REFUSED
    assert bench.until(Action.APPLY, 90).step == "one"


def test_missing_step_is_said_and_never_made(bench: Bench) -> None:
    bench.one.missing = "this kernel has none"
    assert bench.feed(0).action is Action.PREPARE  # probed after it
    assert bench.until(Action.APPLY, 90).step == "two"
    views = {view.name: view for view in bench.tuner.status().steps}
    assert views["one"].unavailable == "this kernel has none"


def test_step_that_becomes_possible_is_found_when_swap_is_plugged_in(bench: Bench) -> None:
    bench.ahead.missing = "there is no disk swap"
    bench.tuner = Tuner([bench.one], [bench.ahead], swaps=lambda: bench.swaps)
    first = bench.feed(0)
    assert first.changes == ("ahead cannot be made: there is no disk swap",)
    assert first.noteworthy
    for _ in range(3):
        assert not bench.feed(0).noteworthy
    bench.ahead.missing = ""
    bench.swaps = bench.swaps | {"/dev/sdb1"}
    assert "/dev/sdb1 is new" in bench.feed(0).reason
    assert bench.feed(0).step == "ahead"


def test_a_relief_is_made_while_other_steps_are_not_due() -> None:
    bench = Bench()
    bench.tuner = Tuner([bench.one, bench.two], reliefs=["two"], swaps=lambda: bench.swaps)
    assert bench.until(Action.APPLY, 50).step == "two"


def test_own_swap_area_is_no_surprise(bench: Bench) -> None:
    applied = bench.ahead.apply

    def with_area() -> tuple[str, ...]:
        bench.swaps = bench.swaps | {"/dev/zram0"}
        return applied()

    bench.ahead.apply = with_area  # type: ignore[method-assign]
    assert bench.feed(0).action is Action.PREPARE
    assert "swap areas changed" not in bench.feed(0).reason


def test_failed_undo_is_said_and_does_not_stop_the_others(bench: Bench) -> None:
    bench.until(Action.APPLY, 90)
    bench.one.keeps = WorkloadError("cannot write '3': Operation not permitted")
    done = bench.tuner.close()
    assert "not wholly put back: cannot write '3'" in done[0].reason
    assert bench.tuner.left == ("one: cannot write '3': Operation not permitted",)
    assert bench.machine["ahead"] == bench.before["ahead"]


def test_value_that_somebody_else_gave_is_theirs(bench: Bench) -> None:
    bench.until(Action.APPLY, 90)
    bench.machine["one"] = 77
    said = bench.feed(90).changes
    assert said[0] == "one was undone by somebody else and is left alone"
    assert "one" not in bench.tuner.made
    bench.tuner.close()
    assert bench.machine["one"] == 77


def test_momentary_work_is_repeated_while_it_is_applied(bench: Bench) -> None:
    bench.until(Action.APPLY, 90)
    assert bench.one.ticks == 0  # it was done by making it
    ticks = bench.one.ticks
    bench.feed(90)
    assert bench.one.ticks == ticks + 1
    bench.until(Action.REVERT, 90)
    ticks = bench.one.ticks
    bench.feed(0)
    assert bench.one.ticks == ticks


def test_status_never_changes_under_its_reader_and_is_json(bench: Bench) -> None:
    bench.feed(0)
    held = bench.tuner.status()
    said = json.dumps(held.as_json())
    bench.until(Action.APPLY, 95)
    bench.until(Action.KEEP, 85)
    assert json.dumps(held.as_json()) == said
    now = bench.tuner.status()
    assert now.state is TunerState.HOLD
    assert [view.status for view in now.steps if view.name == "ahead"] == [StepStatus.PREPARED]
    assert now.trail[-1].action is Action.KEEP
    for _ in range(200):
        bench.feed(0)
        bench.feed(100)
    assert len(bench.tuner.status().trail) <= 50


@given(
    st.lists(st.tuples(st.sampled_from([0, 10, 50, 85, 100]), st.integers(1, 20)), max_size=12),
    st.sets(st.sampled_from(["one.refuses", "two.refuses", "two.keeps", "ahead.refuses"])),
)
@settings(deadline=None)
def test_end_restores_every_original_whatever_happened(
    load: list[tuple[int, int]], faults: set[str]
) -> None:
    bench = Bench()
    fault = WorkloadError("planted")
    planted: Callable[[str], Planted] = lambda name: getattr(bench, name)  # noqa: E731
    for place in faults:
        name, what = place.split(".")
        setattr(planted(name), what, fault)
    for percent, times in load:
        for _ in range(times):
            bench.feed(percent)
    bench.tuner.close()
    if "two.keeps" in faults:  # what cannot be undone is the journal's
        bench.machine["two"] = bench.before["two"]
    assert bench.machine == bench.before
