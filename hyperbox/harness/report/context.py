"""What the forms of a report share: the run's figures, and its cells as pages show them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hyperbox.harness.model import Gate, Outcome
from hyperbox.harness.report.cell_plots import cell_figure
from hyperbox.harness.report.cells import MetricRow, metric_rows, reproduce_commands
from hyperbox.harness.report.data import CellData, RunData
from hyperbox.harness.report.matrix import MatrixEntry, columns, entries
from hyperbox.harness.report.outcome_styles import OutcomeStyle
from hyperbox.harness.report.plots import forest_plot, heat_map

__all__ = [
    "FALSE_ALARM",
    "CellView",
    "ReportContext",
    "cell_views",
    "chosen_cells",
    "chosen_tables",
]

FALSE_ALARM = "harness.false_alarm"
"""Gates whose id starts so compare a configuration with itself: the A/A panel."""

_MOST_CELLS = 60
_URGENT_FIRST = (
    Outcome.ERROR,
    Outcome.FAIL,
    None,  # untested
    Outcome.INCONCLUSIVE,
    Outcome.SKIP,
    Outcome.PASS,
)


@dataclass(frozen=True)
class ReportContext:
    """What several forms of the report share, made once: the matrix and the run's figures."""

    run: RunData
    matrix: tuple[MatrixEntry, ...]
    heat_map: str
    forests: Mapping[str, tuple[Gate, str]]

    @classmethod
    def of(cls, run: RunData) -> ReportContext:
        """Draw the figures of a run."""
        matrix = entries(run)
        rows: dict[str, list[MatrixEntry]] = {}
        for entry in matrix:
            rows.setdefault(entry.gate.id, []).append(entry)
        forests = {name: (found[0].gate, forest_plot(found)) for name, found in rows.items()}
        return cls(run, matrix, heat_map(matrix), forests)

    def figures(self, *, false_alarms: bool) -> list[tuple[Gate, str]]:
        """Return the forest plots of the A/A gates, or of all others."""
        return [
            figure
            for name, figure in self.forests.items()
            if name.startswith(FALSE_ALARM) is false_alarms
        ]


@dataclass(frozen=True)
class CellView:
    """A cell as the page shows it; its figure is drawn when it is asked for."""

    run: RunData
    data: CellData
    entries: tuple[MatrixEntry, ...]

    @property
    def anchor(self) -> str:
        """The id of the cell's article."""
        return "cell-" + "".join(c if c.isalnum() or c in "-." else "_" for c in self.data.cell.key)

    @property
    def figure(self) -> str:
        """The cell's figure, or "" if it has no value."""
        return cell_figure(self.entries)

    @property
    def rows(self) -> tuple[MetricRow, ...]:
        """Every metric of every arm."""
        return metric_rows(self.run, self.data)

    @property
    def commands(self) -> tuple[str, ...]:
        """Commands that measure the cell again."""
        return reproduce_commands(self.run, self.data)

    @property
    def tally(self) -> list[tuple[OutcomeStyle, int]]:
        """The outcomes of the cell's gates, the most urgent first, with their numbers."""
        ranked = sorted(self.entries, key=_urgency)
        return list(Counter(entry.style for entry in ranked).items())

    @property
    def urgency(self) -> int:
        """How early the cell is to be shown: 0 first."""
        return min((_urgency(entry) for entry in self.entries if entry.verdict), default=0)


def cell_views(run: RunData, matrix: Sequence[MatrixEntry]) -> list[CellView]:
    """Return every cell of the run with its entries, in the order of the plan."""
    by_cell: dict[str, list[MatrixEntry]] = {}
    for entry in matrix:
        if entry.cell is not None:
            by_cell.setdefault(entry.cell.cell.key, []).append(entry)
    return [CellView(run, cell, tuple(by_cell.get(cell.cell.key, ()))) for cell in run.cells]


def chosen_cells(cells: list[CellView]) -> tuple[list[CellView], list[CellView]]:
    """Return the cells of the main page, the most urgent ones, and all others."""
    if len(cells) <= _MOST_CELLS:
        return cells, []
    ranked = sorted(cells, key=lambda cell: cell.urgency)
    return ranked[:_MOST_CELLS], ranked[_MOST_CELLS:]


def chosen_tables(
    run: RunData, matrix: Sequence[MatrixEntry], most: int
) -> list[tuple[str, list[MatrixEntry]]]:
    """Return the rows of each kernel's gate table; of a large run those that call for a reader."""
    if len(matrix) > most:
        chosen = {id(entry) for entry in sorted(matrix, key=_urgency)[:most]}
        matrix = [entry for entry in matrix if id(entry) in chosen]
    tables: dict[str, list[MatrixEntry]] = {}
    for entry in matrix:
        tables.setdefault(entry.column.label, []).append(entry)
    if not run.gates:
        return [(column.label, []) for column in columns(run)]
    return list(tables.items())


def _urgency(entry: MatrixEntry) -> int:
    return _URGENT_FIRST.index(entry.verdict.outcome if entry.verdict else None)
