"""The public tables: documented, tidy, and true to the samples."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import hyperbox.results
from hyperbox.errors import ConfigError
from hyperbox.harness.model import Gate, Rule
from hyperbox.harness.report.data import RunData
from tests.harness.report.conftest import make_run

COLUMNS_OF_TABLES = [
    (table, column) for table, columns in hyperbox.results.COLUMNS.items() for column in columns
]
OLD = Path(__file__).parent / "harness" / "report" / "data" / "schema-1"


@pytest.fixture(scope="module")
def results() -> hyperbox.results.Results:
    return hyperbox.results.load(OLD)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    return make_run(tmp_path_factory.mktemp("run"))


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


def test_types_are_those_that_are_documented(results: hyperbox.results.Results) -> None:
    """In every table, with and without rows; `columns` says them."""
    shown = hyperbox.results.columns().set_index(["table", "column"])["type"]
    empty = hyperbox.results.Results(())
    for place in COLUMNS_OF_TABLES:
        kind = shown[place]
        for one in (results, empty):
            found = getattr(one, place[0])[place[1]].dtype
            if kind == "category":
                assert isinstance(found, pd.CategoricalDtype), place
            elif kind == "datetime":
                assert str(found).endswith("UTC]"), place
            elif kind == "str":
                assert pd.api.types.is_string_dtype(found), place
            else:
                assert str(found) == kind, place


def test_pairs_are_what_gates_see(results: hyperbox.results.Results) -> None:
    """The change of a gate's metric, arm and baseline is the gate's block."""
    paired = results.gates.query("scale == 'ratio'").dropna(subset="baseline")
    assert len(paired) > 0
    keys = ["run", "kernel", "lane", "experiment", "metric", "arm", "baseline", "block"]
    seen = results.blocks.merge(paired, on=["run", "experiment", "gate"])
    both = seen.merge(results.pairs, on=keys, suffixes=("_gate", ""))
    assert len(both) == len(seen) > 0
    assert both["change"].tolist() == pytest.approx(both["value_gate"].tolist())
    assert (both["baseline_first"] == both["baseline_first_gate"]).all()
    assert (both["difference"] == both["value"] - both["baseline_value"]).all()
    one_arm = results.samples.groupby("experiment", observed=True)["arm"].nunique()
    alone = set(one_arm[one_arm == 1].index)
    assert alone, "an experiment of one arm has no pairs"
    assert not alone & set(results.pairs["experiment"])


def test_a_change_needs_positive_values(run: RunData) -> None:
    cells = tuple(
        replace(
            c, samples=tuple(replace(s, value=0.0 if s.arm == "off" else 1.0) for s in c.samples)
        )
        for c in run.cells
    )
    pairs = hyperbox.results.Results((replace(run, cells=cells),)).pairs
    assert len(pairs) > 0
    assert pairs["change"].isna().all()
    assert (pairs["difference"] == 1.0).all()


def test_arms_that_no_gate_compares_are_held_against_the_first(run: RunData) -> None:
    def shown(*gates: Gate) -> set[tuple[str, str]]:
        pairs = hyperbox.results.Results((replace(run, gates=gates),)).pairs
        return set(zip(pairs["arm"], pairs["baseline"], strict=True))

    assert shown() == shown(run.gates[2]) == {("on", "off")}
    assert shown(replace(run.gates[2], arm="off", baseline="on")) == {("off", "on")}


def test_kernels_are_in_their_order_not_the_alphabets(run: RunData) -> None:
    """5.10 is older than 5.4 in no table of letters."""
    names = {"5.10": "5.4", "6.12": "6.6", "7.3": "6.12"}
    cells = tuple(replace(c, cell=replace(c.cell, kernel=names[c.cell.kernel])) for c in run.cells)
    kernels = tuple({"label": label} for label in names.values())
    renamed = replace(run, run_id="renamed", cells=cells, kernels=kernels, verdicts=())
    one = hyperbox.results.Results((renamed,)).samples["kernel"]
    assert one.cat.ordered
    assert list(one.cat.categories) == ["5.4", "6.6", "6.12"]
    both = hyperbox.results.Results((run, renamed)).samples["kernel"]
    assert list(both.cat.categories) == ["5.4", "5.10", "6.6", "6.12", "7.3"]


def test_what_is_not_known_is_missing_not_zero(tmp_path: Path) -> None:
    """A damaged cell takes no other table down, and gives no number."""
    shutil.copytree(OLD, tmp_path / "run")
    next((tmp_path / "run").glob("cells/6.12*monitor*/attempt-1/record.json")).write_text("{")
    found = hyperbox.results.load(tmp_path / "run")
    assert "is not JSON" in found.problems[0]
    lost = found.verdicts.query("kernel == '6.12' and gate == 'psi.monitor_cpu'").iloc[0]
    assert lost["outcome"] == "ERROR"
    assert pd.isna(lost[["estimate", "low", "high", "level", "power"]]).all()
    assert len(found.cells) == 4
    assert found.cells["state"].isna().sum() == 1
    for name in hyperbox.results.COLUMNS:
        assert list(getattr(found, name).columns) == list(hyperbox.results.COLUMNS[name])


def test_limits_are_those_of_the_target(run: RunData) -> None:
    """Rules with one limit leave the other open; equivalence has both."""
    within = replace(run.gates[-1], id="psi.equal", rule=Rule.WITHIN, margin=0.02)
    found = hyperbox.results.Results((replace(run, gates=(*run.gates, within)),)).verdicts
    here = found.query("kernel == '6.12'").set_index("gate")
    assert here["lower_limit"]["psi.equal"] == pytest.approx(1 / 1.02 - 1)
    assert here["upper_limit"]["psi.equal"] == pytest.approx(0.02)
    assert here["upper_limit"]["psi.monitor_cpu"] == 1.0
    assert math.isnan(here["lower_limit"]["psi.monitor_cpu"])


def test_machines_and_kernels_are_on_record(results: hyperbox.results.Results) -> None:
    releases = results.environment.query("fact == 'kernel.release'")
    assert len(releases) == len(results.cells)
    assert results.kernel_configs.query("option == 'CONFIG_PSI'")["setting"].tolist() == ["y", "y"]
    details = results.details.pivot_table("value", ["gate", "kernel"], "name", observed=True)
    assert (details["p_met"].dropna() <= 1).all()


def test_a_comparison_is_a_table_too() -> None:
    found = hyperbox.results.compare(OLD, kernels=["6.12", "7.3"])
    assert list(found.columns) == list(hyperbox.results.COMPARED)
    assert found["change"].dtype == "float64"
    assert found["first_blocks"].dtype == "int64"
    stall = found.query("metric == 'memory_some_us' and arm == 'stock'").iloc[0]
    assert stall["finding"] == "second better"
    assert stall["low"] <= stall["change"] <= stall["high"] < 0
    assert stall["p_alone"] <= stall["p"] <= 0.05
    assert found.attrs["sentence"].startswith(f"Of {len(found)} metrics 6.12 is better at ")
    with pytest.raises(ConfigError, match="one run needs two kernels"):
        hyperbox.results.compare(OLD)
