"""A run directory read back: samples judged by the gates, ready for the report.

Verdicts are never stored: they follow from the records, and can be derived again.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from hyperbox.errors import HarnessError
from hyperbox.harness.model import Cell, Experiment, Gate, Lane, Sample, Verdict
from hyperbox.harness.report.data import CellData, RunData
from hyperbox.harness.runs.attempt import AttemptState
from hyperbox.harness.runs.ingredients import fact
from hyperbox.harness.runs.plan import Plan
from hyperbox.harness.runs.record import Record, attempt_number, counting, read_record
from hyperbox.harness.runs.store import RunInfo, RunStore
from hyperbox.harness.verdicts import gates as rules
from hyperbox.harness.verdicts.fallbacks import with_stand_ins
from hyperbox.printing import legible

__all__ = ["command_line", "judge", "load_run"]

_CROWDED = 0.1  # of the time that guests wanted to run; more is reported


@dataclass(frozen=True)
class _Read:
    """A cell read back: its data, its verdicts, and sentences about what is wrong with it."""

    data: CellData
    verdicts: tuple[Verdict, ...]
    problems: tuple[str, ...] = ()


@dataclass
class _Seen:
    """What many cells share, kept once: environments by their text, configurations by kernel."""

    environments: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    configs: dict[str, Mapping[str, str]] = field(default_factory=dict)

    def environment(self, record: Record) -> Mapping[str, Any]:
        found = record.document["environment"]
        return self.environments.setdefault(json.dumps(found, sort_keys=True), found)

    def note_config(self, kernel: str, record: Record) -> Iterator[str]:
        """Keep a kernel's first configuration; yield what is wrong with it."""
        if not self.configs.get(kernel):
            try:
                self.configs[kernel] = _kernel_config(record.evidence("kernel.config").decode())
            except HarnessError as error:
                yield error.message
            except ValueError:
                yield f"{record.directory / 'kernel.config'} is not text"


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
    seen = _Seen()
    read = [_cell(store, info, cell, seen) for cell in info.plan.cells()]
    cells = tuple(one.data for one in read)
    environments = [cell.environment for cell in cells]
    return RunData(
        run_id=legible(directory.resolve().name),
        created=info.document["created"],
        hyperbox_version=info.document["versions"]["hyperbox"],
        lane=info.plan.lane,
        seed=info.plan.seed,
        environment=_environment(info, environments),
        kernels=tuple(_kernels(info.plan, environments)),
        cells=cells,
        gates=info.plan.gates,
        verdicts=with_stand_ins(
            info.plan.gates,
            _in_order(info.plan, [verdict for one in read for verdict in one.verdicts]),
        ),
        reproduce=command_line(info),
        directory=directory,
        problems=tuple(
            legible(text)
            for text in (*_strays(store, info.plan), *_told_by(read), *_mixed_builds(cells))
        ),
        kernel_configs={kernel: config for kernel, config in seen.configs.items() if config},
    )


def judge(
    gate: Gate, plan: Plan, cell: Cell, record: Record | None, samples: Sequence[Sample]
) -> Verdict:
    """Return the verdict of a gate from the attempt that counts; pure."""
    if record is None:
        return rules.broken(gate, cell.kernel, cell.lane, "not measured: the run did not get here")
    reason = str(record.document["reason"])
    if record.state is AttemptState.SKIPPED:
        return rules.skipped(gate, cell.kernel, cell.lane, reason)
    if record.state is AttemptState.FAILED:
        fingerprint = record.document.get("fingerprint")
        reason = f"{reason} [{fingerprint}]" if fingerprint else reason
        return rules.broken(gate, cell.kernel, cell.lane, reason)
    experiment = plan.experiment(cell.experiment)
    lane, doubt = _trusted_lane(cell, record)
    verdict = rules.decide(gate, experiment, cell.kernel, lane, samples)
    warnings = tuple(f"the kernel warned: {text}" for text in record.document["warnings"])
    crowd = () if lane is Lane.EXACT else _crowded(record.document["blocks"])
    remarks = (*verdict.remarks, *_provenance(record), *doubt, *crowd, *warnings)
    return replace(verdict, lane=cell.lane, remarks=remarks)


def _provenance(record: Record) -> Iterator[str]:
    """Say what is not signed or not as locked: every report has a verdict's remarks."""
    environment = record.document["environment"]
    kernel = environment.get("kernel")
    names = kernel.get("unsigned") if isinstance(kernel, Mapping) else None
    if names and isinstance(names, list):
        yield f"unsigned kernel: no signed list names {', '.join(map(str, names))}"
    remarks = environment.get("guest_remarks")
    yield from map(str, remarks if isinstance(remarks, list) else ())


