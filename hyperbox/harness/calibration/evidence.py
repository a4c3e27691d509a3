"""Real runs with known answers: arms that are the same, and planted effects. Pure.

Gates named ``harness.false_alarm.*`` compare an arm with its equal (A/A): the true change
is 0. Gates named ``harness.power.*`` judge a planted effect; if their experiment has a
metric ``planted``, its value for the judged arm is the true relative change (in percent
if its unit is ``%``), else the gate is declared so that PASS means "found".

Each of the two pairs of arms is judged by the targets of both gates, so that both a
wrong PASS and a wrong FAIL can be seen: equal arms must not "take at least 0.25 % less".
Verdicts of one cell share its blocks, so they are wrong together more often than apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hyperbox.harness.calibration.answers import (
    ALARMS,
    PLANTED,
    Checks,
    KnownCell,
    checked,
    claims_at_first_look,
    expected,
    known_change,
)
from hyperbox.harness.calibration.starts import needed, right_by_look
from hyperbox.harness.model import Gate, Outcome, Verdict
from hyperbox.harness.statistics.design import ALPHA, LOOK_ALPHA
from hyperbox.harness.statistics.proportions import Rate

__all__ = ["Evidence", "PlantedEffect", "SameArms", "evidence_of"]


@dataclass(frozen=True)
class SameArms:
    """Arms that are the same, by one metric on one kernel, and what was said of them.

    `wrong` says whether the gate's own verdict errs. `up` and `down` count the groups of
    8 successive blocks, of `groups`, that claim a change at the first look. `blocks` were
    measured; numbers are in the verdict's terms.
    """

    gate: str
    kernel: str
    lane: str
    blocks: int
    estimate: float | None
    low: float | None
    high: float | None
    outcome: Outcome
    wrong: bool
    groups: int
    up: int
    down: int
    checks: Checks


@dataclass(frozen=True)
class PlantedEffect:
    """A planted effect and what its gate said.

    `planted` is the true relative change (or difference), None if the run does not say.
    `found` says whether the verdict is the right one, `covered` whether the interval
    holds the truth (None if either is unknown). `right_by_look` is the share of right
    verdicts by each planned look when the measured starts are drawn again with
    replacement. `starts` is how many starts the right verdict took; if it did not come,
    the first look by which at least 80 % of the drawn ones have it (None: none has).
    """

    gate: str
    kernel: str
    lane: str
    planted: float | None
    blocks: int
    estimate: float | None
    low: float | None
    high: float | None
    outcome: Outcome
    found: bool
    covered: bool | None
    right_by_look: tuple[float, ...]
    starts: int | None
    checks: Checks


@dataclass(frozen=True)
class Evidence:
    """What one run says about the harness. `unknown` names gates without use, and why."""

    run: str
    same: tuple[SameArms, ...]
    planted: tuple[PlantedEffect, ...]
    unknown: tuple[str, ...] = ()

    @property
    def false_pass(self) -> Rate:
        """Wrong PASS among the verdicts whose right answer is FAIL."""
        checks = self._checks()
        return Rate(sum(c.wrong_passes for c in checks), sum(c.fails_expected for c in checks))

    @property
    def false_fail(self) -> Rate:
        """Wrong FAIL among the verdicts whose right answer is PASS."""
        checks = self._checks()
        return Rate(sum(c.wrong_fails for c in checks), sum(c.passes_expected for c in checks))

    @property
    def alarms(self) -> Rate:
        """Wrong verdicts of the A/A gates themselves."""
        return Rate(sum(one.wrong for one in self.same), len(self.same))

    @property
    def above(self) -> Rate:
        """Groups of 8 successive A/A blocks that claim a rise; `LOOK_ALPHA` bounds it."""
        return Rate(sum(one.up for one in self.same), sum(one.groups for one in self.same))

    @property
    def below(self) -> Rate:
        """Groups of 8 successive A/A blocks that claim a fall."""
        return Rate(sum(one.down for one in self.same), sum(one.groups for one in self.same))

    @property
    def kept(self) -> bool:
        """Whether the counts are compatible with the promise.

        A run has few blocks, so its upper bounds are wide; it speaks against the promise
        only where even the lower bound exceeds it.
        """
        verdicts = max(self.false_pass.lower, self.false_fail.lower)
        groups = max(self.above.lower, self.below.lower)
        alarms_fit = self.alarms.lower <= 2 * ALPHA
        return alarms_fit and verdicts <= ALPHA and groups <= LOOK_ALPHA

    def _checks(self) -> list[Checks]:
        return [one.checks for one in self.same] + [one.checks for one in self.planted]

    def document(self) -> dict[str, Any]:
        """Return the evidence as JSON data."""
        names = ("false_pass", "false_fail", "alarms", "above", "below")
        rates = {name: getattr(self, name).document() for name in names}
        return {**asdict(self), **rates, "kept": self.kept}


def evidence_of(
    run: str, gates: Sequence[Gate], verdicts: Iterable[Verdict], cells: Iterable[KnownCell]
) -> Evidence:
    """Gather what a run's gates with known answers say."""
    measured = {(c.cell.kernel, c.cell.lane, c.experiment.id): c for c in cells}
    known = {gate.id: gate for gate in gates if gate.id.startswith((ALARMS, PLANTED))}
    same, planted, unknown = [], [], []
    for verdict in verdicts:
        gate = known.get(verdict.gate)
        cell = measured.get((verdict.kernel, verdict.lane, gate.experiment)) if gate else None
        if gate is None or cell is None:
            continue
        if verdict.outcome in (Outcome.SKIP, Outcome.ERROR):
            unknown.append(f"{gate.id} on {verdict.kernel}: {verdict.outcome}, {verdict.reason}")
            continue
        if not gate.is_paired and gate.id.startswith(ALARMS):
            unknown.append(f"{gate.id} on {verdict.kernel}: a level has no known answer")
            continue
        checks = checked(gate, cell, known.values())
        if gate.id.startswith(ALARMS):
            same.append(_same(gate, cell, verdict, checks))
        else:
            planted.append(_planted(gate, cell, verdict, checks))
    return Evidence(run, tuple(same), tuple(planted), tuple(unknown))


