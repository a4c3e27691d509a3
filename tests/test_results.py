"""The public tables: documented, tidy, and true to the samples."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

import hyperbox.results
from hyperbox.errors import ConfigError

OLD = Path(__file__).parent / "harness" / "report" / "data" / "schema-1"


@pytest.fixture(scope="module")
def results() -> hyperbox.results.Results:
    return hyperbox.results.load(OLD)


@pytest.mark.parametrize("name", hyperbox.results.COLUMNS)
def test_every_column_is_documented(results: hyperbox.results.Results, name: str) -> None:
    table: pd.DataFrame = getattr(results, name)
    assert list(table.columns) == list(hyperbox.results.COLUMNS[name])
    assert all(hyperbox.results.COLUMNS[name].values())
    assert len(table) > 0


def test_tables_agree_with_each_other(results: hyperbox.results.Results) -> None:
    """A gate's blocks are the ratios of the samples; its estimate lies among them."""
    values = results.samples.query("metric == 'memory_some_us' and kernel == '7.3'")
    arms = values.pivot(index="block", columns="arm", values="value")
    ratio = (arms["zram_ahead"] / arms["stock"] - 1).tolist()
    blocks = results.blocks.query("gate == 'psi.pressure_reduction' and kernel == '7.3'")
    assert blocks["value"].tolist() == pytest.approx(ratio)
    assert blocks["used"].all()
    verdict = results.verdicts.query("gate == 'psi.pressure_reduction' and kernel == '7.3'").iloc[0]
    assert min(ratio) <= verdict["low"] <= verdict["estimate"] <= verdict["high"] <= max(ratio)
    assert verdict["n"] == len(blocks) == 8
    assert verdict["limit"] == -0.05
    assert results.cells["seconds"].sum() == pytest.approx(results.attempts["seconds"].sum())


def test_kinds_of_columns(results: hyperbox.results.Results) -> None:
    assert str(results.attempts["started"].dtype).endswith("UTC]")
    assert isinstance(results.samples["arm"].dtype, pd.CategoricalDtype)
    assert results.samples["value"].dtype == "float64"


def test_several_runs_share_the_tables(tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path / "later")
    both = hyperbox.results.load([OLD, tmp_path / "later"])
    assert both.verdicts.groupby("run", observed=True).size().to_dict() == {
        "schema-1": 8,
        "later": 8,
    }


def test_a_run_without_cells_gives_empty_tables(tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "cells")
    none = hyperbox.results.load(tmp_path / "run")
    assert none.samples.empty
    assert list(none.samples.columns) == list(hyperbox.results.COLUMNS["samples"])
    assert set(none.verdicts["outcome"]) == {"ERROR"}
    assert none.cells["state"].isna().all()


def test_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run directory"):
        hyperbox.results.load(tmp_path)
