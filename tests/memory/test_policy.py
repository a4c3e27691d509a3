"""The tuner's policy on planted readings: thresholds, trials, back-off, gaps, and properties."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperbox.memory.decisions import Action, Decision, Rules, StepStatus, TunerState
from hyperbox.memory.policy import Policy, decide, lost, refused
from hyperbox.memory.readings import SECOND_NS, GroupCounters, Reading

RULES = Rules()
STEP_NS = 5 * SECOND_NS


class Bench:
    """Feeds a policy with readings whose stall in each interval the test chooses."""

    def __init__(self, policy: Policy, rules: Rules = RULES) -> None:
        self.policy = policy
        self.rules = rules
        groups = {"/a": GroupCounters(0)}
        swaps = frozenset({"/dev/sda2"})
        self.reading = Reading(1000 * SECOND_NS, 0, 0, 0, groups=groups, swaps=swaps)
        self.decisions: list[Decision] = []
        self.decide()

    def decide(self) -> Decision:
        self.policy, decision = decide(self.policy, self.reading, self.rules)
        self.decisions.append(decision)
        return decision

    def feed(
        self,
        memory: float = 0.0,
        io: float = 0.0,
        *,
        swap_ins: float = 0.0,
        seconds: float = 5.0,
        refaults: float = 0.0,
        **more: object,
    ) -> Decision:
        """Let an interval pass: percent of stall, pages a second."""
        was = self.reading
        now = replace(
            was,
            time_ns=was.time_ns + int(seconds * SECOND_NS),
            memory_some_us=was.memory_some_us + int(memory * 1e4 * seconds),
            memory_full_us=was.memory_full_us + int(memory * 5e3 * seconds),
            io_some_us=was.io_some_us + int(io * 1e4 * seconds),
            swap_ins=was.swap_ins + int(swap_ins * seconds),
            groups={"/a": GroupCounters(was.groups["/a"].refaults + int(refaults * seconds))},
        )
        self.reading = replace(now, **more)  # type: ignore[arg-type]
        return self.decide()

    def until(self, wanted: Action, memory: float, limit: int = 60, **more: float) -> Decision:
        for _ in range(limit):
            decision = self.feed(memory, **more)
            if decision.action is wanted:
                return decision
        raise AssertionError(f"no {wanted} in {limit} readings: {self.decisions[-1]}")


@pytest.fixture
def bench() -> Bench:
    return Bench(Policy.of(["one", "two"]))


def test_thresholds_need_two_readings_each(bench: Bench) -> None:
    states = [bench.feed(memory).state for memory in (41, 39, 41, 41, 81, 41, 39, 39)]
    normal, watch = TunerState.NORMAL, TunerState.WATCH
    assert states == [normal, normal, normal, watch, watch, watch, watch, normal]


def test_above_eighty_twice_tries_the_first_step(bench: Bench) -> None:
    bench.feed(85)
    decision = bench.feed(85)
    assert (decision.action, decision.step, decision.state) == (
        Action.APPLY,
        "one",
        TunerState.HOLD,
    )
    assert "above 80 for 2 readings" in decision.reason
    assert decision.score == pytest.approx(85)


def test_exactly_the_threshold_is_not_above_it(bench: Bench) -> None:
    for _ in range(5):
        assert bench.feed(80).action is Action.NOTHING


def test_step_that_pays_is_kept_and_the_next_waits_for_its_trial(bench: Bench) -> None:
    bench.until(Action.APPLY, 95)
    kept = bench.until(Action.KEEP, 85)
    assert kept.step == "one"
    assert kept.time_ns - bench.decisions[2].time_ns == 15 * SECOND_NS
    second = bench.feed(85)
    assert (second.action, second.step) == (Action.APPLY, "two")


def test_step_that_does_not_pay_is_reverted_and_backs_off_twice_as_long(bench: Bench) -> None:
    bench.policy = Policy.of(["one"])
    waits = []
    for _ in range(4):
        bench.until(Action.APPLY, 90, limit=400)
        reverted = bench.until(Action.REVERT, 90)
        assert "did not fall by 3%" in reverted.reason
        step = bench.policy.steps["one"]
        waits.append((step.not_before_ns - reverted.time_ns) // SECOND_NS)
    assert waits == [60, 120, 240, 480]
    assert "back-off" in bench.feed(90).reason


@pytest.mark.parametrize("interval", [1.0, 2.5, 5.0, 7.0, 30.0])
@pytest.mark.parametrize("late", [0.0, 0.2])
def test_every_interval_can_be_measured_by_and_late_readings_too(
    interval: float, late: float
) -> None:
    bench = Bench(Policy.of(["one"]), replace(RULES, interval_s=interval))
    for number in range(60):
        jitter = late * interval * (number % 2)
        decision = bench.feed(95 if bench.policy.trial is None else 85, seconds=interval + jitter)
        if decision.action is Action.KEEP:
            return
    raise AssertionError(bench.decisions[-1])


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [(99, 97, True), (99, 99, False), (95, 94, True), (95, 94.5, False), (89, 88, False)],
)
def test_saturated_load_is_judged_by_the_time_left_for_work(
    bench: Bench, before: float, after: float, kept: bool
) -> None:
    bench.until(Action.APPLY, before)
    bench.until(Action.KEEP if kept else Action.REVERT, after)
    kept_steps = ("one",) if kept else ()
    assert bench.policy.kept == kept_steps


def test_storage_counts_only_while_pages_come_back(bench: Bench) -> None:
    for _ in range(4):
        assert bench.feed(5, io=95).score == pytest.approx(5)
    assert bench.feed(5, io=95, swap_ins=100).score == pytest.approx(95)
    assert bench.feed(5, io=95, swap_ins=100).action is Action.APPLY


def test_step_that_trades_memory_for_storage_stall_is_reverted(bench: Bench) -> None:
    bench.until(Action.APPLY, 90, io=30)
    assert "storage pressure did not fall" in bench.until(Action.REVERT, 50, io=40).reason


def test_step_that_takes_from_another_cgroup_is_reverted(bench: Bench) -> None:
    bench.until(Action.APPLY, 90, refaults=1000)
    reverted = bench.until(Action.REVERT, 50, refaults=1400)
    assert "refaults of /a rose from 1000 to 1400" in reverted.reason


def test_calm_for_a_minute_gives_back_what_is_kept_last_first(bench: Bench) -> None:
    bench.until(Action.APPLY, 95)
    bench.until(Action.KEEP, 90)
    bench.until(Action.APPLY, 90)
    bench.until(Action.KEEP, 85)
    began = bench.reading.time_ns
    first = bench.until(Action.RESTORE, 5)
    assert first.time_ns - began == 60 * SECOND_NS
    assert (first.step, first.state) == ("two", TunerState.RELAX)
    second = bench.feed(5)
    assert (second.action, second.step, second.state) == (
        Action.RESTORE,
        "one",
        TunerState.NORMAL,
    )


def relieved() -> Bench:
    return Bench(Policy.of(["relief", "other"], reliefs=["relief"]))


def test_relief_is_tried_as_soon_as_memory_is_watched() -> None:
    bench = relieved()
    applied = bench.until(Action.APPLY, 41)
    assert (applied.step, applied.state) == ("relief", TunerState.HOLD)
    assert applied.reason == "score 41.0 above 40 for 2 readings"
    assert bench.until(Action.KEEP, 70).step == "relief"  # pressure rose: not by the relief
    assert all(bench.feed(79).action is Action.NOTHING for _ in range(20))
    assert bench.until(Action.APPLY, 81).step == "other"


def test_relief_that_somebody_misses_is_reverted() -> None:
    bench = relieved()
    bench.until(Action.APPLY, 60)
    decision = bench.until(Action.REVERT, 10, refaults=500)
    assert decision.reason.endswith("refaults of /a rose from 0 to 500 a working second")
    assert all(bench.feed(60).action is Action.NOTHING for _ in range(11))
    assert bench.until(Action.APPLY, 60).step == "relief"


def test_relief_is_given_back_on_calm() -> None:
    bench = relieved()
    bench.until(Action.KEEP, 60)
    assert bench.until(Action.RESTORE, 10).step == "relief"
    assert bench.policy.state is TunerState.NORMAL


def test_twenty_is_not_calm(bench: Bench) -> None:
    bench.until(Action.APPLY, 95)
    bench.until(Action.KEEP, 85)
    for _ in range(40):
        assert bench.feed(20.1).action is Action.NOTHING


def test_relapse_doubles_the_calm_that_is_asked_for(bench: Bench) -> None:
    bench.policy = Policy.of(["one"])
    lengths = []
    for _ in range(3):
        bench.until(Action.APPLY, 95)
        bench.until(Action.KEEP, 85)
        began = bench.reading.time_ns
        lengths.append((bench.until(Action.RESTORE, 5).time_ns - began) // SECOND_NS)
    assert lengths == [60, 120, 240]


def test_pressure_that_returns_while_relaxing_stops_giving_back(bench: Bench) -> None:
    bench.until(Action.APPLY, 95)
    bench.until(Action.KEEP, 90)
    bench.until(Action.APPLY, 90)
    bench.until(Action.KEEP, 85)
    bench.until(Action.RESTORE, 5)
    bench.policy = replace(bench.policy, above_watch=1)
    decision = bench.feed(60)
    assert (decision.action, decision.state) == (Action.NOTHING, TunerState.HOLD)
    assert bench.policy.kept == ("one",)


@pytest.mark.parametrize("how", ["stopped", "slept", "backwards", "counter"])
def test_nothing_is_concluded_across_a_gap(bench: Bench, how: str) -> None:
    bench.until(Action.APPLY, 90)
    was = bench.reading
    if how == "stopped":
        decision = bench.feed(10, seconds=17)
    elif how == "slept":
        decision = bench.feed(10, suspended_ns=2 * SECOND_NS)
    elif how == "backwards":
        decision = bench.feed(10, time_ns=was.time_ns - SECOND_NS)
    else:
        decision = bench.feed(10, memory_some_us=was.memory_some_us - 1)
    assert (decision.action, decision.step) == (Action.REVERT, "one")
    assert "gap" in decision.reason
    assert bench.policy.steps["one"].failures == 0
    assert bench.feed(90).action is Action.NOTHING  # one reading confirms nothing


def test_gap_restarts_the_minute_of_calm(bench: Bench) -> None:
    bench.until(Action.APPLY, 95)
    bench.until(Action.KEEP, 85)
    for _ in range(11):
        assert bench.feed(5).action is Action.NOTHING
    assert bench.feed(5, suspended_ns=3600 * SECOND_NS).action is Action.NOTHING
    for _ in range(11):
        assert bench.feed(5).action is Action.NOTHING
    assert bench.feed(5).action is Action.RESTORE


def test_preparation_comes_first_and_is_not_given_back_by_calm() -> None:
    bench = Bench(Policy.of(["one"], ["zram"]))
    assert (bench.decisions[0].action, bench.decisions[0].step) == (Action.PREPARE, "zram")
    for _ in range(40):
        assert bench.feed(1).action is Action.NOTHING
    assert bench.policy.steps["zram"].status is StepStatus.PREPARED


def test_swap_area_that_comes_or_goes_is_noticed(bench: Bench) -> None:
    bench.until(Action.APPLY, 90)
    decision = bench.feed(90, swaps=frozenset({"/dev/sdb1"}))
    assert decision.action is Action.REVERT
    assert "/dev/sda2 is gone, /dev/sdb1 is new" in decision.reason


def test_refused_step_waits_and_the_next_is_tried(bench: Bench) -> None:
    decision = bench.until(Action.APPLY, 90)
    bench.policy, shown = refused(bench.policy, decision, "cannot write", RULES)
    assert (shown.action, shown.reason) == (Action.REFUSED, "cannot write")
    assert (bench.policy.trial, bench.policy.kept) == (None, ())
    assert bench.until(Action.APPLY, 90).step == "two"


def test_unavailable_step_is_passed_over(bench: Bench) -> None:
    bench.policy = bench.policy.with_unavailable({"one": "no such file"})
    assert bench.until(Action.APPLY, 90).step == "two"
    bench.policy = bench.policy.with_unavailable({"two": "gone"})
    bench.until(Action.REVERT, 90)
    assert "no step can be made here" in bench.feed(90).reason


def test_lost_step_is_no_longer_kept(bench: Bench) -> None:
    bench.until(Action.APPLY, 95)
    bench.until(Action.KEEP, 85)
    bench.policy = lost(bench.policy, "one", RULES)
    assert bench.policy.kept == ()
    assert bench.policy.steps["one"].status is StepStatus.IDLE


# Properties: whatever the pressure does

loads = st.lists(
    st.tuples(
        st.sampled_from([0.0, 10.0, 19.0, 30.0, 50.0, 79.0, 85.0, 100.0]),
        st.sampled_from([0.0, 60.0, 90.0]),
        st.sampled_from([0.0, 200.0]),
        st.sampled_from([5.0, 5.0, 5.0, 4.9, 5.2, 30.0]),
        st.integers(1, 30),
    ),
    max_size=30,
)


def played(load: list[tuple[float, float, float, float, int]]) -> Iterator[tuple[Bench, Decision]]:
    bench = Bench(Policy.of(["one", "two", "three"], ["ahead"], ["one"]))
    for memory, io, swap_ins, seconds, times in load:
        for _ in range(times):
            yield bench, bench.feed(memory, io, swap_ins=swap_ins, seconds=seconds)


@given(loads)
@settings(deadline=None)
def test_every_applied_step_is_kept_or_reverted_and_every_kept_one_restored_once(
    load: list[tuple[float, float, float, float, int]],
) -> None:
    state: dict[str, str] = {}
    follows: dict[Action, tuple[set[str], str]] = {
        Action.APPLY: ({"out"}, "trial"),
        Action.KEEP: ({"trial"}, "kept"),
        Action.REVERT: ({"trial"}, "out"),
        Action.RESTORE: ({"kept"}, "out"),
    }
    bench = None
    for bench, decision in played(load):
        if decision.action in follows:
            allowed, then = follows[decision.action]
            assert state.get(decision.step, "out") in allowed
            state[decision.step] = then
        assert list(state.values()).count("trial") == (bench.policy.trial is not None)
        assert {n for n, s in state.items() if s == "kept"} == set(bench.policy.kept)
    if bench is not None:
        for _ in range(400):  # a long calm gives everything back
            bench.feed(0)
        assert bench.policy.kept == ()
        assert bench.policy.trial is None
        assert bench.policy.state is TunerState.NORMAL


@given(loads)
@settings(deadline=None)
def test_no_step_is_made_and_taken_back_faster_than_it_can_be_measured(
    load: list[tuple[float, float, float, float, int]],
) -> None:
    applied_ns: dict[str, int] = {}
    last_apply_ns = 0
    reverted_ns: dict[str, int] = {}
    for _, decision in played(load):
        name, now = decision.step, decision.time_ns
        if decision.action is Action.APPLY:
            assert now - last_apply_ns >= 10 * SECOND_NS  # one step at a time, never in a rush
            assert now - reverted_ns.get(name, 0) >= 60 * SECOND_NS
            applied_ns[name] = last_apply_ns = now
        elif decision.action is Action.REVERT and "gap" not in decision.reason:
            assert now - applied_ns[name] >= 12 * SECOND_NS
            reverted_ns[name] = now
        elif decision.action is Action.RESTORE:
            assert now - applied_ns[name] >= 60 * SECOND_NS


@given(loads)
@settings(deadline=None)
def test_same_readings_give_same_decisions_and_every_one_has_a_reason(
    load: list[tuple[float, float, float, float, int]],
) -> None:
    one = [decision for _, decision in played(load)]
    assert one == [decision for _, decision in played(load)]
    assert all(decision.reason for decision in one)
