"""How outcomes and lanes look and read, the same in every report.

Colours are Okabe and Ito's, which people with any colour vision can tell apart; no
outcome is shown by colour alone: each has a symbol and its word.
"""

from __future__ import annotations

from dataclasses import dataclass

from hyperbox.harness.model import Lane, Outcome

__all__ = [
    "BASELINE",
    "GOOD",
    "LANES",
    "OUTCOME_STYLES",
    "TUNED",
    "UNTESTED",
    "OutcomeStyle",
    "outcome_css",
    "style_of",
]


@dataclass(frozen=True)
class OutcomeStyle:
    """The look of an outcome.

    `fill` is for markers, `ink` for text on white, `tile` is the background of a badge or of a
    cell of the matrix and `on_tile` its text: both pairs have a contrast of at least 4.5:1, as
    the Web Content Accessibility Guidelines ask of level AA. `marker` is a matplotlib marker,
    `terminal` a rich style.
    """

    word: str
    symbol: str
    fill: str
    ink: str
    tile: str
    on_tile: str
    marker: str
    terminal: str


OUTCOME_STYLES: dict[Outcome, OutcomeStyle] = {
    Outcome.PASS: OutcomeStyle(
        "PASS", "✓", "#009e73", "#006b4e", "#d9f0e8", "#00553e", "o", "bold green"
    ),
    Outcome.FAIL: OutcomeStyle(
        "FAIL", "✗", "#d55e00", "#a84300", "#a84300", "#ffffff", "X", "bold red"
    ),
    Outcome.INCONCLUSIVE: OutcomeStyle(
        "INCONCLUSIVE", "?", "#56b4e9", "#1d648f", "#8fcdf1", "#0b2c40", "D", "bold cyan"
    ),
    Outcome.SKIP: OutcomeStyle(
        "SKIP", "\N{EN DASH}", "#c8c8c8", "#5a5a5a", "#ededed", "#4f4f4f", "_", "dim"
    ),
    Outcome.ERROR: OutcomeStyle(
        "ERROR", "!", "#333333", "#1f1f1f", "#333333", "#ffffff", "s", "bold magenta"
    ),
}

UNTESTED = OutcomeStyle("UNTESTED", "·", "#ffffff", "#5a5a5a", "#ffffff", "#4f4f4f", "", "dim")
"""A gate without any verdict on a kernel: a hole in the matrix."""

BASELINE = "#767676"
TUNED = "#0072b2"
GOOD = "#009e73"
"""Colour of the shaded side of a target's limit."""

LANES: dict[Lane, str] = {
    Lane.EXACT: (
        "Emulated; virtual time counts instructions. Measures work, repeatable to the "
        "nanosecond, whatever else the host does; knows no caches, contention or hardware speed."
    ),
    Lane.FAST: (
        "Emulated with host time. Measures the emulator's speed; for counts and exploration only."
    ),
    Lane.KVM: "Hardware virtualisation. Measures hardware time, the host's noise included.",
    Lane.HOST: "The machine itself, without a VM. Measures hardware time, all noise included.",
}


def style_of(outcome: Outcome | None) -> OutcomeStyle:
    """Return the look of an outcome; None is an untested gate."""
    return UNTESTED if outcome is None else OUTCOME_STYLES[outcome]


def outcome_css() -> str:
    """Return the rules that give the class of each outcome its colours, as CSS variables."""
    rules = (
        f".{style.word.lower()} {{ --fill: {style.fill}; --ink: {style.ink}; "
        f"--tile: {style.tile}; --on-tile: {style.on_tile}; }}"
        for style in (*OUTCOME_STYLES.values(), UNTESTED)
    )
    return "\n".join(rules)
