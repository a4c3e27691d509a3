"""Suites as data: loads ``suites/*/suite.toml`` into :class:`hyperbox.harness.model.Suite`.

The file mirrors the dataclasses key by key. Every cross-reference is checked, unknown keys
are refused, and every error names the file and the entry.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperbox.errors import ConfigError, near
from hyperbox.foreign import read_toml
from hyperbox.harness.expansion import expanded
from hyperbox.harness.model import (
    LEAST_MEMORY_MIB,
    Arm,
    Experiment,
    Gate,
    MachineRequest,
    Metric,
    Rule,
    Scale,
    Suite,
)
from hyperbox.paths import project_directory

__all__ = ["load_suite", "load_suites", "parse_suite"]

_ID = re.compile(r"(?=.{1,80}\Z)[a-z0-9](?:[a-z0-9_.]|-(?!-))*")
_BETTER = ("lower", "higher", "neither")
_MISSING: Any = object()


def load_suites(directory: Path | None = None) -> tuple[Suite, ...]:
    """Load every ``*/suite.toml`` below `directory` (default: the project's suites), by id.

    Raises
    ------
    ConfigError
        If there is none, if one is broken, if two share the id of a suite, an experiment or a
        gate, or if a gate's fallback does not exist or leads back to the gate.
    """
    top = project_directory() / "suites" if directory is None else directory
    files = sorted(top.glob("*/suite.toml"))
    if not files:
        raise ConfigError(f"no suite.toml below {top}", hint="write one or install hyperbox again")
    suites = [load_suite(path) for path in files]
    _unique("suite", [(suite.id, path) for suite, path in zip(suites, files, strict=True)])
    for kind in ("experiments", "gates"):
        owners = [
            (item.id, path)
            for suite, path in zip(suites, files, strict=True)
            for item in getattr(suite, kind)
        ]
        _unique(kind[:-1], owners)
    declared = zip(files, suites, strict=True)
    _check_fallbacks([(gate, path) for path, suite in declared for gate in suite.gates])
    return tuple(sorted(suites, key=lambda suite: suite.id))


def load_suite(path: Path) -> Suite:
    """Load one ``suite.toml``; ConfigError names the file, the entry and what to do."""
    return parse_suite(read_toml(path), path)


def parse_suite(data: Mapping[str, Any], path: Path) -> Suite:
    """Build the suite that parsed TOML declares; `path` is for the messages."""
    top = _Table(expanded(data, f"{path}"), f"{path}")
    suite_id = top.identifier("id")
    title = top.text("title")
    experiments = tuple(
        _experiment(table, suite_id) for table in top.tables("experiment", required=True)
    )
    gates = tuple(_gate(table, experiments) for table in top.tables("gate", required=False))
    top.finish()
    _unique("experiment", [(item.id, path) for item in experiments])
    _unique("gate", [(item.id, path) for item in gates])
    return Suite(suite_id, title, experiments, gates)


@dataclass
class _Table:
    """One table being read: hands out typed values and knows which keys were asked for."""

    data: Mapping[str, Any]
    where: str

    def __post_init__(self) -> None:
        self._asked: set[str] = set()

    def fail(self, message: str, hint: str = "") -> ConfigError:
        return ConfigError(f"{self.where}: {message}", hint=hint)

    def value(self, key: str, default: Any = _MISSING) -> Any:
        self._asked.add(key)
        if key in self.data:
            return self.data[key]
        if default is _MISSING:
            raise self.fail(f"missing key {key!r}", f"add {key} = ...")
        return default

    def text(self, key: str, default: Any = _MISSING) -> str:
        value = self.value(key, default)
        if not isinstance(value, str) or not value.strip():
            raise self.fail(f"{key} must be text, not {value!r}")
        return value

    def line(self, key: str, default: str) -> str:
        value = self.value(key, default)
        if not isinstance(value, str) or not value.isprintable():
            raise self.fail(f"{key} must be one line of text, not {value!r}")
        return value.strip()

    def identifier(self, key: str) -> str:
        value = self.text(key)
        if not _ID.fullmatch(value):
            hint = "use at most 80 lower-case letters, digits, '_', '.' and single '-'"
            raise self.fail(f"{key} {value!r} is not an id", hint)
        return value

    def reference(self, key: str, known: Iterable[str], default: Any = _MISSING) -> str:
        value = self.text(key, default)
        names = tuple(known)
        if value not in names:
            raise self.fail(f"{key} {value!r} does not exist", near(value, names))
        return value

    def words(self, key: str, default: Any = _MISSING) -> tuple[str, ...]:
        value = self.value(key, default)
        if not isinstance(value, (list, tuple)) or not all(isinstance(w, str) for w in value):
            raise self.fail(f"{key} must be a list of words, not {value!r}")
        return tuple(value)

    def number(self, key: str, default: Any = _MISSING, *, at_least: float = -math.inf) -> float:
        value = self.value(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.fail(f"{key} must be a number, not {value!r}")
        if not math.isfinite(value) or value < at_least:
            raise self.fail(f"{key} must be a number from {at_least:g} up, not {value!r}")
        return float(value)

    def count(self, key: str, default: int) -> int:
        value = self.value(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.fail(f"{key} must be a whole number from 1 up, not {value!r}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.value(key, default)
        if not isinstance(value, bool):
            raise self.fail(f"{key} must be true or false, not {value!r}")
        return value

    def table(self, key: str) -> _Table:
        value = self.value(key, {})
        if not isinstance(value, dict):
            raise self.fail(f"{key} must be a table", f"write {key} = {{ ... }}")
        return _Table(value, f"{self.where}: {key}")

    def tables(self, key: str, *, required: bool) -> Iterator[_Table]:
        value = self.value(key, _MISSING if required else ())
        if not isinstance(value, (list, tuple)) or not all(isinstance(t, dict) for t in value):
            raise self.fail(f"{key} must be a list of tables", f"write [[{key}]]")
        if required and not value:
            raise self.fail(f"{key} is empty")
        for place, item in enumerate(value, start=1):
            name = item.get("id")
            label = f"{key} {name!r}" if isinstance(name, str) else f"{key} number {place}"
            yield _Table(item, f"{self.where}: {label}")

    def finish(self) -> None:
        """Refuse keys that nobody asked for."""
        for key in self.data:
            if key not in self._asked:
                raise self.fail(f"unknown key {key!r}", near(key, self._asked))


def _experiment(table: _Table, suite: str) -> Experiment:
    experiment = Experiment(
        id=table.identifier("id"),
        suite=suite,
        title=table.text("title"),
        arms=tuple(_arm(item) for item in table.tables("arms", required=True)),
        metrics=tuple(_metric(item) for item in table.tables("metrics", required=True)),
        program=table.words("program"),
        prepare=table.words("prepare", ()),
        blocks=table.count("blocks", Experiment.blocks),
        timeout_s=table.number("timeout_s", Experiment.timeout_s, at_least=0.1),
        changes_machine=table.flag("changes_machine", Experiment.changes_machine),
        machine=_machine(table.table("machine")),
        default=table.flag("default", Experiment.default),
        limit_s=table.number("limit_s", at_least=0.1) if "limit_s" in table.data else None,
        uses=table.words("uses", ()),
        layers=table.words("layers", ()),
    )
    table.finish()
    _no_doubles(table, "arm", [arm.id for arm in experiment.arms])
    _no_doubles(table, "metric", [metric.id for metric in experiment.metrics])
    if experiment.machine.processors > 1 and experiment.default:
        raise table.fail(
            f"{experiment.machine.processors} processors cannot be had in the exact lane",
            "add default = false: a run that names nothing must work in every lane",
        )
    if not experiment.program or not experiment.program[0]:
        raise table.fail("program is empty")
    if len(experiment.arms) > 1 and not any("{arm}" in word for word in experiment.program):
        raise table.fail("program does not use {arm}", "pass it, or the arms are all the same")
    return experiment


def _machine(table: _Table) -> MachineRequest:
    machine = MachineRequest(
        memory_mib=table.count("memory_mib", MachineRequest.memory_mib),
        processors=table.count("processors", MachineRequest.processors),
        commandline=table.line("commandline", MachineRequest.commandline),
        mitigations=table.flag("mitigations", MachineRequest.mitigations),
        without_modules=table.words("without_modules", MachineRequest.without_modules),
        modules=table.line("modules", MachineRequest.modules),
    )
    table.finish()
    if machine.memory_mib < LEAST_MEMORY_MIB:
        raise table.fail(f"memory_mib must be {LEAST_MEMORY_MIB} or more: no guest boots with less")
    return machine


def _arm(table: _Table) -> Arm:
    arm = Arm(table.identifier("id"), table.text("title"))
    table.finish()
    return arm


def _metric(table: _Table) -> Metric:
    better = table.text("better", Metric.better)
    metric = Metric(
        table.identifier("id"),
        table.text("title"),
        table.text("unit"),
        better,
        least=table.number("least", Metric.least),
        most=table.number("most") if "most" in table.data else None,
    )
    table.finish()
    if metric.most is not None and metric.least is not None and metric.most <= metric.least:
        raise table.fail(f"most must lie above least, which is {metric.least:g}")
    if better not in _BETTER:
        raise table.fail(f"better {better!r} does not exist", near(better, _BETTER))
    return metric


def _gate(table: _Table, experiments: Sequence[Experiment]) -> Gate:
    by_id = {experiment.id: experiment for experiment in experiments}
    experiment = by_id[table.reference("experiment", by_id)]
    arms = [arm.id for arm in experiment.arms]
    has_baseline = table.value("baseline", None) is not None
    has_band = table.value("band_upper", None) is not None
    gate = Gate(
        id=table.identifier("id"),
        title=table.text("title"),
        target=table.text("target"),
        experiment=experiment.id,
        metric=table.reference("metric", [metric.id for metric in experiment.metrics]),
        rule=Rule(table.reference("rule", [rule.value for rule in Rule])),
        margin=table.number("margin"),
        arm=table.reference("arm", arms),
        baseline=table.reference("baseline", arms) if has_baseline else None,
        band_upper=table.number("band_upper") if has_band else None,
        scale=Scale(table.reference("scale", [scale.value for scale in Scale], Gate.scale)),
        fallback=table.identifier("fallback") if "fallback" in table.data else None,
    )
    table.finish()
    _check_gate(table, gate, experiment)
    return gate


def _check_gate(table: _Table, gate: Gate, experiment: Experiment) -> None:
    """Refuse combinations that no rule can decide."""
    if not gate.is_paired:
        if gate.scale is not Scale.RATIO:
            raise table.fail(f"rule {gate.rule} judges one arm: scale has no meaning")
        if gate.baseline is not None:
            raise table.fail(f"rule {gate.rule} judges one arm: baseline has no meaning")
        if gate.band_upper is not None:
            raise table.fail(f"rule {gate.rule} has no band: remove band_upper")
        return
    if gate.baseline is None:
        raise table.fail(f"rule {gate.rule} needs a baseline", "add baseline = <arm id>")
    if gate.baseline == gate.arm:
        raise table.fail(f"arm and baseline are both {gate.arm!r}")
    _check_direction(table, gate, experiment.metric(gate.metric).better)
    _check_margins(table, gate)


def _check_direction(table: _Table, gate: Gate, better: str) -> None:
    if better == "neither" and gate.rule is not Rule.WITHIN:
        raise table.fail(f"metric {gate.metric!r} has no better side: no ratio rule can use it")
    if gate.rule is Rule.REDUCES_AT_LEAST and better != "lower":
        raise table.fail(f"metric {gate.metric!r} is better {better}: a reduction is not a gain")


def _check_margins(table: _Table, gate: Gate) -> None:
    if gate.is_ratio and not 0 <= gate.margin < 1:
        raise table.fail(f"margin must be a fraction from 0 to below 1, not {gate.margin:g}")
    if gate.margin < 0:
        raise table.fail(f"margin must be 0 or more, not {gate.margin:g}")
    if gate.band_upper is None:
        return
    if gate.rule is not Rule.REDUCES_AT_LEAST:
        raise table.fail(f"rule {gate.rule} has no band: remove band_upper")
    if gate.is_ratio and not gate.margin < gate.band_upper < 1:
        raise table.fail("band_upper must lie between margin and 1")
    if gate.band_upper <= gate.margin:
        raise table.fail("band_upper must lie above margin")


def _check_fallbacks(owners: Sequence[tuple[Gate, Path]]) -> None:
    """Refuse fallbacks that do not exist, and circles; a fallback may be of another suite."""
    next_of = {gate.id: gate.fallback for gate, _ in owners}
    for gate, path in owners:
        passed, name = [gate.id], gate.fallback
        while name is not None:
            if name not in next_of:
                hint = near(name, next_of)
                message = f"{path}: gate {passed[-1]!r}: fallback {name!r} does not exist"
                raise ConfigError(message, hint=hint)
            passed.append(name)
            if name in passed[:-1]:
                raise ConfigError(f"{path}: fallbacks in a circle: {' -> '.join(passed)}")
            name = next_of[name]


def _no_doubles(table: _Table, kind: str, ids: Sequence[str]) -> None:
    for item in ids:
        if ids.count(item) > 1:
            raise table.fail(f"{kind} {item!r} is declared twice")


def _unique(kind: str, owners: Sequence[tuple[str, Path]]) -> None:
    seen: dict[str, Path] = {}
    for item, path in owners:
        if item in seen:
            where = f" and in {seen[item]}" if seen[item] != path else ""
            raise ConfigError(f"{path}: {kind} {item!r} is declared twice{where}")
        seen[item] = path
