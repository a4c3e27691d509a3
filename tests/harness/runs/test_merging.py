"""Shards joined into one run: nothing lost, nothing chosen."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hyperbox.errors import ConfigError, HarnessError
from hyperbox.harness.runs.loading import load_run
from hyperbox.harness.runs.merging import merge

OLD = Path(__file__).parents[1] / "report" / "data" / "schema-1"


def edit(path: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def shard(directory: Path, *kernels: str) -> Path:
    """The frozen run as if it had measured these kernels only."""
    shutil.copytree(OLD, directory)
    for cell in (directory / "cells").iterdir():
        if cell.name.partition("--")[0] not in kernels:
            shutil.rmtree(cell)

    def keep(document: Any) -> None:
        document["plan"]["kernels"] = list(kernels)
        document["asked"]["kernels"] = list(kernels)

    edit(directory / "run.json", keep)
    return directory


def status(run: Path) -> str:
    return str(json.loads((run / "run.json").read_text())["status"])


def test_shards_become_the_whole_run(tmp_path: Path) -> None:
    parts = [shard(tmp_path / "b", "7.3"), shard(tmp_path / "a", "6.12")]
    merge(parts, tmp_path / "whole")
    merged, whole = load_run(tmp_path / "whole"), load_run(OLD)
    assert merged.verdicts == whole.verdicts
    assert merged.kernels == whole.kernels  # old to new, whatever the order of the shards
    assert [c.samples for c in merged.cells] == [c.samples for c in whole.cells]
    assert set(merged.environment["shards"]) == {"a", "b"}  # type: ignore[call-overload]
    assert merged.problems == ()
    assert all((part / "run.json").exists() for part in parts)


def test_identical_duplicates_are_one(tmp_path: Path) -> None:
    parts = [shard(tmp_path / "a", "6.12", "7.3"), shard(tmp_path / "b", "7.3")]
    merge(parts, tmp_path / "whole")
    assert load_run(tmp_path / "whole").verdicts == load_run(OLD).verdicts


def test_different_duplicates_are_refused(tmp_path: Path) -> None:
    parts = [shard(tmp_path / "a", "6.12", "7.3"), shard(tmp_path / "b", "7.3")]
    record = next((parts[1] / "cells").glob("*monitor*")) / "attempt-1" / "record.json"
    edit(record, lambda d: d.update(started="2026-11-25T09:00:00.000Z"))
    with pytest.raises(ConfigError, match=r"both measured 7\.3--psi\.monitor_cpu--exact"):
        merge(parts, tmp_path / "whole")
    assert not (tmp_path / "whole").exists()


def test_another_build_of_a_kernel_is_refused(tmp_path: Path) -> None:
    parts = [shard(tmp_path / "a", "6.12", "7.3"), shard(tmp_path / "b", "7.3")]
    shutil.rmtree(next((parts[0] / "cells").glob("7.3*monitor*")))
    shutil.rmtree(next((parts[1] / "cells").glob("*pressure*")))
    record = next((parts[1] / "cells").glob("*monitor*")) / "attempt-1" / "record.json"
    edit(record, lambda d: d["environment"]["kernel"].update(sha256="0" * 64))
    with pytest.raises(ConfigError, match=r"kernel 7\.3 is another build"):
        merge(parts, tmp_path / "whole")


@pytest.mark.parametrize(
    ("key", "value"), [("seed", 2), ("lane", "kvm"), ("gates", None), ("experiments", None)]
)
def test_other_plans_are_refused(tmp_path: Path, key: str, value: object) -> None:
    parts = [shard(tmp_path / "a", "6.12"), shard(tmp_path / "b", "7.3")]

    def change(document: Any) -> None:
        plan = document["plan"]
        plan[key] = plan[key][:1] if value is None else value
        known = [experiment["id"] for experiment in plan["experiments"]]
        plan["gates"] = [gate for gate in plan["gates"] if gate["experiment"] in known]

    edit(parts[1] / "run.json", change)
    with pytest.raises(ConfigError, match=f"is not a shard of the plan .* other .*{key}"):
        merge(parts, tmp_path / "whole")


@pytest.mark.parametrize("newer", [0, 1])
def test_what_an_older_plan_does_not_say_is_its_default(tmp_path: Path, newer: int) -> None:
    parts = [shard(tmp_path / "a", "6.12"), shard(tmp_path / "b", "7.3")]

    def change(document: Any) -> None:
        plan = document["plan"]
        assert not any("limit_s" in experiment for experiment in plan["experiments"])
        for experiment in plan["experiments"]:
            experiment["limit_s"] = None
        for gate in plan["gates"]:
            gate["scale"] = "ratio"
        plan["beside"] = []

    edit(parts[newer] / "run.json", change)
    merge(parts, tmp_path / "whole")
    assert load_run(tmp_path / "whole").verdicts == load_run(OLD).verdicts


def test_a_limit_that_is_not_the_default_is_another_plan(tmp_path: Path) -> None:
    parts = [shard(tmp_path / "a", "6.12"), shard(tmp_path / "b", "7.3")]
    edit(parts[1] / "run.json", lambda d: d["plan"]["experiments"][0].update(limit_s=60.0))
    with pytest.raises(ConfigError, match="other experiments"):
        merge(parts, tmp_path / "whole")


def test_a_shard_twice_or_a_used_place_is_refused(tmp_path: Path) -> None:
    part = shard(tmp_path / "a", "6.12")
    with pytest.raises(ConfigError, match="is given twice"):
        merge([part, part / ".." / "a"], tmp_path / "whole")
    with pytest.raises(ConfigError, match="is not empty"):
        merge([part], part)
    with pytest.raises(ConfigError, match="is not a run directory"):
        merge([part, tmp_path], tmp_path / "whole")


def test_a_place_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    part, place = shard(tmp_path / "a", "6.12"), tmp_path / "file"
    place.write_text("kept")
    with pytest.raises(ConfigError, match=r"cannot use .*file: Not a directory"):
        merge([part], place)
    assert place.read_text() == "kept"


def test_shards_of_the_same_name_keep_both_environments(tmp_path: Path) -> None:
    parts = [shard(tmp_path / "one/run", "6.12"), shard(tmp_path / "two/run", "7.3")]
    merge(parts, tmp_path / "whole")
    shards = load_run(tmp_path / "whole").environment["shards"]
    assert set(shards) == {str(part) for part in parts}  # type: ignore[call-overload]


def test_what_a_shard_lacks_stays_a_hole(tmp_path: Path) -> None:
    parts = [shard(tmp_path / "a", "6.12"), shard(tmp_path / "b", "7.3")]
    shutil.rmtree(parts[1] / "cells")
    edit(parts[1] / "run.json", lambda d: d.update(status="interrupted", ended=None))
    merge(parts, tmp_path / "whole")
    document = json.loads((tmp_path / "whole" / "run.json").read_text())
    assert (document["status"], document["ended"]) == ("interrupted", None)
    shown = {v.outcome for v in load_run(tmp_path / "whole").verdicts if v.kernel == "7.3"}
    assert shown == {"ERROR"}


def test_what_one_shard_was_cut_off_from_another_completes(tmp_path: Path) -> None:
    parts = [shard(tmp_path / "a", "6.12", "7.3"), shard(tmp_path / "b", "7.3")]
    for cell in (parts[0] / "cells").glob("7.3--*"):
        shutil.rmtree(cell)
    edit(parts[0] / "run.json", lambda d: d.update(status="running", ended=None))  # killed
    merge(parts, tmp_path / "whole")
    assert status(tmp_path / "whole") == "complete"
    assert load_run(tmp_path / "whole").verdicts == load_run(OLD).verdicts


def test_a_failed_cell_of_a_cut_off_shard_leaves_the_run_cut_off(tmp_path: Path) -> None:
    part = shard(tmp_path / "a", "6.12", "7.3")
    record = next((part / "cells").glob("7.3--*monitor*")) / "attempt-1" / "record.json"
    edit(record, lambda d: d.update(state="failed"))
    edit(part / "run.json", lambda d: d.update(status="interrupted"))
    merge([part], tmp_path / "whole")
    assert status(tmp_path / "whole") == "interrupted"


def test_a_failed_merge_leaves_nothing(tmp_path: Path) -> None:
    part = shard(tmp_path / "a", "6.12")
    record = next((part / "cells").glob("*monitor*")) / "attempt-1" / "kernel.config"
    record.unlink()
    record.mkdir()  # cannot be read as a file
    with pytest.raises(HarnessError, match="cannot read"):
        merge([part], tmp_path / "whole")
    assert not (tmp_path / "whole").exists()