def _crowded(blocks: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Say that the host had too few processors: that is a bias, no noise.

    In the host's time a guest that computes is held up by it, one that waits for a timer (a
    slow disk, say) is not, and no order of arms takes that out.
    """
    used, waited = (
        sum(seconds for block in blocks for seconds in block.get(kind, {}).values())
        for kind in ("cpu_seconds", "run_delay_seconds")
    )
    share = waited / (used + waited) if waited else 0.0
    if share <= _CROWDED:
        return ()
    return (
        f"the host was busy: {share:.0%} of the time that guests wanted to run they had no "
        "processor, which favours arms that wait over arms that compute; give fewer --jobs",
    )


def _trusted_lane(cell: Cell, record: Record) -> tuple[Lane, tuple[str, ...]]:
    """Return the lane by whose rules to decide, and why it is not the cell's own.

    An exact lane that failed its self-test is judged like the host's time. Runs of old
    hyperboxes have no self-test on record.
    """
    found = record.document["environment"].get("repeatability") or {}
    if cell.lane is not Lane.EXACT or not found:
        return cell.lane, ()
    if not isinstance(found, Mapping) or found.get("exact") not in (True, False):
        return Lane.FAST, ("not surely exact on this machine (its self-test cannot be read)",)
    if not found["exact"]:
        return Lane.FAST, (f"not exact on this machine ({found.get('reason') or 'no reason'})",)
    return cell.lane, ()


def command_line(info: RunInfo) -> str:
    """Return the command that repeats a run."""
    asked = info.document["asked"]
    words = ["hyperbox", "validate", *asked["names"]]
    if info.document["target"] == "host":
        words += ["--target", "host"]
    else:
        words += [word for kernel in asked["kernels"] for word in ("--kernel", kernel)]
        words += ["--lane", info.plan.lane]
        words += [word for lane in info.plan.beside for word in ("--beside", lane)]
    words += ["--seed", str(info.plan.seed)]
    for option in ("blocks", "modules", "suites"):
        if asked[option] is not None:
            words += [f"--{option}", str(asked[option])]
    if asked["allow_host_changes"]:
        words.append("--allow-host-changes")
    return shlex.join(words)


def _cell(store: RunStore, info: RunInfo, cell: Cell, seen: _Seen) -> _Read:
    """Read one cell. Any damage makes all its gates ERROR: what is lost may have counted."""
    plan, experiment = info.plan, info.plan.experiment(cell.experiment)
    records, problems = _records(store, cell)
    if info.status == "complete" and not records and not problems:
        home = store.directory / "cells" / cell.key
        problems.append(f"{home} holds no attempt, though the run is complete")
    attempts = tuple(_attempt(record) for record in records)
    samples: tuple[Sample, ...] = ()
    found = counting(records)
    if found is not None and not problems:
        try:
            samples = found.samples() if found.state is AttemptState.MEASURED else ()
            _check_samples(found.directory, samples, experiment)
        except HarnessError as error:
            problems.append(error.message)
            samples = ()
    environment = seen.environment(found) if found is not None else {}
    notes = [text for record in records for text in _changed_logs(record)]
    if found is not None:
        notes += seen.note_config(cell.kernel, found)
    data = CellData(cell, experiment, samples, attempts, environment)
    gates = plan.gates_of(cell.experiment)
    if problems:
        broken = (rules.broken(gate, cell.kernel, cell.lane, problems[0]) for gate in gates)
        return _Read(data, tuple(broken), (*problems, *notes))
    verdicts = (judge(gate, plan, cell, found, samples) for gate in gates)
    return _Read(data, tuple(verdicts), tuple(notes))


def _told_by(read: Sequence[_Read]) -> Iterator[str]:
    yield from dict.fromkeys(text for one in read for text in one.problems)


def _records(store: RunStore, cell: Cell) -> tuple[list[Record], list[str]]:
    """Return the readable attempts of a cell, and what is wrong with the others.

    Attempts are numbered without a gap: one that is lost may have been the one that counts.
    """
    records: list[Record] = []
    problems: list[str] = []
    try:
        paths = store.attempts(cell)
    except HarnessError as error:
        return [], [error.message]
    for number, path in enumerate(paths, 1):
        try:
            record = read_record(path)
            _check_times(record)
        except HarnessError as error:
            problems.append(error.message)
            continue
        if record.document["cell"] != asdict(cell):
            named = Cell(**record.document["cell"]).key
            problems.append(f"{path} holds a record of another cell: {named}")
        elif attempt_number(path.name) != number and not problems:
            problems.append(
                f"{path.parent} has lost attempt {number}: it may be the one that counts"
            )
        else:
            records.append(record)
    return records, problems


def _changed_logs(record: Record) -> Iterator[str]:
    """Yield which logs are not what was put on record; they decide nothing."""
    for name in ("serial.log", "dmesg.txt"):
        try:
            record.evidence(name)
        except HarnessError as error:
            yield error.message


def _check_times(record: Record) -> None:
    """Refuse durations that no clock can give; HarnessError names the first."""
    where, document = record.directory, record.document
    if _seconds(document) < 0:
        raise HarnessError(f"{where} ended before it started")
    for block in document["blocks"]:
        for kind in ("seconds", "guest_seconds", "cpu_seconds", "run_delay_seconds"):
            for arm, seconds in block.get(kind, {}).items():
                if seconds < 0:
                    raise HarnessError(
                        f"{where}: arm {arm} of block {block['number']} took {seconds} s"
                    )


def _check_samples(where: Path, samples: Sequence[Sample], experiment: Experiment) -> None:
    """Refuse samples outside of their metric's range; HarnessError names the first."""
    metrics = {metric.id: metric for metric in experiment.metrics}
    for sample in samples:
        metric = metrics.get(sample.metric)
        if metric is not None and not metric.holds(sample.value):
            raise HarnessError(
                f"{where}: {sample.metric} of arm {sample.arm} is {sample.value:g} in block "
                f"{sample.block}, which is not {metric.range_text()}"
            )


