"""The values that flow through the main job: Suite -> Cell -> Sample -> Verdict.

Frozen data only; no effects. The vocabulary is the README's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = [
    "LEAST_MEMORY_MIB",
    "Arm",
    "Cell",
    "Experiment",
    "Gate",
    "Lane",
    "MachineRequest",
    "Metric",
    "Outcome",
    "Perturbation",
    "Rule",
    "Sample",
    "Scale",
    "Suite",
    "Verdict",
]

LEAST_MEMORY_MIB = 256
"""MiB with which the guests' root still comes up."""
_READY_S = 1200.0  # boots, warm-up and preparation, perhaps after another cell's of the kernel


class Rule(StrEnum):
    """How a metric decides a gate.

    Paired rules look at blocks of two arms with d = log(tuned/baseline), or at differences
    if `Gate.scale` says so; level rules look at one value per block of a single arm.
    """

    REDUCES_AT_LEAST = "reduces_at_least"
    """Ratio: tuned is lower than baseline by at least `margin` (0.05 = 5 %)."""
    NON_INFERIOR = "non_inferior"
    """Ratio: tuned is worse than baseline by less than `margin`; `Metric.better` says
    which way is worse."""
    WITHIN = "within"
    """Ratio: tuned and baseline are equivalent: neither is more than `margin` above the
    other (0.02 = 2 %)."""
    AT_MOST = "at_most"
    """Level: the value stays at or below `margin`, in the metric's unit."""
    AT_LEAST = "at_least"
    """Level: the value stays at or above `margin`, in the metric's unit."""
    COUNT = "count"
    """Exact: every single sample is at or below `margin`; decided at once."""


class Scale(StrEnum):
    """How a paired rule compares its two arms."""

    RATIO = "ratio"
    """By log(tuned/baseline): `margin` is a fraction, values must be positive."""
    DIFFERENCE = "difference"
    """By tuned - baseline: `margin` is in the metric's unit. For metrics near zero."""


class Outcome(StrEnum):
    """PASS, FAIL and INCONCLUSIVE are verdicts on the target; SKIP and ERROR are not."""

    PASS = "PASS"  # noqa: S105 - a verdict, not a password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    SKIP = "SKIP"
    ERROR = "ERROR"


class Lane(StrEnum):
    """How time passes on the machine, and so what its numbers mean."""

    EXACT = "exact"
    """Emulated, virtual time counts instructions: measures work, repeatable."""
    FAST = "fast"
    """Emulated with host time: measures emulator speed; for counts and exploration."""
    KVM = "kvm"
    """Hardware virtualisation: measures hardware time."""
    HOST = "host"
    """The machine itself."""


