"""What a program expected, counted: for gates that allow no deviation.

A deviation is anything expected that was not so. A gate of rule ``count`` with margin 0 fails
with the first; the words of each are in the notes of the block.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from suites.program import Measured

__all__ = ["Judge"]

_MOST_NOTES = 20


@dataclass
class Judge:
    """Counts what is compared, and names what is wrong."""

    compared: int = 0
    wrong: list[str] = field(default_factory=list)

    def expect(self, truth: bool, what: str) -> None:
        """Count a comparison; `what` is wrong if it does not hold."""
        self.compared += 1
        if not truth:
            self.wrong.append(what)

    def measured(self, metrics: dict[str, float], **notes: object) -> Measured:
        """Return what the program found: `metrics` and the number of deviations."""
        deviations = float(len(self.wrong))
        return Measured(
            {"deviations": deviations, **metrics}, {"wrong": self.wrong[:_MOST_NOTES], **notes}
        )
