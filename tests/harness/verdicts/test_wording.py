"""Numbers as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.harness.verdicts.wording import (
    number,
    relative,
    relative_interval,
    relative_range,
    with_unit,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (3.0, "3"),
        (1.234567, "1.23"),
        (12.3456, "12.3"),
        (123.456, "123"),
        (61608149.0, "61\N{NO-BREAK SPACE}608\N{NO-BREAK SPACE}149"),
        (0.01234, "0.0123"),
        (1.5e-9, "1.50e-09"),
        (-2.5, "-2.50"),
        (float("inf"), "inf"),
    ],
)
def test_number(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (-0.831, "-83.1 %"),
        (0.0, "0.0 %"),
        (-0.0, "0.0 %"),
        (0.0003, "+0.03 %"),
        (-0.02, "-2.0 %"),
        (3.5, "+350.0 %"),
        (1e-9, "0.00 %"),
    ],
)
def test_relative(change: float, text: str) -> None:
    assert relative(change) == text


def test_interval() -> None:
    assert relative_interval(-0.831, -0.84, -0.822) == "-83.1 % (-84.0 … -82.2)"
    assert relative_interval(-0.01, -0.018, 0.0006) == "-1.0 % (-1.8 … +0.1)"
    assert relative_interval(0.0004, -0.0001, 0.001) == "+0.04 % (-0.01 … +0.10)"


def test_units() -> None:
    assert with_unit(12.0, "pages") == "12 pages"
    assert with_unit(12.0, "1") == "12"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_number_keeps_three_digits(value: float) -> None:
    text = number(value).replace("\N{NO-BREAK SPACE}", "")
    assert float(text) == pytest.approx(value, rel=5.1e-3)


def test_the_ends_of_a_range_have_as_many_decimals() -> None:
    assert relative_range(-0.018, 0.0006) == "-1.8 % to +0.1 %"
    assert relative_range(-0.0018, 0.0006) == "-0.18 % to +0.06 %"
