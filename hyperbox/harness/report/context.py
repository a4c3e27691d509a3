"""What the forms of a report share: the run's figures, and its cells as pages show them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from hyperbox.harness.model import Gate
from hyperbox.harness.report.cell_plots import cell_figure
from hyperbox.harness.report.cells import MetricRow, metric_rows, reproduce_commands
from hyperbox.harness.report.data import CellData, RunData
from hyperbox.harness.report.forest import forest_plot
from hyperbox.harness.report.matrix import MatrixEntry, columns, entries, not_passed, urgency
from hyperbox.harness.report.outcome_styles import OutcomeStyle

__all__ = [
    "FALSE_ALARM",
    "CellView",
    "ReportContext",
    "asked_for",
    "cell_views",
    "chosen_cells",
    "chosen_tables",
]

FALSE_ALARM = "harness.false_alarm"
"""Gates whose id starts so compare a configuration with itself: the A/A panel."""

_MOST_CELLS = 60
_MOST_FOREST_ROWS = 1000  # of all gates; a hundred take a fifth of a second to draw


@dataclass(frozen=True)
class ReportContext:
    """What several forms of the report share, made once: the matrix and the gates' figures.

    `draw` are patterns ("psi.*") of gates and cells whose figures are asked for. `forests` has
    the gates that are drawn: all of a run of up to 1000 verdicts, else those that most call for
    a reader.
    """

    run: RunData
    matrix: tuple[MatrixEntry, ...]
    forests: Mapping[str, tuple[Gate, str]]
    draw: tuple[str, ...] = ()

    @classmethod
    def of(cls, run: RunData, draw: Sequence[str] = ()) -> ReportContext:
        """Draw the gates' figures of a run."""
        matrix = entries(run)
        rows: dict[str, list[MatrixEntry]] = {}
        for entry in matrix:
            rows.setdefault(entry.gate.id, []).append(entry)
        ranked = sorted(rows, key=lambda name: min(map(urgency, rows[name])))
        drawn = itertools.accumulate(len(rows[name]) for name in ranked)
        chosen = {
            name
            for name, so_far in zip(ranked, drawn, strict=True)
            if so_far <= _MOST_FOREST_ROWS or asked_for(name, draw)
        }
        forests = {
            name: (found[0].gate, forest_plot(found))
            for name, found in rows.items()
            if name in chosen
        }
        return cls(run, matrix, forests, tuple(draw))

    @property
    def gates_not_drawn(self) -> int:
        """How many gates have no figure, since the run has too many of them."""
        return len({entry.gate.id for entry in self.matrix}) - len(self.forests)

    def figures(self, *, false_alarms: bool) -> list[tuple[Gate, str]]:
        """Return the forest plots of the A/A gates, or of all others."""
        return [
            figure
            for name, figure in self.forests.items()
            if name.startswith(FALSE_ALARM) is false_alarms
        ]


def asked_for(name: str, patterns: Sequence[str]) -> bool:
    """Whether a gate or cell of this name is among those asked for ("*" is any part)."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


@dataclass(frozen=True)
class CellView:
    """A cell as the page shows it. Its figure is drawn if it is `drawn`, when it is read."""

    run: RunData
    data: CellData
    entries: tuple[MatrixEntry, ...]
    drawn: bool = False

    @property
    def anchor(self) -> str:
        """The id of the cell's article."""
        return "cell-" + "".join(c if c.isalnum() or c in "-." else "_" for c in self.data.cell.key)

    @property
    def figure(self) -> str:
        """The cell's figure, or "" if it has no value or is not drawn."""
        return cell_figure(self.entries) if self.drawn else ""

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
        ranked = sorted(self.entries, key=urgency)
        return list(Counter(entry.style for entry in ranked).items())

    @property
    def urgency(self) -> int:
        """How early the cell is to be shown: 0 first."""
        return min((urgency(entry) for entry in self.entries if entry.verdict), default=0)


def cell_views(
    run: RunData, matrix: Sequence[MatrixEntry], draw: Sequence[str] = ()
) -> list[CellView]:
    """Return every cell of the run with its entries, in the order of the plan.

    Drawn are those that `draw` asks for, by their own name or by that of one of their gates.
    """
    by_cell: dict[str, list[MatrixEntry]] = {}
    for entry in matrix:
        if entry.cell is not None:
            by_cell.setdefault(entry.cell.cell.key, []).append(entry)
    found = []
    for cell in run.cells:
        mine = tuple(by_cell.get(cell.cell.key, ()))
        names = (cell.cell.key, *(entry.gate.id for entry in mine))
        drawn = any(asked_for(name, draw) for name in names)
        found.append(CellView(run, cell, mine, drawn))
    return found


def chosen_cells(cells: list[CellView]) -> tuple[list[CellView], list[CellView]]:
    """Return the cells of the main page, the most urgent ones, and all others.

    On the main page those that did not pass are drawn too: a figure takes a tenth of a second,
    which a run of thousands of cells cannot spend on each.
    """
    ranked = cells
    if len(cells) > _MOST_CELLS:
        ranked = sorted(cells, key=lambda cell: cell.urgency)
    shown = [
        replace(cell, drawn=cell.drawn or bool(not_passed(cell.entries)))
        for cell in ranked[:_MOST_CELLS]
    ]
    return shown, ranked[_MOST_CELLS:]


def chosen_tables(
    run: RunData, matrix: Sequence[MatrixEntry], most: int
) -> list[tuple[str, list[MatrixEntry]]]:
    """Return the rows of each kernel's gate table; of a large run those that call for a reader."""
    if len(matrix) > most:
        chosen = {id(entry) for entry in sorted(matrix, key=urgency)[:most]}
        matrix = [entry for entry in matrix if id(entry) in chosen]
    tables: dict[str, list[MatrixEntry]] = {}
    for entry in matrix:
        tables.setdefault(entry.column.label, []).append(entry)
    if not run.gates:
        return [(column.label, []) for column in columns(run)]
    return list(tables.items())
