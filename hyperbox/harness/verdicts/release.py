"""One verdict on a release from the verdicts of its whole matrix. Pure.

PASS is an intersection-union test: every decided cell must PASS by itself. A release that
misses a target then passes only if that very cell errs, so no correction is needed
(Berger 1982). FAIL says that some target is missed, so with 40 cells there are 40 chances
to err: it is controlled family-wise by Holm's step-down of Bonferroni's bound, which
holds however the cells depend on each other. In between the release is INCONCLUSIVE:
cells FAIL one by one, but too weakly for the number of cells; more blocks settle that. The
run fails all the same (`gates.exit_code`): each FAIL stands for its own cell, at the risk
that every verdict carries. With 8 blocks, no single cell of two or more can FAIL a release.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from hyperbox.harness.model import Lane, Outcome, Verdict
from hyperbox.harness.statistics.design import ALPHA
from hyperbox.harness.statistics.multiplicity import blocks_needed, holm

__all__ = ["CellFinding", "ReleaseVerdict", "release"]

_MOST_NAMED = 5


@dataclass(frozen=True)
class CellFinding:
    """One gate on one kernel as part of the family.

    `p` is the p-value of "the target is missed" over all looks (1 unless the cell's
    outcome is FAIL), `adjusted_p` Holm's adjustment of it for the whole family.
    """

    gate: str
    kernel: str
    lane: Lane
    outcome: Outcome
    p: float
    adjusted_p: float

    @property
    def fails_release(self) -> bool:
        """Whether this cell alone makes the release FAIL."""
        return self.adjusted_p <= ALPHA


@dataclass(frozen=True)
class ReleaseVerdict:
    """What the whole matrix says.

    `skipped` counts the cells that answer nothing, `holes` those of them for which no other
    gate stands in; `unanswered` are the gates that are skipped on every kernel.
    """

    outcome: Outcome
    reason: str
    findings: tuple[CellFinding, ...]
    skipped: int
    holes: int = 0
    unanswered: tuple[str, ...] = ()

    @property
    def failing(self) -> tuple[CellFinding, ...]:
        """The cells that make the release FAIL, strongest evidence first."""
        failing = [finding for finding in self.findings if finding.fails_release]
        return tuple(sorted(failing, key=lambda finding: finding.adjusted_p))


def release(verdicts: Iterable[Verdict]) -> ReleaseVerdict:
    """Return the verdict on a release.

    A SKIP is not part of the family: its gate's fallback, which is, must have passed there
    (see `fallbacks`). Without that it is a hole, and the release cannot pass. An ERROR is part
    of the family and keeps the release from passing.
    """
    given = tuple(verdicts)
    family = [verdict for verdict in given if verdict.outcome is not Outcome.SKIP]
    raw = [_p_missed(verdict) for verdict in family]
    findings = tuple(
        CellFinding(cell.gate, cell.kernel, cell.lane, cell.outcome, p, adjusted)
        for cell, p, adjusted in zip(family, raw, holm(raw), strict=True)
    )
    outcome, reason = _decided(findings)
    holes = sum(verdict.is_hole for verdict in given)
    if holes and outcome is Outcome.PASS:
        outcome = Outcome.INCONCLUSIVE
    answered = {verdict.gate for verdict in family}
    unanswered = tuple(dict.fromkeys(v.gate for v in given if v.gate not in answered))
    reasons = (reason, *_skips(given), *_unanswered(unanswered))
    return ReleaseVerdict(
        outcome, "; ".join(reasons), findings, len(given) - len(family), holes, unanswered
    )


def _skips(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Say which gates stood in for skipped ones, and how many had none."""
    stood_in = Counter(verdict.stand_in for verdict in verdicts if verdict.stand_in)
    for gate, count in stood_in.items():
        yield f"{gate} passes in the place of {count} skipped"
    holes = sum(verdict.is_hole for verdict in verdicts)
    if holes:
        yield f"no gate passes in the place of {holes} skipped"


def _unanswered(gates: Sequence[str]) -> Iterator[str]:
    if gates:
        named = ", ".join(gates[:_MOST_NAMED]) + (" ..." if len(gates) > _MOST_NAMED else "")
        yield f"skipped on every kernel: {named}"


def _p_missed(verdict: Verdict) -> float:
    """Return the p-value of a miss; a count that fails is certain, and has none."""
    if verdict.outcome is not Outcome.FAIL:
        return 1.0
    return verdict.details.get("p_missed_all_looks", 0.0)


def _decided(findings: Sequence[CellFinding]) -> tuple[Outcome, str]:
    outcomes = [finding.outcome for finding in findings]
    total, passed, failed = (
        len(outcomes),
        outcomes.count(Outcome.PASS),
        outcomes.count(Outcome.FAIL),
    )
    errors = outcomes.count(Outcome.ERROR)
    proven = sum(1 for finding in findings if finding.fails_release)
    if proven:
        return Outcome.FAIL, (
            f"{proven} of {total} verdicts fail, with at most {100 * ALPHA:g} % "
            "risk of any wrong one among them"
        )
    if errors or not total:
        what = f"{errors} of {total} verdicts broke" if total else "nothing was measured"
        return Outcome.ERROR, f"{what}: the release is not judged"
    if passed == total:
        return Outcome.PASS, f"all {total} verdicts pass"
    if failed:
        look = blocks_needed(total)
        more = f"--blocks {look} or more settles that" if look else "measure fewer gates at once"
        return Outcome.INCONCLUSIVE, (
            f"{failed} of {total} verdicts fail, and so does the run; "
            f"but each has a risk of its own, too large to fail a release of {total}: {more}"
        )
    return Outcome.INCONCLUSIVE, f"{total - passed} of {total} verdicts are inconclusive"
