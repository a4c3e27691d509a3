"""A rate with exact bounds. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from scipy.special import betaincinv

__all__ = ["CONFIDENCE", "Rate"]

CONFIDENCE = 0.99
"""One-sided confidence of each Clopper-Pearson bound."""


@dataclass(frozen=True)
class Rate:
    """How often something happened."""

    count: int
    trials: int

    @property
    def rate(self) -> float:
        """The observed rate; 0 without any trial."""
        return self.count / self.trials if self.trials else 0.0

    @property
    def upper(self) -> float:
        """Upper bound (Clopper and Pearson 1934) at `CONFIDENCE`; 1 without any trial."""
        if self.count >= self.trials:
            return 1.0
        return float(betaincinv(self.count + 1, self.trials - self.count, CONFIDENCE))

    @property
    def lower(self) -> float:
        """Lower bound at `CONFIDENCE`."""
        if self.count == 0:
            return 0.0
        return float(betaincinv(self.count, self.trials - self.count + 1, 1 - CONFIDENCE))

    def document(self) -> dict[str, float]:
        """Return the rate as JSON data."""
        return {**asdict(self), "rate": self.rate, "lower": self.lower, "upper": self.upper}
