"""Light SVG: a page of thousands of figures is drawn in seconds. Pure.

Matplotlib takes a tenth of a second for a small figure; the figures that a report repeats
for every gate and cell are a few shapes on a linear scale. Their look is in `STYLE`, once a
page.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from html import escape

from hyperbox.harness.verdicts.wording import typeset
from hyperbox.printing import legible

__all__ = ["STYLE", "Drawing", "Scale", "fitted", "standalone_figure", "text_width"]

STYLE = """\
.hb { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
.hb text { fill: #222; font-variant-numeric: tabular-nums; }
.hb .small { font-size: 10.5px; fill: #4a4a4a; }
.hb .title { font-size: 12px; font-weight: 600; }
.hb .mid { text-anchor: middle; } .hb .end { text-anchor: end; }
.hb path, .hb line { fill: none; stroke: #222; }
.hb .axis { stroke: #8a8a8a; stroke-width: .8; } .hb .grid { stroke: #e3e6ea; stroke-width: .8; }
.hb .limit { stroke: #222; stroke-width: 1.2; stroke-dasharray: 5 3; }
.hb .good { fill: #009e73; fill-opacity: .10; } .hb .band { fill: #009e73; fill-opacity: .20; }
.hb .base { stroke: #767676; stroke-width: 1.4; } .hb .tuned { stroke: #0072b2; stroke-width: 1.6; }
.hb .dash { stroke-dasharray: 4 2; } .hb .thin { stroke-width: .8; stroke: #9a9a9a; }
.hb .fail { fill: none; stroke: #111; stroke-width: 2; }
.hb .tick { stroke: #9a9a9a; stroke-width: 1; }
.hb .range { fill: #0072b2; fill-opacity: .14; }
.hb .dots { stroke-linecap: round; stroke-width: 7; }
.hb .hole { stroke-linecap: round; stroke-width: 4; stroke: #fff; }
"""


@dataclass(frozen=True)
class Scale:
    """A linear map of values onto pixels: `low` lies at `start`, `high` at `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, about: int = 5) -> tuple[float, ...]:
        """Return about as many round values within the scale."""
        step = _round_step((self.high - self.low) / max(about, 1))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return tuple(round(place * step, 12) for place in range(first, last + 1))

    @classmethod
    def around(cls, values: Iterable[float], start: float, end: float, room: float = 0.06) -> Scale:
        """Return a scale that shows all finite values, with some room (a fraction) beyond them."""
        shown = [value for value in values if math.isfinite(value)] or [0.0]
        low, high = min(shown), max(shown)
        margin = room * (high - low) or 0.05 * abs(high) or 1.0
        return cls(low - margin, high + margin, start, end)

    def above_zero(self) -> Scale:
        """Return the scale without the room below zero, where what is shown cannot lie."""
        return replace(self, low=max(self.low, -0.04 * self.high))


class Drawing:
    """Shapes gathered into one ``<svg>`` element; lengths are CSS pixels."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self._parts: list[str] = []

    def line(self, x1: float, y1: float, x2: float, y2: float, css: str) -> None:
        """Draw a straight line."""
        self._parts.append(f'<path class="{css}" d="M{_p(x1)} {_p(y1)}L{_p(x2)} {_p(y2)}"/>')

    def path(self, points: Sequence[tuple[float, float]], css: str) -> None:
        """Draw a line through points."""
        if points:
            joined = "L".join(f"{_p(x)} {_p(y)}" for x, y in points)
            self._parts.append(f'<path class="{css}" d="M{joined}"/>')

    def steps(self, points: Sequence[tuple[float, float]], css: str) -> None:
        """Draw a staircase: first across to the next point, then up or down to it."""
        if points:
            (x, y), *rest = points
            joined = "".join(f"H{_p(across)}V{_p(up)}" for across, up in rest)
            self._parts.append(f'<path class="{css}" d="M{_p(x)} {_p(y)}{joined}"/>')

    def dots(self, points: Sequence[tuple[float, float]], css: str, colour: str = "") -> None:
        """Draw a round dot at each point (one path: short for many)."""
        if points:
            joined = "".join(f"M{_p(x)} {_p(y)}h0" for x, y in points)
            ink = f' style="stroke:{colour}"' if colour else ""
            self._parts.append(f'<path class="dots {css}"{ink} d="{joined}"/>')

    def ticks(self, places: Sequence[float], top: float, bottom: float, css: str) -> None:
        """Draw a short upright line at each place."""
        if places:
            joined = "".join(f"M{_p(x)} {_p(top)}V{_p(bottom)}" for x in places)
            self._parts.append(f'<path class="{css}" d="{joined}"/>')

    def area(
        self, x1: float, y1: float, x2: float, y2: float, css: str = "", fill: str = ""
    ) -> None:
        """Fill a rectangle between two corners."""
        x, y, width, height = min(x1, x2), min(y1, y2), abs(x2 - x1), abs(y2 - y1)
        look = f' class="{css}"' if css else ""
        look += f' fill="{fill}"' if fill else ""
        self._parts.append(
            f'<rect{look} x="{_p(x)}" y="{_p(y)}" width="{_p(width)}" height="{_p(height)}"/>'
        )

    def text(self, x: float, y: float, text: str, css: str = "", colour: str = "") -> None:
        """Write a line of text; `css` may hold "mid" or "end" for its anchor."""
        look = f' class="{css}"' if css else ""
        look += f' style="fill:{colour}"' if colour else ""
        told = escape(typeset(legible(text)), quote=False)
        self._parts.append(f'<text x="{_p(x)}" y="{_p(y)}"{look}>{told}</text>')

    def slanted(self, x: float, y: float, text: str, css: str = "") -> None:
        """Write text that rises from its start at `x`, `y`."""
        told = escape(legible(text), quote=False)
        turn = f"translate({_p(x)} {_p(y)}) rotate(-50)"
        self._parts.append(f'<text transform="{turn}" class="{css}">{told}</text>')

    def raw(self, markup: str) -> None:
        """Add markup made here: patterns, links."""
        self._parts.append(markup)

    def svg(self, label: str, css: str = "") -> str:
        """Return the element; `label` is for screen readers, `css` names further classes."""
        size = f'width="{_p(self.width)}" height="{_p(self.height)}"'
        # Narrow screens scroll a figure rather than shrink its text beyond reading.
        return (
            f'<svg class="{f"hb {css}".strip()}" '
            f'viewBox="0 0 {_p(self.width)} {_p(self.height)}" {size} '
            f'style="min-width:{_p(0.75 * self.width)}px" role="img" '
            f'aria-label="{escape(legible(label))}">{"".join(self._parts)}</svg>'
        )


def standalone_figure(svg: str) -> str:
    """Return a drawing as a document of its own, on white; "" stays ""."""
    if not svg:
        return ""
    head, tail = svg.split(">", 1)
    head = head.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    head = head.replace('style="', 'style="background:#fff;', 1)
    return f"{head}><style>{STYLE}</style>{tail}\n"


def text_width(text: str, size: float = 12.0) -> float:
    """Estimate the width of a line of text in pixels, on the generous side."""
    return size * sum(1.0 if unicodedata.east_asian_width(c) in "WF" else 0.6 for c in text)


def fitted(text: str, width: float, size: float = 12.0) -> str:
    """Shorten text in its middle until it is no wider than `width` pixels."""
    if text_width(text, size) <= width:
        return text
    for kept in range(len(text) - 1, 2, -1):
        short = f"{text[: kept // 2]}…{text[len(text) - (kept - kept // 2) :]}"
        if text_width(short, size) <= width:
            return short
    return f"{text[0]}…{text[-1]}"


def _p(value: float) -> str:
    """Return a length with at most one decimal."""
    return f"{value:.1f}".removesuffix(".0")


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(nice * power for nice in (1, 2, 2.5, 5, 10) if nice * power >= step * 0.999)
