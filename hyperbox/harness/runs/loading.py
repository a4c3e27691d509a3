"""A run directory read back: samples judged by the gates, ready for the report.

Verdicts are never stored: they follow from the records, and can be derived again.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from hyperbox.errors import HarnessError
from hyperbox.harness.model import Cell, Gate, Sample, Verdict
from hyperbox.harness.report.data import CellData, RunData
from hyperbox.harness.runs.attempt import State
from hyperbox.harness.runs.plan import Plan
from hyperbox.harness.runs.store import Record, RunInfo, RunStore
from hyperbox.harness.verdicts import gates as rules

__all__ = ["command_line", "judge", "load_run"]


def load_run(directory: Path) -> RunData:
    """Read a run directory and decide its gates.

    A cell that is missing or damaged gives ERROR verdicts; it takes no other cell down.

    Raises
    ------
    ConfigError
        If `directory` is not a run directory.
    HarnessError
        If ``run.json`` is damaged or of a newer hyperbox.
    """
    store = RunStore.open(directory)
    info = store.info()
    cells: list[CellData] = []
    verdicts: list[Verdict] = []
    environments: list[Mapping[str, Any]] = []
    for cell in info.plan.cells():
        data, judged, environment = _cell(store, info.plan, cell)
        cells.append(data)
        verdicts += judged
        environments.append(environment)
    return RunData(
        run_id=directory.resolve().name,
        created=info.document["created"],
        hyperbox_version=info.document["versions"]["hyperbox"],
        lane=info.plan.lane,
        seed=info.plan.seed,
        environment=_environment(info, environments),
        kernels=tuple(_kernels(info.plan, environments)),
        cells=tuple(cells),
        gates=info.plan.gates,
        verdicts=_in_order(info.plan, verdicts),
        reproduce=command_line(info),
        directory=directory,
    )


def judge(
    gate: Gate, plan: Plan, cell: Cell, record: Record | None, samples: Sequence[Sample]
) -> Verdict:
    """Give the verdict of a gate from the attempt that counts; pure."""
    if record is None:
        return rules.broken(gate, cell.kernel, cell.lane, "not measured: the run did not get here")
    reason = str(record.document["reason"])
    if record.state is State.SKIPPED:
        return rules.skipped(gate, cell.kernel, cell.lane, reason)
    if record.state is State.FAILED:
        fingerprint = record.document.get("fingerprint")
        reason = f"{reason} [{fingerprint}]" if fingerprint else reason
        return rules.broken(gate, cell.kernel, cell.lane, reason)
    experiment = plan.experiment(cell.experiment)
    verdict = rules.decide(gate, experiment, cell.kernel, cell.lane, samples)
    warnings = tuple(f"the kernel warned: {text}" for text in record.document["warnings"])
    return replace(verdict, remarks=verdict.remarks + warnings) if warnings else verdict


def command_line(info: RunInfo) -> str:
    """Give the command that repeats a run."""
    asked = info.document["asked"]
    words = ["hyperbox", "validate", *asked["names"]]
    if info.document["target"] == "host":
        words += ["--target", "host"]
    else:
        words += [word for kernel in asked["kernels"] for word in ("--kernel", kernel)]
        words += ["--lane", info.plan.lane]
    words += ["--seed", str(info.plan.seed)]
    for option in ("blocks", "modules", "suites"):
        if asked[option] is not None:
            words += [f"--{option}", str(asked[option])]
    if asked["allow_host_changes"]:
        words.append("--allow-host-changes")
    return shlex.join(words)


def _cell(
    store: RunStore, plan: Plan, cell: Cell
) -> tuple[CellData, list[Verdict], Mapping[str, Any]]:
    experiment = plan.experiment(cell.experiment)
    gates = plan.gates_of(cell.experiment)
    try:
        records = store.records(cell)
        counting = store.latest(cell)
        measured = counting is not None and counting.state is State.MEASURED
        samples = counting.samples() if counting is not None and measured else ()
    except HarnessError as error:
        broken = [rules.broken(gate, cell.kernel, cell.lane, error.message) for gate in gates]
        return CellData(cell, experiment, (), ()), broken, {}
    data = CellData(cell, experiment, samples, tuple(_attempt(record) for record in records))
    verdicts = [judge(gate, plan, cell, counting, samples) for gate in gates]
    return data, verdicts, counting.document["environment"] if counting is not None else {}


def _attempt(record: Record) -> Mapping[str, object]:
    document = record.document
    started, ended = (datetime.fromisoformat(document[key]) for key in ("started", "ended"))
    fingerprint = document.get("fingerprint", "")
    return {
        "number": document["attempt"],
        "status": document["state"],
        "reason": document["reason"],
        **({"fingerprint": fingerprint} if fingerprint else {}),
        "started": document["started"],
        "seconds": (ended - started).total_seconds(),
        "retries": document["attempt"] - 1,
    }


def _environment(info: RunInfo, environments: Sequence[Mapping[str, Any]]) -> Mapping[str, object]:
    """Give the fingerprint of harness and machine; what differs by kernel is left out."""
    measured = next((env for env in environments if env), {})
    own = {key: value for key, value in measured.items() if key != "kernel"}
    return {**info.document["environment"], **own, "versions": info.document["versions"]}


def _kernels(
    plan: Plan, environments: Sequence[Mapping[str, Any]]
) -> Iterator[Mapping[str, object]]:
    found = {env["kernel"]["label"]: env["kernel"] for env in environments if "kernel" in env}
    for label in plan.kernels:
        unknown = {"label": label, "release": "", "version": "", "sha256": "", "remarks": []}
        yield {**unknown, **found.get(label, {})}


def _in_order(plan: Plan, verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """Sort by gate as declared, then by kernel from old to new."""
    gates = [gate.id for gate in plan.gates]
    key = {kernel: place for place, kernel in enumerate(plan.kernels)}
    return tuple(sorted(verdicts, key=lambda v: (gates.index(v.gate), key[v.kernel])))
