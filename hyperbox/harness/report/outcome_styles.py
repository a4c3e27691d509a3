"""How outcomes and lanes look and read, the same in every report.

Colours are Okabe and Ito's, which people with any colour vision can tell apart; no
outcome is told by colour alone: each has a symbol and its word.
"""

from __future__ import annotations

from dataclasses import dataclass

from hyperbox.harness.model import Lane, Outcome

__all__ = ["BASELINE", "LANES", "OUTCOME_STYLES", "TUNED", "UNTESTED", "OutcomeStyle", "style_of"]


@dataclass(frozen=True)
class OutcomeStyle:
    """The look of an outcome.

    `fill` is for areas and markers, `ink` for text on white (contrast at least 4.5:1),
    `marker` is a matplotlib marker, `terminal` a rich style.
    """

    word: str
    symbol: str
    fill: str
    ink: str
    marker: str
    terminal: str


OUTCOME_STYLES: dict[Outcome, OutcomeStyle] = {
    Outcome.PASS: OutcomeStyle("PASS", "✓", "#009e73", "#006b4e", "o", "bold green"),
    Outcome.FAIL: OutcomeStyle("FAIL", "✗", "#d55e00", "#a84300", "X", "bold red"),
    Outcome.INCONCLUSIVE: OutcomeStyle("INCONCLUSIVE", "?", "#56b4e9", "#1d648f", "D", "bold cyan"),
    Outcome.SKIP: OutcomeStyle("SKIP", "\N{EN DASH}", "#c8c8c8", "#5a5a5a", "_", "dim"),
    Outcome.ERROR: OutcomeStyle("ERROR", "!", "#333333", "#1f1f1f", "s", "bold magenta"),
}

UNTESTED = OutcomeStyle("UNTESTED", "·", "#ffffff", "#5a5a5a", "", "dim")
"""A gate without any verdict on a kernel: a hole in the matrix."""

BASELINE = "#767676"
TUNED = "#0072b2"

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