def _same(gate: Gate, cell: KnownCell, verdict: Verdict, checks: Checks) -> SameArms:
    """Count verdicts on equal arms; at a limit of 0 their verdict may claim nothing at all."""
    claims = claims_at_first_look(gate, cell.samples)
    right = (expected(gate, cell, 0.0), Outcome.INCONCLUSIVE)
    return SameArms(
        gate=gate.id,
        kernel=verdict.kernel,
        lane=str(verdict.lane),
        blocks=int(verdict.details.get("measured", verdict.n)),
        estimate=verdict.estimate,
        low=verdict.low,
        high=verdict.high,
        outcome=verdict.outcome,
        wrong=verdict.outcome not in right,
        groups=len(claims),
        up=claims.count(1),
        down=claims.count(-1),
        checks=checks,
    )


def _planted(gate: Gate, cell: KnownCell, verdict: Verdict, checks: Checks) -> PlantedEffect:
    change = known_change(gate, cell)
    right = Outcome.PASS if change is None else expected(gate, cell, change)
    covered = None
    if change is not None and verdict.low is not None and verdict.high is not None:
        covered = verdict.low <= change <= verdict.high
    shares = () if right is None else right_by_look(gate, cell, right)
    return PlantedEffect(
        gate=gate.id,
        kernel=verdict.kernel,
        lane=str(verdict.lane),
        planted=change,
        blocks=int(verdict.details.get("measured", verdict.n)),
        estimate=verdict.estimate,
        low=verdict.low,
        high=verdict.high,
        outcome=verdict.outcome,
        found=verdict.outcome is right,
        covered=covered,
        right_by_look=shares,
        starts=verdict.n if verdict.outcome is right else needed(shares),
        checks=checks,
    )
