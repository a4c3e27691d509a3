"""One attempt at a cell: fresh machines in seeded blocks, looks, and what came of it.

Whatever happens to the machine or the program becomes a value (`Attempt`), so that no cell
can take another one down.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from hyperbox.errors import (
    CellTimeout,
    HarnessError,
    HyperboxError,
    KernelFeatureMissing,
    MissingDependency,
    WorkloadError,
)
from hyperbox.harness.lab.dmesg import Allowance, taint_flags
from hyperbox.harness.lab.host import host_facts
from hyperbox.harness.lab.host_load import host_load
from hyperbox.harness.lab.machine import Artifacts, CommandResult, Laboratory, Machine
from hyperbox.harness.model import Cell, Experiment, Gate, Perturbation, Sample
from hyperbox.harness.runs.health import examine, read_allowances, trouble
from hyperbox.harness.runs.output import parse_output
from hyperbox.harness.runs.plan import Block, blocks_of
from hyperbox.harness.runs.versions import versions
from hyperbox.harness.runs.watchdog import Watchdog
from hyperbox.harness.verdicts import gates as rules
from hyperbox.processes import end_started

__all__ = [
    "Attempt",
    "AttemptState",
    "BlockRecord",
    "measure",
]

_HOST_FACTS = ("cpu", "cpus", "kernel", "memory_kib")


class AttemptState(StrEnum):
    """How an attempt ended."""

    MEASURED = "measured"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True)
class BlockRecord:
    """One complete block: what was run, what each arm took, its notes.

    `seconds` are the host's, restoring the machine included; `guest_seconds` the program's by
    the machine's own clock; `cpu_seconds` what running it cost the host, and
    `run_delay_seconds` how long that waited for one of the host's processors.
    """

    number: int
    order: tuple[str, ...]
    start: Perturbation
    seconds: Mapping[str, float]
    notes: Mapping[str, Mapping[str, Any]]
    guest_seconds: Mapping[str, float] = field(default_factory=dict)
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)
    run_delay_seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Attempt:
    """What came of one attempt at a cell.

    `samples` of a failed attempt are evidence only: no gate sees them. `error` names the
    kind of failure, `fingerprint` groups crashes and lost machines, `trace` is there for bugs.
    `retry` says that the machine is to blame, so that another attempt makes sense.
    """

    state: AttemptState
    started: float
    ended: float
    samples: tuple[Sample, ...] = ()
    blocks: tuple[BlockRecord, ...] = ()
    environment: Mapping[str, object] = field(default_factory=dict)
    artifacts: Artifacts | None = None
    warnings: tuple[str, ...] = ()
    reason: str = ""
    error: str = ""
    fingerprint: str = ""
    trace: str = ""
    retry: bool = False


def measure(
    laboratory: Laboratory,
    cell: Cell,
    experiment: Experiment,
    gates: Sequence[Gate],
    *,
    seed: int,
    family: int = 1,
    on_block: Callable[[int], None] = lambda _done: None,
) -> Attempt:
    """Try a cell once. Blocks are added until every gate is settled or none is left.

    A FAIL is settled once it can stand for a release of `family` verdicts. `on_block` is
    called with the number of blocks done.

    Raises
    ------
    ConfigError
        If the allow-list of kernel messages is wrong.
    """
    work = _Work(cell, experiment, gates, read_allowances(), family)
    try:
        work.run(laboratory, seed, on_block)
    except KernelFeatureMissing as error:
        return work.end(AttemptState.SKIPPED, error.message)
    except WorkloadError as error:
        return work.end(AttemptState.FAILED, error.message, error=error)
    except HarnessError as error:
        # What took too long once takes it again: `limit_s` is generous.
        retry = not isinstance(error, (MissingDependency, CellTimeout))
        return work.end(AttemptState.FAILED, error.message, error=error, retry=retry)
    except Exception as error:  # a bug must not lose the other cells
        reason = f"{type(error).__name__}: {error}"
        return work.end(AttemptState.FAILED, reason, error=error, trace=traceback.format_exc())
    return work.end(AttemptState.MEASURED)


class _Work:
    """The state of an attempt while it runs; what is gathered survives a failure."""

    def __init__(
        self,
        cell: Cell,
        experiment: Experiment,
        gates: Sequence[Gate],
        allowances: Sequence[Allowance],
        family: int,
    ) -> None:
        self._cell = cell
        self._experiment = experiment
        self._gates = gates
        self._allowances = allowances
        self._family = family
        self._started = time.time()
        self._host_at_start = host_load()
        self._samples: list[Sample] = []
        self._blocks: list[BlockRecord] = []
        self._environment: Mapping[str, object] = {}
        self._artifacts: Artifacts | None = None
        self._warnings: dict[str, None] = {}

    def run(self, laboratory: Laboratory, seed: int, on_block: Callable[[int], None]) -> None:
        end = functools.partial(end_started, threading.get_ident())
        with Watchdog(self._experiment.limit, end) as watchdog:
            self._measure_blocks(laboratory, seed, on_block, watchdog)

    def _measure_blocks(
        self,
        laboratory: Laboratory,
        seed: int,
        on_block: Callable[[int], None],
        watchdog: Watchdog,
    ) -> None:
        source = laboratory.source(self._cell.kernel, self._experiment, self._cell.lane)
        with contextlib.closing(source):
            self._environment = source.environment()
            for block in blocks_of(self._cell, self._experiment, seed):
                self._block(source.fresh, block, watchdog)
                on_block(len(self._blocks))
                if self._settled():
                    return

    def end(
        self,
        state: AttemptState,
        reason: str = "",
        *,
        error: Exception | None = None,
        trace: str = "",
        retry: bool = False,
    ) -> Attempt:
        if self._artifacts is None and isinstance(error, HarnessError) and error.console:
            self._artifacts = Artifacts(serial=error.console, dmesg="", kernel_config="")
        return Attempt(
            state=state,
            started=self._started,
            ended=time.time(),
            samples=tuple(self._samples),
            blocks=tuple(self._blocks),
            environment=self._environment_at_end(),
            artifacts=self._artifacts,
            warnings=tuple(self._warnings),
            reason=reason,
            error=type(error).__name__ if error else "",
            fingerprint=error.fingerprint if isinstance(error, HarnessError) else "",
            trace=trace,
            retry=retry,
        )

    def _block(
        self,
        fresh: Callable[[], contextlib.AbstractContextManager[Machine]],
        block: Block,
        watchdog: Watchdog,
    ) -> None:
        seconds: dict[str, float] = {}
        results: dict[str, CommandResult] = {}
        notes: dict[str, Mapping[str, Any]] = {}
        samples: list[Sample] = []
        for position, arm in enumerate(block.order):
            began = time.monotonic()
            where = f"{arm} of block {block.number}"
            watchdog.check()
            watchdog.doing = f"measuring: {where}"
            with fresh() as machine, self._watched(machine, where):
                results[arm] = self._run_arm(machine, arm, block)
                metrics, notes[arm] = self._parsed(results[arm], arm, block)
            seconds[arm] = time.monotonic() - began
            samples += [
                Sample(block.number, position, arm, metric, value)
                for metric, value in metrics.items()
            ]
        self._samples += samples
        self._blocks.append(
            BlockRecord(
                block.number,
                block.order,
                block.start,
                seconds,
                notes,
                {arm: result.elapsed_ns / 1e9 for arm, result in results.items()},
                {arm: result.cpu_seconds for arm, result in results.items()},
                {arm: result.run_delay_seconds for arm, result in results.items()},
            )
        )

    def _run_arm(self, machine: Machine, arm: str, block: Block) -> CommandResult:
        argv = [word.replace("{arm}", arm) for word in self._experiment.program]
        try:
            return machine.execute(argv, timeout=self._experiment.timeout_s, start=block.start)
        except WorkloadError as error:
            raise WorkloadError(f"{arm} of block {block.number}: {error.message}") from error

    def _parsed(
        self, result: CommandResult, arm: str, block: Block
    ) -> tuple[dict[str, float], dict[str, Any]]:
        where = f"{arm} of block {block.number}"
        try:
            return parse_output(result, self._experiment)
        except KernelFeatureMissing as error:
            if not self._blocks and not block.number:
                raise
            raise WorkloadError(f"{where}: skips after it had measured: {error}") from error
        except WorkloadError as error:
            raise WorkloadError(f"{where}: {error.message}") from error

    @contextlib.contextmanager
    def _watched(self, machine: Machine, where: str) -> Iterator[None]:
        """Keep the evidence, and let nothing count that a kernel in trouble gave."""
        try:
            yield
        except (WorkloadError, KernelFeatureMissing):
            self._keep_evidence(machine)
            self._refuse_trouble(where)  # explains the failure, if anything does
            raise
        except BaseException:
            self._keep_evidence(machine)
            raise
        self._keep_evidence(machine)
        self._refuse_trouble(where)

    def _keep_evidence(self, machine: Machine) -> None:
        """Keep the artifacts of the last machine."""
        self._artifacts = None
        with contextlib.suppress(HyperboxError):
            self._artifacts = machine.artifacts()

    def _refuse_trouble(self, where: str) -> None:
        """Raise what the kernel's messages and taint say against the arm just measured."""
        kernel = self._environment.get("kernel")
        release = kernel.get("release") if isinstance(kernel, Mapping) else None
        judgement = examine(
            self._artifacts,
            lane=self._cell.lane,
            release=str(release or self._cell.kernel),
            experiment=self._experiment.id,
            allowances=self._allowances,
        )
        words = (*judgement.allowed, *(report.fingerprint for report in judgement.refused))
        self._warnings.update(dict.fromkeys(words))
        error = trouble(judgement, where)
        if error is not None:
            raise error

    def _environment_at_end(self) -> Mapping[str, object]:
        """Add what the source does not know: the guest's state, host, load and versions."""
        host = {key: value for key, value in host_facts().items() if key in _HOST_FACTS}
        facts: dict[str, object] = {
            "host": host,
            "hyperbox": versions(),
            **self._environment,
            "host_load": {"start": self._host_at_start, "end": host_load()},
        }
        if self._artifacts is not None and self._artifacts.taint is not None:
            facts["guest"] = {
                "taint": taint_flags(self._artifacts.taint),
                "modules": list(self._artifacts.modules),
            }
        return facts

    def _settled(self) -> bool:
        """Whether no gate can change any more; an experiment without gates runs in full."""
        verdicts = [
            rules.decide(gate, self._experiment, self._cell.kernel, self._cell.lane, self._samples)
            for gate in self._gates
        ]
        count = len(self._blocks)
        return bool(verdicts) and all(
            rules.settled(verdict, count, family=self._family) for verdict in verdicts
        )
