"""What cells have cost on this machine, kept in the cache to plan the next run.

One small file a cell, of its newest measured attempt. Nothing depends on it but the order
of a run's cells and what is said about the time they take.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from hyperbox import files
from hyperbox.errors import HarnessError
from hyperbox.harness.model import Cell, Experiment
from hyperbox.harness.runs.attempt import Attempt, AttemptState
from hyperbox.paths import cache_directory

__all__ = ["Cost", "CostBook", "cost_of"]

_FORMAT = 2  # raise it when the numbers mean something else


@dataclass(frozen=True)
class Cost:
    """What one measured attempt at a cell took.

    `seconds`, `cpu_seconds` and `guest_seconds` are a block's, on average over `blocks`: by
    the host's clock, of its CPUs, by the machine's own clock. `ready_s` are the host's seconds
    beside the blocks: boot and preparation. `settled`: no gate needed the other blocks.
    """

    blocks: int
    settled: bool
    seconds: float
    cpu_seconds: float
    guest_seconds: float
    ready_s: float


def cost_of(attempt: Attempt, experiment: Experiment) -> Cost | None:
    """Return what an attempt cost; None unless it measured something."""
    count = len(attempt.blocks)
    if attempt.state is not AttemptState.MEASURED or not count:
        return None
    wall, cpu, guest = (
        sum(value for block in attempt.blocks for value in getattr(block, kind).values())
        for kind in ("seconds", "cpu_seconds", "guest_seconds")
    )
    ready = max(0.0, attempt.ended - attempt.started - wall)
    settled = count < experiment.blocks
    return Cost(count, settled, wall / count, cpu / count, guest / count, ready)


class CostBook:
    """Costs on disk.

    Parameters
    ----------
    directory
        Where; default: ``costs`` in the cache.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory or cache_directory() / "costs"

    def of(self, cells: Iterable[Cell]) -> Mapping[Cell, Cost]:
        """Return the costs of those cells that have any on record."""
        found = ((cell, self._read(cell)) for cell in cells)
        return {cell: cost for cell, cost in found if cost is not None}

    def keep(self, cell: Cell, cost: Cost | None) -> None:
        """Keep a cell's newest cost. Where nothing can be written the next plan knows less."""
        if cost is not None:
            with contextlib.suppress(HarnessError):
                files.write_sealed(self._file(cell), {"format": _FORMAT, **asdict(cost)})

    def _file(self, cell: Cell) -> Path:
        return self._directory / f"{cell.key}.json"

    def _read(self, cell: Cell) -> Cost | None:
        """Return a cell's cost; None if there is none, or it is damaged or another format's."""
        document = files.read_sealed(self._file(cell))
        if document is None or document.pop("format", None) != _FORMAT:
            return None
        return Cost(**document)
