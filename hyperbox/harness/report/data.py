"""What a report is made of: one run, as plain values.

The store builds a `RunData` from a run directory; everything in this package derives
from it and can be made again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hyperbox.harness.model import Cell, Experiment, Gate, Lane, Sample, Verdict

__all__ = ["CellData", "RunData"]


@dataclass(frozen=True)
class CellData:
    """One cell: what was measured and how it came about.

    An attempt is a record with ``number``, ``status`` ("measured", "skipped", "failed"),
    ``reason``, ``started`` (ISO 8601), ``seconds`` (host time) and ``retries``; absent
    keys are shown as unknown. `environment` is the fingerprint of the machine of the attempt
    that counts.
    """

    cell: Cell
    experiment: Experiment
    samples: tuple[Sample, ...]
    attempts: tuple[Mapping[str, object], ...]
    environment: Mapping[str, object] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """The kernel, and how many processors it had if that was asked for."""
        asked = self.experiment.machine.processors
        if asked == 1:
            return self.cell.kernel
        return f"{self.cell.kernel} with {self.environment.get('cpus', asked)} processors"


@dataclass(frozen=True)
class RunData:
    """One run of ``hyperbox validate``.

    `created` is ISO 8601. `kernels` are records with ``label``, ``release``, ``version``,
    ``sha256`` and ``remarks`` (a list), in the order of the matrix. `environment` is the
    fingerprint of the measuring machine. `reproduce` is the command line that repeats
    the run. `directory` is the run directory. `lane` is the one that was asked for; each cell
    and verdict names its own. `problems` are sentences about what could not be read.
    `kernel_configs` are the options of each kernel, by label: "CONFIG_PSI" -> "y".
    """

    run_id: str
    created: str
    hyperbox_version: str
    lane: Lane
    seed: int
    environment: Mapping[str, object]
    kernels: tuple[Mapping[str, object], ...]
    cells: tuple[CellData, ...]
    gates: tuple[Gate, ...]
    verdicts: tuple[Verdict, ...]
    reproduce: str
    directory: Path
    problems: tuple[str, ...] = ()
    kernel_configs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def deciding(self) -> tuple[Verdict, ...]:
        """The verdicts of the lane that decides; those of lanes beside it decide nothing."""
        return tuple(verdict for verdict in self.verdicts if verdict.lane is self.lane)
