"""What a calibration found: rates with exact bounds, and whether the promise is kept. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hyperbox.harness.calibration.evidence import Evidence
from hyperbox.harness.model import Lane
from hyperbox.harness.statistics.design import ALPHA, LOOKS
from hyperbox.harness.statistics.proportions import CONFIDENCE, Rate

__all__ = [
    "SCHEMA_VERSION",
    "Calibration",
    "EffectRates",
    "ExactCell",
    "Family",
    "RuleRates",
]

SCHEMA_VERSION = 2
"""Version of ``calibration.json``; 2 says the lane of a row, and more of real runs."""


@dataclass(frozen=True)
class EffectRates:
    """One true effect: `effect` deviations from the limit, good side positive.

    `passes` and `fails` count the trials decided up to each planned look.
    """

    effect: float
    trials: int
    passes: tuple[int, ...]
    fails: tuple[int, ...]

    def decided(self, look: int) -> Rate:
        """Return how often the right verdict had come by a look (index into the looks)."""
        return Rate((self.passes if self.effect > 0 else self.fails)[look], self.trials)


@dataclass(frozen=True)
class RuleRates:
    """One rule under one noise: errors at the limit, power away from it.

    At the limit a PASS is wrong for a truth just beyond, a FAIL for one just within.
    `marked` is how often the diagnostics make a remark about the noise.
    """

    rule: str
    margin: float
    lane: Lane
    noise: str
    title: str
    promised: bool
    cells: tuple[EffectRates, ...]
    marked: Rate

    @property
    def false_pass(self) -> Rate:
        """Wrong PASS at the limit."""
        cell = self._at_limit()
        return Rate(cell.passes[-1], cell.trials)

    @property
    def false_fail(self) -> Rate:
        """Wrong FAIL at the limit."""
        cell = self._at_limit()
        return Rate(cell.fails[-1], cell.trials)

    def wrong_by(self, look: int) -> Rate:
        """Return the worse side's wrong verdicts up to a planned look (index into the looks)."""
        cell = self._at_limit()
        return Rate(max(cell.passes[look], cell.fails[look]), cell.trials)

    @property
    def kept(self) -> bool:
        """Whether both bounds are within the promise."""
        return max(self.false_pass.upper, self.false_fail.upper) <= ALPHA

    def _at_limit(self) -> EffectRates:
        return next(cell for cell in self.cells if cell.effect == 0)

    def document(self) -> dict[str, Any]:
        """Return the row as JSON data."""
        return {
            **asdict(self),
            "marked": self.marked.document(),
            "false_pass": self.false_pass.document(),
            "false_fail": self.false_fail.document(),
            "kept": self.kept,
        }


@dataclass(frozen=True)
class ExactCell:
    """The exact lane with 8 starts: a planted change under a spread of starts, as fractions."""

    spread: float
    planted: float
    limit: float
    passes: int
    fails: int
    trials: int

    @property
    def right(self) -> Rate:
        """The verdict that is right."""
        return Rate(self.fails if self.planted > self.limit else self.passes, self.trials)

    @property
    def wrong(self) -> Rate:
        """The verdict that is wrong."""
        return Rate(self.passes if self.planted > self.limit else self.fails, self.trials)

    @property
    def kept(self) -> bool:
        """Whether wrong verdicts stay within the promise."""
        return self.wrong.upper <= ALPHA

    def document(self) -> dict[str, Any]:
        """Return the cell as JSON data."""
        right, wrong = self.right.document(), self.wrong.document()
        return {**asdict(self), "right": right, "wrong": wrong, "kept": self.kept}


@dataclass(frozen=True)
class Family:
    """Releases of `cells` verdicts, each exactly at its limit: how often one FAILs."""

    cells: int
    corrected: Rate
    uncorrected: Rate

    @property
    def kept(self) -> bool:
        """Whether a wrong FAIL of the release stays within the promise."""
        return self.corrected.upper <= ALPHA

    def document(self) -> dict[str, Any]:
        """Return the family as JSON data."""
        corrected, uncorrected = self.corrected.document(), self.uncorrected.document()
        return {
            "cells": self.cells,
            "corrected": corrected,
            "uncorrected": uncorrected,
            "kept": self.kept,
        }


@dataclass(frozen=True)
class Calibration:
    """Everything of one calibration.

    `checked` counts the simulated samples that were also put through `gates.decide`, all
    with the same outcome.
    """

    hyperbox_version: str
    seed: int
    rows: tuple[RuleRates, ...]
    exact: tuple[ExactCell, ...]
    family: Family
    checked: int
    evidence: tuple[Evidence, ...] = ()

    @property
    def broken_promises(self) -> tuple[str, ...]:
        """Name what exceeds the promise, in one line each."""
        broken = [
            f"{row.rule} under {row.noise} noise{_in_lane(row.lane)}"
            for row in self.rows
            if row.promised and not row.kept
        ]
        broken += [
            f"exact lane, {cell.planted:.2%} planted under a spread of {cell.spread:.2%}"
            for cell in self.exact
            if not cell.kept
        ]
        broken += [] if self.family.kept else [f"a release of {self.family.cells} verdicts"]
        broken += [f"run {seen.run}" for seen in self.evidence if not seen.kept]
        return tuple(broken)

    def document(self) -> Mapping[str, Any]:
        """Return ``calibration.json``; ``calibration.schema.json`` describes it."""
        return {
            "schema_version": SCHEMA_VERSION,
            "hyperbox_version": self.hyperbox_version,
            "seed": self.seed,
            "promise": ALPHA,
            "confidence": CONFIDENCE,
            "looks": list(LOOKS),
            "checked": self.checked,
            "kept": not self.broken_promises,
            "broken_promises": list(self.broken_promises),
            "rows": _documents(self.rows),
            "exact": _documents(self.exact),
            "family": self.family.document(),
            "evidence": _documents(self.evidence),
        }


def _in_lane(lane: Lane) -> str:
    return " in the exact lane" if lane is Lane.EXACT else ""


def _documents(parts: Sequence[Any]) -> list[dict[str, Any]]:
    return [part.document() for part in parts]
