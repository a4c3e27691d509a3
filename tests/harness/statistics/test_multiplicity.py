"""Families of tests against R, and what their size asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.harness.statistics.multiplicity import blocks_needed, holm


# p.adjust(..., "holm") of R 4.2.2
@pytest.mark.parametrize(
    ("raw", "adjusted"),
    [
        ([0.01, 0.04, 0.03, 0.005, 0.02], [0.04, 0.06, 0.06, 0.025, 0.06]),
        (
            [0.001, 0.0156, 0.0004, 0.9, 1, 0.02, 0.0062],
            [0.0060, 0.0624, 0.0028, 1, 1, 0.0624, 0.0310],
        ),
        ([], []),
    ],
)
def test_holm_matches_r(raw: list[float], adjusted: list[float]) -> None:
    assert holm(raw) == pytest.approx(adjusted)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.randoms())
def test_holm_follows_its_p_values_around(raw: list[float], dice: object) -> None:
    adjusted = holm(raw)
    assert all(p <= q <= min(1.0, p * len(raw)) + 1e-12 for p, q in zip(raw, adjusted, strict=True))
    order = sorted(range(len(raw)), key=lambda place: (raw[place], place), reverse=True)
    assert holm([raw[place] for place in order]) == [adjusted[place] for place in order]


@pytest.mark.parametrize(
    ("family", "look"), [(1, 8), (2, 12), (13, 12), (14, 20), (1468, 20), (1469, 32), (10**9, None)]
)
def test_blocks_needed(family: int, look: int | None) -> None:
    assert blocks_needed(family) == look