def _attempt(record: Record) -> Mapping[str, object]:
    document = record.document
    given = {
        "error": document.get("error", ""),
        "fingerprint": document.get("fingerprint", ""),
        "warnings": "; ".join(document["warnings"]),
        "cost": _cost(document["blocks"]),
    }
    return {
        "number": document["attempt"],
        "status": document["state"],
        "reason": document["reason"],
        **{key: value for key, value in given.items() if value},
        "started": document["started"],
        "seconds": _seconds(document),
        "retries": document["attempt"] - 1,
    }


def _cost(blocks: Sequence[Mapping[str, Any]]) -> str:
    """Say what the arms took by their own clock and of the host's CPU; "" if not known."""
    guest, cpu = (
        sum(seconds for block in blocks for seconds in block.get(kind, {}).values())
        for kind in ("guest_seconds", "cpu_seconds")
    )
    if not guest or not cpu:
        return ""
    return f"{guest:.1f} guest s for {cpu:.1f} CPU s ({guest / cpu:.2g} guest s per CPU s)"


def _seconds(document: Mapping[str, Any]) -> float:
    started, ended = (datetime.fromisoformat(document[key]) for key in ("started", "ended"))
    return (ended - started).total_seconds()


def _strays(store: RunStore, plan: Plan) -> Iterator[str]:
    """Name what lies in the run directory and belongs to no cell of its plan."""
    try:
        for path in store.strays(plan):
            whose = "cell of the run's plan" if path.parent.name == "cells" else "attempt"
            yield f"{path} belongs to no {whose} and was left out"
    except HarnessError as error:
        yield error.message


def _mixed_builds(cells: Sequence[CellData]) -> Iterator[str]:
    """Name kernels whose cells were measured on several builds, as old hyperboxes let happen."""
    builds: dict[str, dict[str, None]] = {}
    for cell in cells:
        digest = fact(cell.environment, ("kernel", "sha256"))
        if digest:
            builds.setdefault(cell.cell.kernel, {})[str(digest)[:12]] = None
    for kernel, digests in builds.items():
        if len(digests) > 1:
            yield f"cells of kernel {kernel} were measured on several builds: {', '.join(digests)}"


def _kernel_config(text: str) -> Mapping[str, str]:
    pairs = (line.partition("=") for line in text.splitlines() if line.startswith("CONFIG_"))
    return {key: value for key, equals, value in pairs if equals}


def _environment(info: RunInfo, environments: Sequence[Mapping[str, Any]]) -> Mapping[str, object]:
    """Return the fingerprint of harness and machine; what differs by kernel is left out."""
    measured = next((env for env in environments if env), {})
    own = {key: value for key, value in measured.items() if key != "kernel"}
    return {**info.document["environment"], **own, "versions": info.document["versions"]}


def _kernels(
    plan: Plan, environments: Sequence[Mapping[str, Any]]
) -> Iterator[Mapping[str, object]]:
    records = [env.get("kernel") for env in environments]
    found = {str(kernel.get("label")): kernel for kernel in records if isinstance(kernel, Mapping)}
    for label in plan.kernels:
        unknown = {"label": label, "release": "", "version": "", "sha256": "", "remarks": []}
        yield {**unknown, **found.get(label, {}), "label": label}


def _in_order(plan: Plan, verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """Sort by gate as declared, then by kernel from old to new."""
    gates = [gate.id for gate in plan.gates]
    key = {kernel: place for place, kernel in enumerate(plan.kernels)}
    return tuple(sorted(verdicts, key=lambda v: (gates.index(v.gate), key[v.kernel])))
