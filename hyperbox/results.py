"""Results of a run as tidy pandas tables, for notebooks.

>>> import hyperbox.results
>>> run = hyperbox.results.load("runs/20261125T094602.136Z")  # doctest: +SKIP
>>> run.verdicts[["gate", "kernel", "outcome", "estimate"]]  # doctest: +SKIP

Each table has one row per thing and one column per fact:

============== ===========================================================================
table          one row per
============== ===========================================================================
samples        measured value: block x arm x metric
pairs          block x metric, with arm and baseline side by side
blocks         block as a gate sees it
verdicts       gate x kernel x lane
details        number behind a verdict: p-values, drift, order effect, spread
gates          target
cells          experiment x kernel x lane
attempts       attempt at a cell
environment    fact about the machine of a cell
kernel_configs option of a kernel
============== ===========================================================================

`COLUMNS` says what each column holds and in which unit; `columns()` returns that as a table, with
types. A cell is named by kernel, experiment and lane in every table, so that tables join on
these. What is not known is NaN or missing, never zero. A table is made when it is first asked for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from hyperbox.harness.report import comparison, tidy_columns
from hyperbox.harness.report.comparison_data import comparison_document
from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.matrix import columns as matrix_columns
from hyperbox.harness.report.tidy_columns import type_of
from hyperbox.harness.report.tidy_rows import ROWS
from hyperbox.harness.runs.loading import load_run

__all__ = ["COLUMNS", "COMPARED", "Results", "columns", "compare", "load"]

COLUMNS: Mapping[str, Mapping[str, str]] = tidy_columns.MEANINGS
"""Table -> column -> what the column holds, with its unit."""


COMPARED: Mapping[str, str] = tidy_columns.COMPARED
"""Column of what `compare` gives -> what it holds, with its unit."""


@dataclass(frozen=True)
class Results:
    """The tables of runs; `COLUMNS` documents them. See the module for what a row is."""

    runs: tuple[RunData, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """Sentences about what could not be read."""
        return tuple(problem for run in self.runs for problem in run.problems)

    @cached_property
    def samples(self) -> pd.DataFrame:
        """Every measured value of every arm."""
        return self._table("samples")

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """Every metric of every block, an arm beside its baseline."""
        return self._table("pairs")

    @cached_property
    def blocks(self) -> pd.DataFrame:
        """Every block as each gate sees it."""
        return self._table("blocks")

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        """What each gate says about each kernel."""
        return self._table("verdicts")

    @cached_property
    def details(self) -> pd.DataFrame:
        """The numbers behind each verdict."""
        return self._table("details")

    @cached_property
    def gates(self) -> pd.DataFrame:
        """The targets."""
        return self._table("gates")

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Every experiment on every kernel."""
        return self._table("cells")

    @cached_property
    def attempts(self) -> pd.DataFrame:
        """Every attempt at a cell."""
        return self._table("attempts")

    @cached_property
    def environment(self) -> pd.DataFrame:
        """What is on record about the machine of each cell."""
        return self._table("environment")

    @cached_property
    def kernel_configs(self) -> pd.DataFrame:
        """The options of each kernel whose configuration is on record."""
        return self._table("kernel_configs")

    def _table(self, name: str) -> pd.DataFrame:
        """Return a table with its documented columns and types, also without rows."""
        rows = [row for run in self.runs for row in ROWS[name](run)]
        table = pd.DataFrame.from_records(rows, columns=list(COLUMNS[name]))
        for column in table.columns:
            table[column] = self._typed(column, table[column])
        return table

    def _typed(self, column: str, values: pd.Series[Any]) -> pd.Series[Any]:
        kind: Any = type_of(column)
        if kind == "datetime":
            return pd.to_datetime(values, utc=True, format="ISO8601")
        if column == "kernel":
            return values.astype(pd.CategoricalDtype(self._kernels, ordered=True))
        if kind == "str" and len(values):
            return values  # as pandas keeps text, which changed with version 3
        return values.astype(kind)

    @cached_property
    def _kernels(self) -> list[str]:
        """Labels of all kernels, oldest first: as planned, or by number where runs are several."""
        found = [column.kernel for run in self.runs for column in matrix_columns(run)]
        labels = list(dict.fromkeys(found))
        return labels if len(self.runs) == 1 else sorted(labels, key=_by_number)


def load(run: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Results:
    """Read one run directory, or several into the same tables.

    Raises
    ------
    ConfigError
        If a directory is not a run directory.
    HarnessError
        If a ``run.json`` is damaged or of a newer hyperbox. A damaged cell gives ERROR
        verdicts and a problem instead.
    """
    paths = [run] if isinstance(run, (str, os.PathLike)) else list(run)
    return Results(tuple(load_run(Path(path)) for path in paths))


def compare(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str] | None = None,
    kernels: Sequence[str] = (),
) -> pd.DataFrame:
    """Return what ``hyperbox compare`` says, one row per metric and arm; `COMPARED` documents it.

    The answer in one sentence, and what to read it with, are in ``attrs``: "sentence", "remarks",
    "first" and "second".

    Raises
    ------
    ConfigError
        If a directory is not a run directory, or the sides have nothing in common.
    HarnessError
        If a ``run.json`` is damaged or of a newer hyperbox.
    """
    other = load_run(Path(second)) if second is not None else None
    document = comparison_document(comparison.compare(load_run(Path(first)), other, kernels))
    for row in document["rows"]:
        row["first_blocks"], row["second_blocks"] = row.pop("blocks")
    table = pd.DataFrame(document["rows"], columns=list(COMPARED))
    kinds: dict[str, Any] = {name: type_of(name) for name in COMPARED}
    table = table.astype(kinds)
    table.attrs.update({key: document[key] for key in ("sentence", "remarks", "first", "second")})
    return table


def columns() -> pd.DataFrame:
    """Return the documentation of all tables: table, column, type, meaning."""
    rows = [
        (table, column, type_of(column), meaning)
        for table, meanings in COLUMNS.items()
        for column, meaning in meanings.items()
    ]
    return pd.DataFrame(rows, columns=["table", "column", "type", "meaning"])


def _by_number(label: str) -> list[tuple[int, str]]:
    return [(int(part or 0), text) for text, part in re.findall(r"(\D*)(\d*)", label)]
