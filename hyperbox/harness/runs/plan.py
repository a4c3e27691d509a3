"""What a run will do, decided before it starts and from the seed alone; pure.

Order of arms and perturbation of starts come from SHA-256 of seed, kernel, experiment and
block, so a resumed run repeats exactly what the interrupted one would have done.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from hyperbox.errors import ConfigError, near
from hyperbox.harness.model import Cell, Experiment, Gate, Lane, Perturbation, Suite

__all__ = ["Block", "Plan", "blocks_of", "fault_of", "make_plan", "select"]

_MAX_DELAY_NS = 20_000_000  # five scheduler ticks at 250 Hz: any phase can occur
_MAX_PADDING = 2048  # moves the stack by up to half a page
_MAX_NOISE_PAGES = 1024
_DOT = re.compile(r"\.")
_NAME = re.compile(r"[^/\x00-\x1f\x7f]{1,80}")


@dataclass(frozen=True)
class Block:
    """One paired repetition: its number, the arms' order, the start that they share."""

    number: int
    order: tuple[str, ...]
    start: Perturbation


@dataclass(frozen=True)
class Plan:
    """Everything that decides what a run measures.

    `kernels` are labels, oldest first. `experiments` carry the number of blocks in force.
    `lane` decides; the lanes `beside` are measured and reported too, and decide nothing.
    """

    kernels: tuple[str, ...]
    lane: Lane
    experiments: tuple[Experiment, ...]
    gates: tuple[Gate, ...]
    seed: int
    beside: tuple[Lane, ...] = ()

    @property
    def family(self) -> int:
        """How many verdicts decide together, if no kernel skips one."""
        return max(1, len(self.gates) * len(self.kernels))

    def cells(self) -> tuple[Cell, ...]:
        """Return the cells, kernels innermost: neighbours can run side by side."""
        return tuple(
            Cell(kernel, experiment.id, lane)
            for lane in (self.lane, *self.beside)
            for experiment in self.experiments
            for kernel in self.kernels
        )

    def experiment(self, experiment_id: str) -> Experiment:
        """Return the experiment with this id; KeyError if there is none."""
        for experiment in self.experiments:
            if experiment.id == experiment_id:
                return experiment
        raise KeyError(experiment_id)

    def gates_of(self, experiment_id: str) -> tuple[Gate, ...]:
        """Return the gates that an experiment decides."""
        return tuple(gate for gate in self.gates if gate.experiment == experiment_id)


def fault_of(plan: Plan) -> str:
    """Say what is wrong with a plan that was read back; "" if nothing is.

    Names become names of files; one name for two things would give one of them the other's
    verdict, and a gate without its experiment none at all.
    """
    named: list[tuple[str, Sequence[str]]] = [
        ("lane", (plan.lane, *plan.beside)),
        ("kernel", plan.kernels),
        ("experiment", [one.id for one in plan.experiments]),
        ("gate", [gate.id for gate in plan.gates]),
    ]
    for one in plan.experiments:
        named.append((f"arm of {one.id}", [arm.id for arm in one.arms]))
        named.append((f"metric of {one.id}", [metric.id for metric in one.metrics]))
    for kind, names in named:
        for name in names:
            if not _NAME.fullmatch(name):
                return f"{kind} {str(name)[:80]!r} is not a name"
            if names.count(name) > 1:
                return f"{kind} {str(name)!r} stands twice in its plan"
    known = {one.id for one in plan.experiments}
    lost = next((gate for gate in plan.gates if gate.experiment not in known), None)
    return f"gate {lost.id} needs the experiment {lost.experiment!r}, not planned" if lost else ""


def blocks_of(cell: Cell, experiment: Experiment, seed: int) -> Iterator[Block]:
    """Return the cell's blocks in order; same arguments, same blocks."""
    for number in range(experiment.blocks):
        key = f"{seed}/{cell.kernel}/{experiment.id}/{number}"
        digest = hashlib.sha256(key.encode()).digest()
        dice = random.Random(int.from_bytes(digest[:16], "big"))  # noqa: S311 - not a secret
        order = [arm.id for arm in experiment.arms]
        dice.shuffle(order)
        start = Perturbation(
            seed=dice.randrange(1 << 31),
            delay_ns=dice.randrange(_MAX_DELAY_NS),
            padding=dice.randrange(_MAX_PADDING),
            noise_pages=dice.randrange(_MAX_NOISE_PAGES),
        )
        yield Block(number, tuple(order), start)


def select(
    suites: Sequence[Suite], names: Collection[str]
) -> tuple[tuple[Experiment, ...], tuple[Gate, ...]]:
    """Return the experiments and gates that the names of suites or gates ask for.

    ``storage.start`` asks for ``storage.start.debian`` and all others that go on with a dot.
    No names ask for every gate of the experiments that run by default.

    Raises
    ------
    ConfigError
        If a name is neither a suite nor a gate, with near matches.
    """
    gates = [gate for suite in suites for gate in suite.gates]
    wanted: set[str] = set()
    for name in names:
        suite = next((suite for suite in suites if suite.id == name), None)
        if suite is not None:
            wanted.update(gate.id for gate in suite.gates)
        elif of_name := [gate.id for gate in gates if f"{gate.id}.".startswith(f"{name}.")]:
            wanted.update(of_name)  # the gate, or its variants
        else:
            ends = [(gate.id, found.start()) for gate in gates for found in _DOT.finditer(gate.id)]
            known = {*(suite.id for suite in suites), *(gate.id for gate in gates)}
            known |= {gate_id[:end] for gate_id, end in ends}
            raise ConfigError(f"no gate or suite is called {name!r}", hint=near(name, known))
    usual = {e.id for suite in suites for e in suite.experiments if e.default}
    chosen = tuple(
        gate for gate in gates if (gate.id in wanted if names else gate.experiment in usual)
    )
    if not chosen:
        raise ConfigError("nothing to decide: these suites declare no gate")
    used = {gate.experiment for gate in chosen}
    experiments = tuple(e for suite in suites for e in suite.experiments if e.id in used)
    return experiments, chosen


def make_plan(
    suites: Sequence[Suite],
    *,
    names: Collection[str] = (),
    kernels: Sequence[str],
    lane: Lane,
    seed: int,
    blocks: int | None = None,
    beside: Sequence[Lane] = (),
) -> Plan:
    """Plan a run; `blocks` overrides the experiments' own number.

    Raises
    ------
    ConfigError
        If a name does not exist, or an experiment cannot be measured in one of the lanes.
    """
    experiments, gates = select(suites, names)
    for experiment in experiments:
        if experiment.machine.processors > 1 and Lane.EXACT in (lane, *beside):
            raise ConfigError(
                f"{experiment.id} needs {experiment.machine.processors} processors, and the exact "
                "lane has one",
                hint="use --lane fast (or kvm), or name other gates",
            )
    if blocks is not None:
        experiments = tuple(replace(experiment, blocks=blocks) for experiment in experiments)
    others = tuple(dict.fromkeys(other for other in beside if other is not lane))
    return Plan(tuple(dict.fromkeys(kernels)), lane, experiments, gates, seed, others)
