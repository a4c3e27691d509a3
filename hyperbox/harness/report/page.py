"""The report of a run: one self-contained HTML file, and its kin for other readers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hyperbox import files
from hyperbox.errors import HarnessError
from hyperbox.harness.report.cells import (
    AttemptRow,
    attempts,
    flat,
)
from hyperbox.harness.report.context import (
    FALSE_ALARM,
    ReportContext,
    cell_views,
    chosen_cells,
    chosen_tables,
)
from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.differences import (
    config_differences,
    config_table,
    environment_differences,
    notable,
)
from hyperbox.harness.report.exports import summary, verdicts_csv
from hyperbox.harness.report.form import Form
from hyperbox.harness.report.history import GateHistory, history_plot
from hyperbox.harness.report.junit import junit_xml
from hyperbox.harness.report.kcidb import kcidb
from hyperbox.harness.report.markdown import markdown
from hyperbox.harness.report.matrix import (
    by_gate,
    columns,
    headline,
    not_passed,
    release_headline,
    untested_count,
)
from hyperbox.harness.report.outcome_styles import LANES, OUTCOME_STYLES, UNTESTED
from hyperbox.harness.report.svg import standalone
from hyperbox.harness.report.templating import environment

__all__ = ["form_page", "html_page", "write_report"]

_KERNEL_COLUMNS = ("label", "release", "version", "sha256", "remarks")
_MOST_ROWS = 600
_MOST_OPEN = 100
_LABELLED_TILES = 12  # beyond so many columns a cell of the matrix holds its symbol only
_CELLS_A_PAGE = 200
_MOST_SERIES = 60
_MOST_TEXT = 600  # characters of one text in the form: a row must fit on a sheet of paper
_OWN_FILES = ("cells-*.html", "plots/*.svg", "kernel-configs.csv", "release-form.pdf")


def write_report(
    run: RunData,
    directory: Path,
    history: Sequence[GateHistory] = (),
    draw: Sequence[str] = (),
) -> tuple[Path, ...]:
    """Write the report: report.html and its kin for other readers.

    report.md, junit.xml, summary.json, verdicts.csv, kcidb.json, release-form.html (to be
    printed and signed), kernel-configs.csv where configurations differ, plots/*.svg, and for
    runs of many cells cells-NNN.html.

    Parameters
    ----------
    directory
        Created if absent. Files of an earlier report are replaced, and removed where this
        report has none of their name.
    draw
        Names of gates and cells whose figures are drawn whatever their outcome; "*" is any part.

    Returns
    -------
    tuple of Path
        The files written, report.html first.

    Raises
    ------
    HarnessError
        If a file cannot be written.
    """
    shared = ReportContext.of(run, draw)
    written = []
    for name, text in _texts(shared, history):
        files.write_text(directory / name, text)
        written.append(directory / name)
    for name, value in (("summary.json", summary(run)), ("kcidb.json", kcidb(run))):
        files.write_json(directory / name, value)
        written.append(directory / name)
    _remove_stale(directory, written)
    return tuple(written)


def html_page(run: RunData, history: Sequence[GateHistory] = (), draw: Sequence[str] = ()) -> str:
    """Return the page: HTML5 without scripts or anything to load; links lead beside it at most."""
    return next(_pages(ReportContext.of(run, draw), history))[1]


def form_page(form: Form) -> str:
    """Return the release-validation form as a page to be printed on A4 and signed.

    Long texts are cut, so that a form stays one that can be read as a whole.
    """
    return environment(_MOST_TEXT).get_template("form.html.j2").render(form=form, run=form.run)


def _texts(shared: ReportContext, history: Sequence[GateHistory]) -> Iterator[tuple[str, str]]:
    run = shared.run
    yield from _pages(shared, history)
    yield "release-form.html", form_page(Form.of(run, shared.matrix))
    yield "report.md", markdown(run)
    yield "junit.xml", junit_xml(run)
    yield "verdicts.csv", verdicts_csv(run)
    kernels = list(dict.fromkeys(column.kernel for column in columns(run)))
    differing = config_differences(run, kernels)
    if differing:
        yield "kernel-configs.csv", config_table(kernels, differing)
    for name, (_, figure) in shared.forests.items():
        if figure:
            yield f"plots/{name}.svg", standalone(figure)


def _pages(shared: ReportContext, history: Sequence[GateHistory]) -> Iterator[tuple[str, str]]:
    """Return report.html, and for runs of many cells the pages with the further ones."""
    pages_of = environment()
    run = shared.run
    shown, further = chosen_cells(cell_views(run, shared.matrix, shared.draw))
    pages = [further[at : at + _CELLS_A_PAGE] for at in range(0, len(further), _CELLS_A_PAGE)]
    names = [f"cells-{place:03d}.html" for place in range(1, len(pages) + 1)]
    context = _context(shared, history)
    hrefs = {view.data.cell.key: f"#{view.anchor}" for view in shown}
    for name, cells in zip(names, pages, strict=True):
        hrefs |= {view.data.cell.key: f"{name}#{view.anchor}" for view in cells}
    yield (
        "report.html",
        pages_of.get_template("report.html.j2").render(
            **context,
            cells=shown,
            further_cells=len(further),
            further_pages=names,
            hrefs=hrefs,
        ),
    )
    template = pages_of.get_template("cells.html.j2")
    for name, cells in zip(names, pages, strict=True):
        yield name, template.render(run=run, name=name, cells=cells)


def _context(shared: ReportContext, history: Sequence[GateHistory]) -> Mapping[str, Any]:
    run, matrix = shared.run, shared.matrix
    found = headline(run)
    kernels = list(dict.fromkeys(column.kernel for column in columns(run)))
    configs = config_differences(run, kernels)
    tried = attempts(run)
    rows = [entry for entry in matrix if not entry.gate.id.startswith(FALSE_ALARM)]
    alarms = [entry for entry in matrix if entry.gate.id.startswith(FALSE_ALARM)]
    series = sorted(history, key=lambda one: not one.changes)[:_MOST_SERIES]
    return {
        "run": run,
        "headline": found,
        "style": OUTCOME_STYLES[found.outcome],
        "release": release_headline(run),
        "styles": OUTCOME_STYLES,
        "untested_style": UNTESTED,
        "lanes": LANES,
        "lanes_used": {cell.cell.lane for cell in run.cells} or {run.lane},
        "labels": kernels,
        "tables": chosen_tables(run, rows, _MOST_ROWS),
        "rows_left_out": max(0, len(rows) - _MOST_ROWS),
        "has_power": any(entry.power_text for entry in matrix),
        "kernel_records": [_kernel_record(record) for record in run.kernels],
        "untested": untested_count(matrix),
        "forests": shared.figures(false_alarms=False),
        "grid": by_gate(matrix),
        "grid_columns": list(dict.fromkeys(entry.column.label for entry in matrix)),
        "labelled_tiles": _LABELLED_TILES,
        "open_entries": not_passed(matrix)[:_MOST_OPEN],
        "open_count": len(not_passed(matrix)),
        "gates_not_drawn": shared.gates_not_drawn,
        "false_alarms": shared.figures(false_alarms=True),
        "false_alarm_tables": chosen_tables(run, alarms, _MOST_ROWS) if alarms else [],
        "attempts": _shown_attempts(tried),
        "attempt_count": len(tried),
        "environment": flat(run.environment),
        "environment_differences": environment_differences(run, kernels),
        "config_differences": notable(configs),
        "config_count": len(configs),
        "has_machines": any(cell.environment for cell in run.cells),
        "history": [(one, history_plot(one)) for one in series],
        "history_count": len(history),
        "changed": sum(1 for one in history if one.changes),
    }


def _shown_attempts(tried: Sequence[AttemptRow]) -> list[AttemptRow]:
    if len(tried) <= _MOST_ROWS:
        return list(tried)
    return [attempt for attempt in tried if not attempt.plain][:_MOST_ROWS]


def _remove_stale(directory: Path, written: Sequence[Path]) -> None:
    """Remove what an earlier report left and this one lacks: it would contradict this one."""
    for path in (path for pattern in _OWN_FILES for path in directory.glob(pattern)):
        if path not in written:
            try:
                path.unlink()
            except OSError as error:
                raise HarnessError(f"cannot remove {path}: {error.strerror}") from error


def _kernel_record(record: Mapping[str, object]) -> dict[str, str]:
    """Return a kernel's record as text: the named columns, and the rest as one."""
    values = flat(record)
    rest = ", ".join(
        f"{key}={value}" for key, value in values.items() if key not in _KERNEL_COLUMNS
    )
    return {**{key: values.get(key, "") for key in _KERNEL_COLUMNS}, "rest": rest}
