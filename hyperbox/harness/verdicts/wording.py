"""How numbers read: few digits, units apart, a true minus sign only where type is set."""

from __future__ import annotations

import math
import re

__all__ = [
    "EXCEEDS_BAND",
    "number",
    "relative",
    "relative_interval",
    "relative_range",
    "typeset",
    "with_unit",
]

EXCEEDS_BAND = "exceeds band"
"""Remark of a PASS beyond the upper edge of its target band."""


def number(value: float, digits: int = 3) -> str:
    """Return `value` with about `digits` significant digits: 0.0123, 1.23, 123, 61 608.

    Digits before the decimal point are never rounded away: counts stay exact.
    """
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -4:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - magnitude)
    text = f"{value:,.{decimals}f}".replace(",", "\N{NO-BREAK SPACE}")
    if float(value).is_integer() and "." in text:
        text = text.split(".", maxsplit=1)[0]
    return text


def with_unit(value: float, unit: str) -> str:
    """Return `value` with its unit; the unit "1" (a plain number) is not written."""
    return number(value) if unit in ("", "1") else f"{number(value)} {unit}"


def relative(change: float) -> str:
    """Return a relative change as signed percentage: -0.831 is "-83.1 %"."""
    return f"{_percentage(change, _decimals(change))} %"


def relative_interval(estimate: float, low: float, high: float) -> str:
    """Return an estimated change with its interval: "-83.1 % (-84.0 … -82.2)"."""
    decimals = _decimals(estimate, low, high)
    found, bottom, top = (_percentage(change, decimals) for change in (estimate, low, high))
    return f"{found} % ({bottom} … {top})"


def relative_range(low: float, high: float) -> str:
    """Return two changes with as many decimals: "-1.80 % to +0.06 %"."""
    decimals = _decimals(low, high)
    return f"{_percentage(low, decimals)} % to {_percentage(high, decimals)} %"


def typeset(text: str) -> str:
    """Return text for pages and figures: true minus signs, no line break before "%"."""
    with_minus = re.sub(r"(?<![\w.-])-(?=\d)", "\N{MINUS SIGN}", text)
    return re.sub(r"(?<=\d) (?=%)", "\N{NO-BREAK SPACE}", with_minus)


def _decimals(*changes: float) -> int:
    """Return one decimal, or two where one would say 0.0 of a real shift below one percent."""
    largest = max(abs(change) for change in changes)
    return 2 if 0 < largest < 0.0095 else 1


def _percentage(change: float, decimals: int) -> str:
    text = f"{100 * change:+.{decimals}f}"
    return text[1:] if math.isfinite(change) and float(text) == 0 else text
