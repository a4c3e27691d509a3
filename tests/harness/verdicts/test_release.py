"""The release: who may fail it, who may pass it, and how often it errs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hyperbox.errors import ExitCode
from hyperbox.harness.model import Lane, Outcome, Verdict
from hyperbox.harness.statistics.design import (
    ALPHA,
    ONE_LIMIT,
    TWO_LIMITS,
    InferenceKind,
    Target,
)
from hyperbox.harness.statistics.multiplicity import blocks_needed
from hyperbox.harness.statistics.sequential import first_decisions, through_all_looks
from hyperbox.harness.verdicts.gates import exit_code
from hyperbox.harness.verdicts.release import release

PASS, FAIL, OPEN = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
SKIP, ERROR = Outcome.SKIP, Outcome.ERROR


def cell(outcome: Outcome, p: float | None = None, kernel: str = "6.12") -> Verdict:
    details = {} if p is None else {"p_missed_all_looks": p}
    return Verdict("psi.gate", kernel, Lane.EXACT, outcome, "because", n=8, details=details)


STOOD_IN = replace(cell(SKIP), stand_in="psi.other")


@pytest.mark.parametrize(
    ("cells", "outcome", "words"),
    [
        ([cell(PASS)] * 40, PASS, "all 40 verdicts pass"),
        ([cell(PASS), cell(SKIP)], OPEN, "pass; no gate passes in the place of 1 skipped"),
        ([cell(PASS), STOOD_IN], PASS, "all 1 verdicts pass; psi.other passes in the place of 1"),
        ([cell(OPEN), cell(SKIP)], OPEN, "inconclusive; no gate passes in the place of 1"),
        ([cell(PASS), cell(OPEN)], OPEN, "1 of 2 verdicts are inconclusive"),
        ([cell(FAIL, 0.0156)], FAIL, "1 of 1 verdicts fail"),
        ([*[cell(PASS)] * 39, cell(FAIL, 0.0156)], OPEN, "--blocks 20 or more settles that"),
        ([*[cell(PASS)] * 39, cell(FAIL, 0.0006)], FAIL, "1 of 40"),
        ([*[cell(PASS)] * 39, cell(FAIL)], FAIL, "1 of 40"),
        ([cell(PASS), cell(ERROR)], ERROR, "1 of 2 verdicts broke"),
        ([cell(FAIL, 0.001), cell(ERROR)], FAIL, "1 of 2"),
        ([cell(SKIP)], ERROR, "nothing was measured"),
        ([], ERROR, "nothing was measured"),
    ],
)
def test_release(cells: list[Verdict], outcome: Outcome, words: str) -> None:
    found = release(cells)
    assert found.outcome is outcome
    assert words in found.reason
    assert found.skipped == sum(1 for verdict in cells if verdict.outcome is SKIP)
    assert found.holes == sum(1 for verdict in cells if verdict.is_hole)


def test_a_gate_that_every_kernel_skips_is_named() -> None:
    gone = [replace(cell(SKIP, kernel=kernel), gate="psi.gone") for kernel in ("5.10", "6.12")]
    found = release([cell(PASS), replace(gone[0], stand_in="psi.gate"), gone[1], cell(SKIP)])
    assert found.unanswered == ("psi.gone",)
    assert found.reason.endswith("skipped on every kernel: psi.gone")


def test_a_run_fails_by_what_is_too_weak_to_fail_a_release() -> None:
    """Eight blocks give p = 1/256: enough for one verdict, for two together it is not."""
    target = Target(low=None, high=1.0)
    weak = cell(FAIL, through_all_looks([9.0] * 8, target)[1])
    assert release([weak]).outcome is FAIL
    found = release([weak, cell(PASS)])
    assert found.outcome is OPEN
    assert found.reason == (
        "1 of 2 verdicts fail, and so does the run; but each has a risk of its own, "
        "too large to fail a release of 2: --blocks 12 or more settles that"
    )
    assert exit_code([weak, cell(PASS)], strict=False) == ExitCode.GATE_FAILED
    assert exit_code([weak, cell(PASS)], strict=True) == ExitCode.GATE_FAILED
    twice = cell(FAIL, through_all_looks([9.0] * 12, target)[1])
    assert release([twice, cell(PASS)]).outcome is FAIL


def test_who_failed_comes_strongest_first() -> None:
    found = release([cell(FAIL, 0.002, "5.10"), cell(PASS), cell(FAIL, 1e-6, "7.3")])
    assert [finding.kernel for finding in found.failing] == ["7.3", "5.10"]


def test_only_a_failed_cell_can_fail_the_release() -> None:
    """A PASS stands by its first look, whatever later blocks would have said."""
    assert release([cell(PASS, 1e-9), cell(OPEN, 1e-9)]).outcome is OPEN


@pytest.mark.parametrize("alphas", [ONE_LIMIT, TWO_LIMITS])
@pytest.mark.parametrize("family", [2, 11, 12, 40, 1000])
def test_blocks_needed_are_enough_under_every_rule(alphas: tuple[float, ...], family: int) -> None:
    """A cell whose every block lies far beyond the limit fails a release by then."""
    blocks = [9.0] * (blocks_needed(family) or 0)
    for kind in InferenceKind:
        target = Target(low=None, high=1.0, kind=kind, alphas=alphas)
        worst = cell(FAIL, through_all_looks(blocks, target)[1])
        assert release([worst, *[cell(PASS)] * (family - 1)]).outcome is FAIL


def test_releases_at_the_boundary_fail_rarely() -> None:
    """40 cells, each exactly at its limit: 51 % would fail uncorrected."""
    rng = np.random.default_rng(7)
    target = Target(low=0.0, high=None)
    releases, wrong, uncorrected = 150, 0, 0
    for _ in range(releases):
        values = rng.standard_normal((40, 32))
        sides = first_decisions(values, target).side
        found = release(
            cell(FAIL, through_all_looks(list(row), target)[1]) if side < 0 else cell(OPEN)
            for row, side in zip(values, sides, strict=True)
        )
        wrong += found.outcome is FAIL
        uncorrected += bool((sides < 0).any())
    assert wrong / releases <= 2 * ALPHA
    assert uncorrected / releases > 0.3
