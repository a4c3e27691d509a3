"""Many rows of the same blocks: the promise holds; what rises together counts once."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.harness.statistics import joint
from hyperbox.harness.statistics.design import InferenceKind, Matrix
from hyperbox.harness.statistics.joint import Group, exchanged_pairs, exchanged_sets, step_down
from hyperbox.harness.statistics.multiplicity import holm
from hyperbox.harness.statistics.shifts import paired_shift, unpaired_shift

ROWS = st.lists(
    st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3.0]), min_size=5, max_size=5),
    min_size=1,
    max_size=4,
)
KINDS = pytest.mark.parametrize("kind", InferenceKind)


@KINDS
@given(rows=ROWS)
def test_each_exchange_of_pairs_has_the_p_value_of_its_differences(
    kind: InferenceKind, rows: list[list[float]]
) -> None:
    """Ties and zeros included; the order of the exchanges is nobody's affair."""
    luck, drawn = exchanged_pairs(np.array(rows), kind)
    assert not drawn
    for found, values in zip(luck, rows, strict=True):
        signs = itertools.product((1, -1), repeat=5)
        flipped = ([s * v for s, v in zip(chosen, values, strict=True)] for chosen in signs)
        expected = sorted(paired_shift(differences, kind=kind).p for differences in flipped)
        assert sorted(found) == pytest.approx(expected)


@given(ROWS)
def test_each_exchange_of_sets_has_the_p_value_of_its_sets(rows: list[list[float]]) -> None:
    pooled = np.array(rows)
    luck, drawn = exchanged_sets(pooled[:, :2], pooled[:, 2:])
    assert not drawn
    for found, values in zip(luck, rows, strict=True):
        expected = [
            unpaired_shift(
                [values[i] for i in chosen], [v for i, v in enumerate(values) if i not in chosen]
            ).p
            for chosen in itertools.combinations(range(5), 2)
        ]
        assert sorted(found) == pytest.approx(sorted(expected))


def family(rows: Matrix, *, groups: int = 1) -> tuple[list[float], list[Group]]:
    """P-values of rows of pairs, and the rows in so many groups."""
    p_values = [paired_shift(list(row)).p for row in rows]
    parts = np.array_split(np.arange(len(rows)), groups)
    made = [
        Group(tuple(map(int, part)), *exchanged_pairs(rows[part], InferenceKind.SIGNED_RANK))
        for part in parts
    ]
    return p_values, made


def test_rows_that_say_the_same_are_paid_for_once() -> None:
    dice = np.random.default_rng(4)
    row = dice.normal(0.5, 1, 10)
    p_values, groups = family(np.array([row] * 30))
    assert step_down(p_values, groups) == pytest.approx(p_values)
    assert holm(p_values)[0] == pytest.approx(min(1.0, 30 * p_values[0]))


@given(st.integers(0, 10**6), st.integers(1, 4))
def test_never_below_the_own_and_never_above_holms(seed: int, groups: int) -> None:
    rows = np.random.default_rng(seed).normal(0.3, 1, (8, 7))
    p_values, made = family(rows, groups=groups)
    adjusted = step_down(p_values, made)
    for own, found, most in zip(p_values, adjusted, holm(p_values), strict=True):
        assert own <= found <= most + 1e-12
    assert sorted(adjusted) == [adjusted[i] for i in np.argsort(p_values, kind="stable")]


def test_groups_of_one_row_each_are_holms_procedure() -> None:
    """Where the p-values of a row can be reached, as without ties."""
    dice = np.random.default_rng(4)
    rows = dice.normal(0.6, 1, (6, 9))
    p_values, groups = family(rows, groups=6)
    adjusted = step_down(p_values, groups)
    most = holm(p_values)
    assert adjusted[int(np.argmin(p_values))] == pytest.approx(min(most))
    assert all(a <= h + 1e-12 for a, h in zip(adjusted, most, strict=True))


def test_rows_without_effect_are_rarely_called() -> None:
    """Of 400 families without any effect at most 5 % may hold a false claim; 9 % fails here."""
    dice = np.random.default_rng(4)
    wrong = 0
    for _ in range(400):
        shared = dice.normal(0, 1, 8)
        rows = np.array([shared + dice.normal(0, 0.5, 8) for _ in range(6)])
        p_values, groups = family(rows, groups=2)
        wrong += min(step_down(p_values, groups)) <= 0.05
    assert 0 < wrong <= 36  # P(more | 5 %) < 0.001


def test_a_row_with_an_effect_does_not_carry_the_others_along() -> None:
    dice = np.random.default_rng(4)
    wrong = 0
    for _ in range(400):
        rows = np.array([dice.normal(50, 1, 8), *dice.normal(0, 1, (5, 8))])
        p_values, groups = family(rows)
        adjusted = step_down(p_values, groups)
        assert adjusted[0] <= 0.05
        wrong += min(adjusted[1:]) <= 0.05
    assert 0 < wrong <= 36


@pytest.mark.parametrize("paired", [True, False])
def test_drawn_exchanges_agree_with_all_of_them(
    monkeypatch: pytest.MonkeyPatch, *, paired: bool
) -> None:
    dice = np.random.default_rng(4)
    rows = dice.normal(0.5, 1, (4, 12))

    def adjusted() -> list[float]:
        if paired:
            p_values = [paired_shift(list(row)).p for row in rows]
            luck, drawn = exchanged_pairs(rows, InferenceKind.SIGNED_RANK)
        else:
            p_values = [unpaired_shift(list(row[:6]), list(row[6:])).p for row in rows]
            luck, drawn = exchanged_sets(rows[:, :6], rows[:, 6:])
        assert drawn is (joint._MOST == 100)
        return step_down(p_values, [Group(tuple(range(4)), luck, drawn)])

    whole = adjusted()
    monkeypatch.setattr(joint, "_MOST", 100)
    assert adjusted() == pytest.approx(whole, abs=0.02)


def test_drawing_never_says_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joint, "_MOST", 10)
    monkeypatch.setattr(joint, "_DRAWN", 20)
    rows = np.arange(1.0, 33.0)[None, :]
    luck, drawn = exchanged_pairs(rows, InferenceKind.SIGNED_RANK)
    own = paired_shift(list(rows[0])).p
    assert step_down([own], [Group((0,), luck, drawn)]) == [pytest.approx(own)]
