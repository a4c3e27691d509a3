"""Simulated measurements through the very code that decides gates. Pure, from seeds.

The decided values of many samples go through `sequential.first_decisions`, which decides
every gate; some of them go through `gates.decide` as well, from samples on, and must come
out the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

import hyperbox
from hyperbox.errors import HarnessError
from hyperbox.harness.calibration.evidence import Evidence
from hyperbox.harness.calibration.findings import (
    Calibration,
    EffectRates,
    ExactCell,
    Family,
    RuleRates,
)
from hyperbox.harness.calibration.grid import EXPERIMENT, METRIC, Scenario, Size, scenarios
from hyperbox.harness.calibration.noise import PAIR_NOISE
from hyperbox.harness.model import Gate, Lane, Outcome, Rule, Sample
from hyperbox.harness.statistics.design import ALPHA, LOOKS, Target
from hyperbox.harness.statistics.multiplicity import holm
from hyperbox.harness.statistics.proportions import Rate
from hyperbox.harness.statistics.sequential import Decisions, first_decisions, through_all_looks
from hyperbox.harness.verdicts.blocks import DecidedBlock
from hyperbox.harness.verdicts.diagnosis import UNDERPOWERED, diagnose
from hyperbox.harness.verdicts.gates import decide
from hyperbox.harness.verdicts.targets import target_of

__all__ = ["calibrate", "exact_cells", "family", "row", "row_at"]

Matrix = npt.NDArray[np.float64]

_SIDES = {1: Outcome.PASS, -1: Outcome.FAIL, 0: Outcome.INCONCLUSIVE}
_BATCH = 20_000  # samples drawn at a time
_SPREADS = (0.0005, 0.001, 0.01, 0.02)
_PLANTED = (0.0, 0.001, 0.003, 0.005, 0.01, 0.02, 0.05)
_EXACT_GATE = Scenario(Rule.NON_INFERIOR, 0.002, PAIR_NOISE["normal"]).gate
_FAMILY = 40
_RELEASES = 500  # releases drawn at a time


def calibrate(
    rows: Iterable[tuple[RuleRates, int]], size: Size, seed: int, evidence: Sequence[Evidence] = ()
) -> Calibration:
    """Put the rows of all scenarios (see `row`) together with the rest of a calibration."""
    found = list(rows)
    return Calibration(
        hyperbox_version=hyperbox.__version__,
        seed=seed,
        rows=tuple(simulated for simulated, _ in found),
        exact=exact_cells(size, seed),
        family=family(size, seed),
        checked=sum(count for _, count in found),
        evidence=tuple(evidence),
    )


def row(scenario: Scenario, size: Size, seed: int) -> tuple[RuleRates, int]:
    """Simulate one scenario; also give how many samples were decided one at a time too.

    Same arguments, same result.

    Raises
    ------
    HarnessError
        If a sample is decided differently one at a time and among many.
    """
    rng = _dice(seed, scenario.rule, scenario.margin, scenario.lane, scenario.noise.id)
    target = target_of(scenario.gate, METRIC, scenario.lane)
    checked = _check(scenario, target, rng, size.checked)
    cells = tuple(_cell(scenario, target, effect, size, rng) for effect in scenario.effects(size))
    found = RuleRates(
        rule=str(scenario.rule),
        margin=scenario.margin,
        lane=scenario.lane,
        noise=scenario.noise.id,
        title=scenario.noise.title,
        promised=scenario.noise.promised,
        cells=cells,
        marked=_marked(scenario, target, rng, size.diagnosed),
    )
    return found, checked


def row_at(place: int, size: Size, seed: int) -> tuple[RuleRates, int]:
    """Simulate the scenario at a place of the grid, for workers: noise cannot be sent."""
    return row(tuple(scenarios())[place], size, seed)


def exact_cells(size: Size, seed: int) -> tuple[ExactCell, ...]:
    """Plant changes under spreads of starts, 8 starts each, against a limit of 0.2 %."""
    rng = _dice(seed, "exact")
    target = target_of(_EXACT_GATE, METRIC, Lane.EXACT)
    found = []
    for spread in _SPREADS:
        for planted in _PLANTED:
            values = rng.normal(math.log1p(planted), spread, (size.exact, LOOKS[0]))
            side = first_decisions(values, target).side
            passes, fails = int((side == 1).sum()), int((side == -1).sum())
            limit = _EXACT_GATE.margin
            found.append(ExactCell(spread, planted, limit, passes, fails, size.exact))
    return tuple(found)


def family(size: Size, seed: int) -> Family:
    """Judge releases whose every target is met by nothing: each cell lies at its limit."""
    rng = _dice(seed, "family")
    target = Target(low=0.0, high=None)
    corrected = uncorrected = 0
    for start in range(0, size.releases, _RELEASES):
        count = min(_RELEASES, size.releases - start)
        values = rng.standard_normal((count * _FAMILY, LOOKS[-1]))
        failed = np.flatnonzero(first_decisions(values, target).side == -1)
        releases: dict[int, list[float]] = {}
        for place in failed:
            p_value = through_all_looks(values[place].tolist(), target)[1]
            releases.setdefault(int(place) // _FAMILY, []).append(p_value)
        uncorrected += len(releases)
        for p_values in releases.values():
            others = [1.0] * (_FAMILY - len(p_values))
            corrected += min(holm([*p_values, *others])) <= ALPHA
    return Family(_FAMILY, Rate(corrected, size.releases), Rate(uncorrected, size.releases))


def _cell(
    scenario: Scenario, target: Target, effect: float, size: Size, rng: np.random.Generator
) -> EffectRates:
    trials = size.elsewhere if effect else size.at_limit
    counts = np.zeros((2, len(LOOKS)), dtype=np.int64)
    for start in range(0, trials, _BATCH):
        values = _values(scenario, target, effect, min(_BATCH, trials - start), rng)
        counts += _by_look(first_decisions(values, target))
    passes, fails = (tuple(int(count) for count in line) for line in counts)
    return EffectRates(effect, trials, passes, fails)


def _values(
    scenario: Scenario, target: Target, effect: float, rows: int, rng: np.random.Generator
) -> Matrix:
    """Draw decided values whose true location is `effect` deviations on the good side."""
    noise = scenario.noise.draw(rng, rows, LOOKS[-1])
    if target.high is not None:
        location, good = target.high, -1.0
    else:
        assert target.low is not None
        location, good = target.low, 1.0
    values: Matrix = location + scenario.deviation * (good * effect + noise)
    return values


def _by_look(decisions: Decisions) -> npt.NDArray[np.int64]:
    """Count PASS (first line) and FAIL decided up to each look."""
    return np.array(
        [
            [int(((decisions.side == side) & (decisions.n <= look)).sum()) for look in LOOKS]
            for side in (1, -1)
        ],
        dtype=np.int64,
    )


def _check(scenario: Scenario, target: Target, rng: np.random.Generator, count: int) -> int:
    """Decide some samples one at a time, as a run does, and compare."""
    gate = scenario.gate
    for effect in (0.0, 1.0):
        values = _values(scenario, target, effect, count, rng)
        together = first_decisions(values, target)
        for place, line in enumerate(values):
            samples = _samples(gate, line)
            alone = decide(gate, EXPERIMENT, "simulated", scenario.lane, samples)
            side = int(together.side[place])
            if (alone.outcome, alone.n) != (_SIDES[side], int(together.n[place])):
                raise HarnessError(
                    f"{gate.rule} under {scenario.noise.id} noise: one sample is {alone.outcome} "
                    f"at {alone.n} blocks alone and {_SIDES[side]} among many",
                    hint="this is a bug in the statistics: report it with the seed",
                )
    return 2 * count


def _samples(gate: Gate, values: Matrix) -> list[Sample]:
    if not gate.is_paired:
        return [Sample(block, 0, gate.arm, METRIC.id, float(v)) for block, v in enumerate(values)]
    baseline = gate.baseline or ""
    samples = [Sample(block, 0, baseline, METRIC.id, 1.0) for block in range(len(values))]
    return samples + [
        Sample(block, 1, gate.arm, METRIC.id, math.exp(value)) for block, value in enumerate(values)
    ]


def _marked(scenario: Scenario, target: Target, rng: np.random.Generator, count: int) -> Rate:
    """Count samples at the limit with a remark other than on power."""
    marked = 0
    for line in _values(scenario, target, 0.0, count, rng):
        order = rng.random(len(line)) < 0.5
        blocks = [
            DecidedBlock(n, float(v), bool(f))
            for n, (v, f) in enumerate(zip(line, order, strict=True))
        ]
        remarks = diagnose(scenario.gate, blocks, target, LOOKS[-1]).remarks
        marked += any(not remark.startswith(UNDERPOWERED) for remark in remarks)
    return Rate(marked, count)


def _dice(seed: int, *names: object) -> np.random.Generator:
    """Return a generator of its own for each part, so that parts can be run apart."""
    words = [ord(letter) for letter in repr(names)]
    return np.random.default_rng([seed, *words])
