"""The report of a run: one self-contained HTML file, and its kin for other readers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from hyperbox import files
from hyperbox.errors import HarnessError
from hyperbox.harness.model import Gate, Outcome
from hyperbox.harness.report.cell_plots import cell_figure
from hyperbox.harness.report.cells import (
    Attempt,
    MetricRow,
    attempts,
    flat,
    metric_rows,
    reproduce_commands,
)
from hyperbox.harness.report.data import CellData, RunData
from hyperbox.harness.report.differences import (
    config_differences,
    config_table,
    environment_differences,
    notable,
)
from hyperbox.harness.report.drawing import STYLE, standalone_figure
from hyperbox.harness.report.exports import summary, verdicts_csv
from hyperbox.harness.report.form import form_context
from hyperbox.harness.report.history import Series, history_plot
from hyperbox.harness.report.junit import junit_xml
from hyperbox.harness.report.kcidb import kcidb
from hyperbox.harness.report.markdown import markdown
from hyperbox.harness.report.marks import LANES, MARKS, UNTESTED
from hyperbox.harness.report.matrix import Entry, columns, entries, headline, untested_count
from hyperbox.harness.report.plots import forest_plot, heat_map
from hyperbox.harness.verdicts.wording import legible, typeset

__all__ = ["html_page", "write_report"]

FALSE_ALARM = "harness.false_alarm"
"""Gates whose id starts so compare a configuration with itself: the A/A panel."""

_TEMPLATES = Path(__file__).parent / "templates"
_KERNEL_COLUMNS = ("label", "release", "version", "sha256", "remarks")
_MOST_ROWS = 600
_MOST_CELLS = 60
_CELLS_A_PAGE = 200


@dataclass(frozen=True)
class CellView:
    """A cell as the page shows it; its figure is drawn when it is asked for."""

    run: RunData
    data: CellData
    entries: tuple[Entry, ...]

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
    def urgency(self) -> int:
        """How early the cell is to be shown: 0 first."""
        order = (Outcome.ERROR, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.SKIP, Outcome.PASS)
        found = [e.verdict.outcome for e in self.entries if e.verdict]
        return min((order.index(outcome) for outcome in found), default=0)


def write_report(run: RunData, directory: Path, history: Sequence[Series] = ()) -> tuple[Path, ...]:
    """Write the report: report.html and its kin for other readers.

    report.md, junit.xml, summary.json, verdicts.csv, kcidb.json, release-form.html (to be
    printed and signed), kernel-configs.csv where configurations differ, plots/*.svg, and
    for runs of many cells cells-NNN.html.

    Parameters
    ----------
    directory
        Created if absent; files of an earlier report are replaced.

    Returns
    -------
    tuple of Path
        The files written, report.html first.

    Raises
    ------
    HarnessError
        If a file cannot be written.
    """
    written = []
    for name, text in _texts(run, history):
        files.write_text(directory / name, text)
        written.append(directory / name)
    for name, value in (("summary.json", summary(run)), ("kcidb.json", kcidb(run))):
        files.write_json(directory / name, value)
        written.append(directory / name)
    _remove_old_cell_pages(directory, written)
    return tuple(written)


def html_page(run: RunData, history: Sequence[Series] = ()) -> str:
    """Give the page: HTML5 without scripts, links to elsewhere or anything to load."""
    return next(_pages(run, history))[1]


def _texts(run: RunData, history: Sequence[Series]) -> Iterator[tuple[str, str]]:
    yield from _pages(run, history)
    yield "release-form.html", _environment().get_template("form.html.j2").render(form_context(run))
    yield "report.md", markdown(run)
    yield "junit.xml", junit_xml(run)
    yield "verdicts.csv", verdicts_csv(run)
    kernels = list(dict.fromkeys(column.kernel for column in columns(run)))
    differing = config_differences(run, kernels)
    if differing:
        yield "kernel-configs.csv", config_table(kernels, differing)
    matrix = entries(run)
    figures = {"heat-map": heat_map(matrix)}
    figures |= {gate.id: forest_plot(rows) for gate, rows in _by_gate(matrix)}
    for name, figure in figures.items():
        if figure:
            yield f"plots/{name}.svg", standalone_figure(figure)


def _pages(run: RunData, history: Sequence[Series]) -> Iterator[tuple[str, str]]:
    """Give report.html, and for runs of many cells the pages with the further ones."""
    environment = _environment()
    matrix = entries(run)
    shown, further = _chosen_cells(_cell_views(run, matrix))
    pages = [further[at : at + _CELLS_A_PAGE] for at in range(0, len(further), _CELLS_A_PAGE)]
    names = [f"cells-{place:03d}.html" for place in range(1, len(pages) + 1)]
    context = _context(run, matrix, history)
    yield (
        "report.html",
        environment.get_template("report.html.j2").render(
            **context, cells=shown, further_cells=len(further), further_pages=names
        ),
    )
    template = environment.get_template("cells.html.j2")
    for name, cells in zip(names, pages, strict=True):
        yield name, template.render(run=run, name=name, cells=cells, chart_style=STYLE)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finished,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["typeset"] = typeset
    return environment


def _context(run: RunData, matrix: Sequence[Entry], history: Sequence[Series]) -> Mapping[str, Any]:
    told = headline(run)
    kernels = list(dict.fromkeys(column.kernel for column in columns(run)))
    configs = config_differences(run, kernels)
    tried = attempts(run)
    rows = [entry for entry in matrix if not entry.gate.id.startswith(FALSE_ALARM)]
    return {
        "run": run,
        "chart_style": STYLE,
        "headline": told,
        "mark": MARKS[told.outcome],
        "marks": MARKS,
        "untested_mark": UNTESTED,
        "lanes": LANES,
        "lanes_used": {cell.cell.lane for cell in run.cells} or {run.lane},
        "labels": kernels,
        "tables": _tables(run, rows),
        "rows_left_out": max(0, len(rows) - _MOST_ROWS),
        "has_power": any(entry.power_text for entry in matrix),
        "kernel_records": [_kernel_record(record) for record in run.kernels],
        "untested": untested_count(matrix),
        "forests": _forests(rows),
        "heat_map": heat_map(matrix),
        "false_alarms": _forests([e for e in matrix if e.gate.id.startswith(FALSE_ALARM)]),
        "attempts": _told_attempts(tried),
        "attempt_count": len(tried),
        "environment": flat(run.environment),
        "environment_differences": environment_differences(run, kernels),
        "config_differences": notable(configs),
        "config_count": len(configs),
        "history": [(series, history_plot(series)) for series in history],
    }


def _tables(run: RunData, matrix: Sequence[Entry]) -> list[tuple[str, list[Entry]]]:
    """Give the gate table of each kernel; of a large run only the rows that call for a reader."""
    if len(matrix) > _MOST_ROWS:
        order = (
            Outcome.ERROR,
            Outcome.FAIL,
            None,
            Outcome.INCONCLUSIVE,
            Outcome.SKIP,
            Outcome.PASS,
        )
        ranked = sorted(matrix, key=lambda e: order.index(e.verdict.outcome if e.verdict else None))
        chosen = {(entry.gate.id, entry.column) for entry in ranked[:_MOST_ROWS]}
        matrix = [entry for entry in matrix if (entry.gate.id, entry.column) in chosen]
    tables: dict[str, list[Entry]] = {}
    for entry in matrix:
        tables.setdefault(entry.column.label, []).append(entry)
    if not run.gates:
        return [(column.label, []) for column in columns(run)]
    return list(tables.items())


def _told_attempts(tried: Sequence[Attempt]) -> list[Attempt]:
    if len(tried) <= _MOST_ROWS:
        return list(tried)
    return [attempt for attempt in tried if not attempt.plain][:_MOST_ROWS]


def _forests(matrix: Sequence[Entry]) -> list[tuple[Gate, str]]:
    return [(gate, forest_plot(rows)) for gate, rows in _by_gate(matrix)]


def _by_gate(matrix: Sequence[Entry]) -> list[tuple[Gate, list[Entry]]]:
    rows: dict[str, list[Entry]] = {}
    for entry in matrix:
        rows.setdefault(entry.gate.id, []).append(entry)
    return [(found[0].gate, found) for found in rows.values()]


def _cell_views(run: RunData, matrix: Sequence[Entry]) -> list[CellView]:
    by_cell: dict[str, list[Entry]] = {}
    for entry in matrix:
        if entry.cell is not None:
            by_cell.setdefault(entry.cell.cell.key, []).append(entry)
    return [CellView(run, cell, tuple(by_cell.get(cell.cell.key, ()))) for cell in run.cells]


def _chosen_cells(cells: list[CellView]) -> tuple[list[CellView], list[CellView]]:
    """Give the cells of the main page, the most urgent ones, and all others."""
    if len(cells) <= _MOST_CELLS:
        return cells, []
    ranked = sorted(cells, key=lambda cell: cell.urgency)
    return ranked[:_MOST_CELLS], ranked[_MOST_CELLS:]


def _remove_old_cell_pages(directory: Path, written: Sequence[Path]) -> None:
    for path in directory.glob("cells-*.html"):
        if path not in written:
            try:
                path.unlink()
            except OSError as error:
                raise HarnessError(f"cannot remove {path}: {error.strerror}") from error


def _finished(value: object) -> object:
    """Clean every text that goes into the page, but not markup, which is made here."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return legible(value)
    return value


def _kernel_record(record: Mapping[str, object]) -> dict[str, str]:
    """Give a kernel's record as text: the named columns, and the rest as one."""
    values = flat(record)
    rest = ", ".join(
        f"{key}={value}" for key, value in values.items() if key not in _KERNEL_COLUMNS
    )
    return {**{key: values.get(key, "") for key in _KERNEL_COLUMNS}, "rest": rest}
