"""The report of a run: one self-contained HTML file, and its kin for other readers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import jinja2
from markupsafe import Markup

from hyperbox import files
from hyperbox.harness.report.cells import attempts, flat, metric_rows
from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.exports import summary, verdicts_csv
from hyperbox.harness.report.junit import junit_xml
from hyperbox.harness.report.markdown import markdown
from hyperbox.harness.report.marks import LANES, MARKS, UNTESTED
from hyperbox.harness.report.matrix import entries, headline, kernel_labels, untested_count
from hyperbox.harness.report.plots import forest_plot, heat_map, run_order_plot
from hyperbox.harness.report.svg import standalone
from hyperbox.harness.verdicts.wording import legible, typeset

__all__ = ["html_page", "write_report"]

_TEMPLATES = Path(__file__).parent / "templates"
_KERNEL_COLUMNS = ("label", "release", "version", "sha256", "remarks")


def write_report(run: RunData, directory: Path) -> tuple[Path, ...]:
    """Write report.html, report.md, junit.xml, summary.json, verdicts.csv and plots/*.svg.

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
    texts = {
        "report.html": html_page(run),
        "report.md": markdown(run),
        "junit.xml": junit_xml(run),
        "verdicts.csv": verdicts_csv(run),
        **{f"plots/{name}.svg": text for name, text in _plots(run).items() if text},
    }
    for name, text in texts.items():
        files.write_text(directory / name, text)
    files.write_json(directory / "summary.json", summary(run))
    return tuple(directory / name for name in (*texts, "summary.json"))


def html_page(run: RunData) -> str:
    """Give the page: HTML5 without scripts, links to elsewhere or anything to load."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finished,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["typeset"] = typeset
    matrix = entries(run)
    told = headline(run)
    return environment.get_template("report.html.j2").render(
        run=run,
        headline=told,
        mark=MARKS[told.outcome],
        marks=MARKS,
        untested_mark=UNTESTED,
        lanes=LANES,
        kernels=[
            (label, [entry for entry in matrix if entry.kernel == label])
            for label in kernel_labels(run)
        ],
        kernel_records=[_kernel_record(record) for record in run.kernels],
        untested=untested_count(matrix),
        forests=[(gate, forest_plot(run, gate)) for gate in run.gates],
        heat_map=heat_map(run),
        cells=[(cell, run_order_plot(run, cell), metric_rows(run, cell)) for cell in run.cells],
        attempts=attempts(run),
        environment=flat(run.environment),
    )


def _plots(run: RunData) -> dict[str, str]:
    """Give the figures that speak for the whole run, as pictures of their own."""
    figures = {"heat-map": heat_map(run)}
    figures |= {gate.id: forest_plot(run, gate) for gate in run.gates}
    return {name: standalone(figure) for name, figure in figures.items()}


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