@dataclass(frozen=True)
class Metric:
    """One measured quantity of an experiment.

    `unit` is a UCUM-like string ("us", "1/s", "%", "pages", "MiB", "1"). `better` is
    "lower", "higher" or "neither" (context that no gate may use as a ratio). A value below
    `least` or above `most` cannot have been measured (None: any may): it is an ERROR.
    """

    id: str
    title: str
    unit: str
    better: str = "lower"
    least: float | None = 0.0
    most: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a value lies within the range."""
        low = -math.inf if self.least is None else self.least
        return low <= value <= (math.inf if self.most is None else self.most)

    def range_text(self) -> str:
        """Return the range in words: ``at least 0``, ``-1 to 1``."""
        if self.least is None or self.most is None:
            limits = (("at least", self.least), ("at most", self.most))
            return next((f"{word} {edge:g}" for word, edge in limits if edge is not None), "any")
        return f"{self.least:g} to {self.most:g}"


@dataclass(frozen=True)
class Arm:
    """One configuration that an experiment measures."""

    id: str
    title: str


@dataclass(frozen=True)
class MachineRequest:
    """The guest that an experiment asks for.

    `memory_mib` is its memory in MiB, `commandline` is added to the kernel's command line.
    More than one of `processors` cannot be had in the exact lane: QEMU records the
    interleaving of one only (QEMU: docs/system/replay.rst). `mitigations` False boots with
    ``mitigations=off``, which makes system calls cheaper than they are in production.
    `without_modules` names modules that its kernel does not have, `modules` is a directory of
    the project with ``.ko`` files that take the place of the kernel's own: both before the
    root is mounted.
    """

    memory_mib: int = 768
    processors: int = 1
    commandline: str = ""
    mitigations: bool = True
    without_modules: tuple[str, ...] = ()
    modules: str = ""


@dataclass(frozen=True)
class Experiment:
    """Arms measured on a machine by one program.

    `program` is the command line run on a fresh machine for each arm of each block, in
    the project directory, with ``{arm}`` replaced by the arm's id. It prints one JSON
    object as its last line of output: ``{"metrics": {metric id: number}, "notes": {...}}``.
    Exit status 77 means "this kernel cannot do it", with ``{"skip": reason}`` as the last
    line; any other non-zero status is a workload failure.

    `prepare` runs once per kernel before the snapshot that all arms and blocks share.
    `blocks` is the largest number of blocks; looks happen at the planned counts up to it.
    `timeout_s` is host time for one arm, `limit_s` for a whole attempt at a cell with
    everything that it takes; None: see `limit`. `changes_machine` says that the program changes
    settings beyond its own processes (refused on the host unless allowed). `machine` is the
    guest that it needs (the host is what it is: a command line for it is refused there).
    `uses` names modules and files of the project that the program needs and its imports do not
    show ("hyperbox.cli.daemon", "suites/psi/*.json"): nothing else is in its guests.
    `layers` names what guests have beside their root (``vm-images/layers.toml``).
    `default` False keeps a costly experiment out of runs that name no suite or gate.
    """

    id: str
    suite: str
    title: str
    arms: tuple[Arm, ...]
    metrics: tuple[Metric, ...]
    program: tuple[str, ...]
    prepare: tuple[str, ...] = ()
    blocks: int = 8
    timeout_s: float = 300.0
    changes_machine: bool = True
    machine: MachineRequest = MachineRequest()
    default: bool = True
    limit_s: float | None = None
    uses: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()

    @property
    def limit(self) -> float:
        """Host seconds for a whole attempt at a cell.

        Not declared, it leaves time to make the machine ready, one arm its whole `timeout_s`,
        and the others a quarter each: measured ones take a tenth of it.
        """
        if self.limit_s is not None:
            return self.limit_s
        others = self.blocks * len(self.arms) - 1
        return _READY_S + self.timeout_s * (1 + others / 4)

    def metric(self, metric_id: str) -> Metric:
        """Return the metric with this id; KeyError if there is none."""
        return _find(self.metrics, metric_id)


@dataclass(frozen=True)
class Gate:
    """A target with metric, rule and margin.

    `arm` is the arm judged (the tuned one); `baseline` the arm compared against, for
    paired rules, on `scale`. `band_upper` (a fraction) adds the remark "exceeds band" to a PASS
    beyond it. `fallback` is the id of the gate that must pass on a kernel where this one is
    skipped.
    """

    id: str
    title: str
    target: str
    experiment: str
    metric: str
    rule: Rule
    margin: float
    arm: str
    baseline: str | None = None
    band_upper: float | None = None
    scale: Scale = Scale.RATIO
    fallback: str | None = None

    @property
    def is_paired(self) -> bool:
        """Whether the rule compares two arms."""
        return self.rule in (Rule.REDUCES_AT_LEAST, Rule.NON_INFERIOR, Rule.WITHIN)

    @property
    def is_ratio(self) -> bool:
        """Whether the rule compares two arms, and by their ratio."""
        return self.is_paired and self.scale is Scale.RATIO


@dataclass(frozen=True)
class Suite:
    """Experiments and gates of one feature."""

    id: str
    title: str
    experiments: tuple[Experiment, ...]
    gates: tuple[Gate, ...]


@dataclass(frozen=True)
class Perturbation:
    """Seeded perturbation of one block's start; both arms of the block share it.

    Repeatable is not unbiased: code placement and start phase shift results by 1-2 %,
    so blocks differ in `delay_ns` (start phase), `padding` (bytes of environment, which
    moves the stack), `noise_pages` (pages touched and freed before the start, which changes
    what memory comes next) and `seed` (the program's random seed, and in a guest also the
    kernel's, which draws address layouts).
    """

    seed: int
    delay_ns: int = 0
    padding: int = 0
    noise_pages: int = 0

    def environment(self) -> dict[str, str]:
        """Return the environment variables that carry the perturbation to the program."""
        return {"HYPERBOX_SEED": str(self.seed), "HYPERBOX_PADDING": "x" * self.padding}


@dataclass(frozen=True)
class Cell:
    """Kernel x experiment: the unit of work, recording and resuming."""

    kernel: str
    experiment: str
    lane: Lane

    @property
    def key(self) -> str:
        """Directory name of the cell: ``<kernel>--<experiment>--<lane>``."""
        return f"{self.kernel}--{self.experiment}--{self.lane}"


@dataclass(frozen=True, slots=True)  # slots: a large run holds millions
class Sample:
    """One measured value.

    `position` is the arm's place in its block (0 first), for order-effect diagnostics.
    """

    block: int
    position: int
    arm: str
    metric: str
    value: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"sample {self.arm}/{self.metric} of block {self.block} is not finite")


@dataclass(frozen=True)
class Verdict:
    """What a gate says about one kernel.

    `estimate`, `low` and `high` are in the gate's terms: for ratio rules the relative
    change of tuned against baseline (-0.25 = 25 % lower), else the metric's unit. `level`
    is the two-sided confidence level of the interval. `n` counts blocks. `stand_in` is the id of
    the gate that passed on this kernel in place of one that is skipped; without one a SKIP is a
    hole. The numbers in `details` are named in `hyperbox.harness.verdicts.gates` and ``diagnosis``.
    """

    gate: str
    kernel: str
    lane: Lane
    outcome: Outcome
    reason: str
    n: int = 0
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    level: float | None = None
    remarks: tuple[str, ...] = ()
    details: Mapping[str, float] = field(default_factory=dict)
    stand_in: str = ""

    @property
    def is_hole(self) -> bool:
        """Whether nothing is known of the target on this kernel, nor of one in its place."""
        return self.outcome is Outcome.SKIP and not self.stand_in


def _find(items: tuple[Metric, ...], wanted: str) -> Metric:
    """Return the item with id `wanted`; KeyError if absent."""
    for item in items:
        if item.id == wanted:
            return item
    raise KeyError(wanted)
