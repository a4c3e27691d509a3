"""The governor: never long above its budget, and no flapping."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hyperbox.observability.governor import SPAN_NS, Governor, WindowLoad
from hyperbox.observability.modes import Costs, Mode

COSTS = Costs({Mode.FULL: 350.0, Mode.HYBRID: 200.0, Mode.COUNT: 120.0}, skipped=100.0)
SECOND = 1_000_000_000


def load(calls: int, *, skipped: int = 0, own_ns: int = 0) -> WindowLoad:
    return WindowLoad(calls, skipped, SECOND, own_ns)


def modes(governor: Governor, calls: int, windows: int) -> list[Mode]:
    return [governor.step(load(calls)) for _ in range(windows)]


def test_each_rate_has_its_mode() -> None:
    """2 % of a CPU pay for 495 calls in full, 100k hybrid, 167k counted."""
    for calls, mode in ((400, Mode.FULL), (90_000, Mode.HYBRID), (160_000, Mode.COUNT)):
        assert set(modes(Governor(COSTS), calls, 20)) == {mode}


def test_above_all_modes_every_call_is_still_counted() -> None:
    governor = Governor(COSTS)
    assert set(modes(governor, 1_000_000, 70)) == {Mode.COUNT}
    assert governor.cost(load(1_000_000)) == 0.12


def test_with_a_duty_cycle_only_some_windows_are_counted() -> None:
    found = modes(Governor(COSTS, duty_cycle=True), 1_000_000, 70)  # counting would take 12 %
    counted = found.count(Mode.COUNT) / len(found)
    assert 0.1 < counted < 0.2
    assert set(found[1:]) == {Mode.COUNT, Mode.OFF}


def test_up_only_with_room_for_some_time() -> None:
    governor = Governor(COSTS)
    modes(governor, 160_000, 1)
    assert modes(governor, 60_000, 4) == [Mode.COUNT] * 4
    assert modes(governor, 60_000, 1) == [Mode.HYBRID]
    assert set(modes(governor, 400, 20)) == {Mode.HYBRID}  # full would take 1.6 %


def test_spans_of_single_calls_do_not_keep_a_poorer_mode_away() -> None:
    governor = Governor(COSTS)
    every = WindowLoad(10_000, 0, SECOND, own_ns=10_000 * SPAN_NS, reported=10_000)
    assert governor.step(every) is Mode.COUNT  # hybrid would report as many, for all we know
    assert modes(governor, 10_000, 5)[-1] is Mode.HYBRID
    assert governor.most_spans(SECOND) == 125


def test_what_a_span_costs_on_this_machine_is_learned() -> None:
    """With spans of 40 us 400 calls a second would fit the budget in full."""
    governor = Governor(COSTS, first=Mode.COUNT)
    rest, span_ns = 1_000_000, 200_000
    for _ in range(20):
        reported = {Mode.COUNT: 0, Mode.HYBRID: 60, Mode.FULL: 400}[governor.mode]
        governor.step(WindowLoad(400, 0, SECOND, rest + reported * span_ns, reported))
        assert governor.mode is not Mode.FULL
    assert governor.mode is Mode.HYBRID


def test_calls_of_others_and_our_own_time_count() -> None:
    governor = Governor(COSTS)
    assert governor.cost(load(0, skipped=100_000)) == 0.01
    assert governor.cost(load(0, own_ns=SECOND // 50)) == 0.02


@given(st.lists(st.integers(0, 2_000_000), min_size=1, max_size=80))
def test_one_window_above_the_budget_is_the_last_of_its_mode(rates: list[int]) -> None:
    governor = Governor(COSTS, duty_cycle=True)
    for calls in rates:
        before = governor.mode
        above = governor.cost(load(calls)) > 0.02
        after = governor.step(load(calls))
        assert after > before if above else after <= before or before is Mode.OFF
        if before is not Mode.OFF and not above:
            assert before - after <= 1
