"""What a suite's file abbreviates, written out: metric sets, and experiments that vary.

Both are repetition only. `expanded` turns tables into tables, so nothing after it knows of
either: a variant is an experiment like any other, with an id of its own.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hyperbox.errors import ConfigError, near

__all__ = ["expanded"]

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_WORD = re.compile(r"[a-z0-9](?:[a-z0-9_.]|-(?!-))*")
_PLACE = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_RESERVED = "arm"  # the engine replaces it, for each measurement

Table = Mapping[str, Any]


@dataclass(frozen=True)
class _Variant:
    """One combination of what an experiment varies; `id` is the experiment's."""

    id: str
    values: Mapping[str, Any]

    def suffix(self, without: Sequence[str] = ()) -> str:
        """Return what distinguishes it: ``.debian.rtt_ms_50`` (texts alone, numbers named)."""
        parts = (
            value if isinstance(value, str) else f"{name}_{value}"
            for name, value in self.values.items()
            if name not in without
        )
        return "".join(f".{part}" for part in parts)


def expanded(data: Table, where: str) -> dict[str, Any]:
    """Return the tables of a suite without ``metric_set``, ``vary`` and ``variant``.

    ``metrics = [{ set = "load" }, ...]`` has the metrics of ``[[metric_set]]`` "load" in that
    place. ``vary = { image = ["a", "b"], rtt_ms = [1, 50] }`` makes an experiment four, with
    ``{image}`` and ``{rtt_ms}`` replaced in all its texts. A gate on it becomes four gates, or
    as many as its ``variant = { image = "a" }`` leaves.

    What is not a list or table is left for `hyperbox.harness.declarations` to refuse.

    Raises
    ------
    ConfigError
        If a set, a name or a value does not exist, or if none uses it.
    """
    result = {key: value for key, value in data.items() if key != "metric_set"}
    if not isinstance(data.get("experiment"), list):
        return result
    sets = _metric_sets(data.get("metric_set", []), where)
    used: set[str] = set()
    experiments: list[Any] = []
    variants: dict[str, list[_Variant]] = {}
    for one in data["experiment"]:
        place = f"{where}: experiment {one.get('id')!r}" if isinstance(one, dict) else where
        table = _with_sets(one, sets, used, place)
        if isinstance(table, dict) and "vary" in table:
            variants[str(table.get("id"))] = _variants(table, place)
            experiments += _varied(table, variants[str(table.get("id"))], place)
        else:
            experiments.append(table)
    for name in sets:
        if name not in used:
            raise ConfigError(f"{where}: metric_set {name!r} is used by no experiment")
    result["experiment"] = experiments
    if isinstance(data.get("gate"), list):
        result["gate"] = [new for one in data["gate"] for new in _gates(one, variants, where)]
    return result


def _metric_sets(tables: Any, where: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    entries: list[Any] = tables if isinstance(tables, list) else [None]
    for table in entries:
        whole = isinstance(table, dict) and table.keys() == {"id", "metrics"}
        if not whole or not isinstance(table["metrics"], list) or not table["metrics"]:
            hint = "write [[metric_set]] with id and a list of metrics, and nothing else"
            raise ConfigError(f"{where}: metric_set is not one", hint=hint)
        if table["id"] in found:
            raise ConfigError(f"{where}: metric_set {table['id']!r} is declared twice")
        found[str(table["id"])] = table["metrics"]
    return found


def _with_sets(table: Any, sets: Mapping[str, list[Any]], used: set[str], where: str) -> Any:
    if not isinstance(table, dict) or not isinstance(table.get("metrics"), list):
        return table
    metrics: list[Any] = []
    for metric in table["metrics"]:
        if not isinstance(metric, dict) or "set" not in metric:
            metrics.append(metric)
            continue
        name = metric["set"]
        if len(metric) > 1 or not isinstance(name, str) or name not in sets:
            hint = near(str(name), sets) if len(metric) == 1 else "write { set = ... } alone"
            raise ConfigError(f"{where}: no metric_set is called {name!r}", hint=hint)
        used.add(name)
        metrics += sets[name]
    return {**table, "metrics": metrics}


def _variants(table: Table, where: str) -> list[_Variant]:
    vary = table["vary"]
    if not isinstance(vary, dict) or not vary:
        raise ConfigError(f"{where}: vary is not a table of lists", hint='vary = { name = ["a"] }')
    for name, values in vary.items():
        if not _NAME.fullmatch(name) or name == _RESERVED:
            raise ConfigError(f"{where}: vary {name!r} is not a name of something that varies")
        if not isinstance(values, list) or not values or not all(map(_is_value, values)):
            hint = "texts of lower-case letters, digits, '_', '.' and single '-', or numbers"
            raise ConfigError(f"{where}: vary {name} is not a list of values", hint=hint)
        if len({str(value) for value in values}) < len(values):
            raise ConfigError(f"{where}: vary {name} has a value twice")
    found = []
    for values in itertools.product(*vary.values()):
        one = _Variant("", dict(zip(vary, values, strict=True)))
        found.append(_Variant(f"{table.get('id')}{one.suffix()}", one.values))
    return found


def _is_value(value: Any) -> bool:
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    return isinstance(value, int | float) and not isinstance(value, bool)


def _varied(table: Table, variants: Sequence[_Variant], where: str) -> Iterator[Table]:
    rest = {key: value for key, value in table.items() if key != "vary"}
    known = (*variants[0].values, _RESERVED)
    named = set(_places({key: value for key, value in rest.items() if key != "title"}))
    for name in sorted(named | set(_places(rest))):
        if name not in known:
            raise ConfigError(f"{where}: {{{name}}} is nothing that varies", hint=near(name, known))
    for name in variants[0].values:
        if name not in named:
            raise ConfigError(f"{where}: vary {name} changes nothing", hint=f"use {{{name}}}")
    for variant in variants:
        new = _replaced(rest, variant.values)
        if isinstance(rest.get("title"), str) and not set(_places(rest["title"])) - {_RESERVED}:
            new["title"] += "".join(f", {name} {value}" for name, value in variant.values.items())
        yield {**new, "id": variant.id}


def _gates(table: Any, variants: Mapping[str, Sequence[_Variant]], where: str) -> Iterator[Any]:
    """Return a gate for each variant that it names; itself if its experiment does not vary."""
    if not isinstance(table, dict):
        yield table
        return
    place, experiment = f"{where}: gate {table.get('id')!r}", table.get("experiment")
    rest = {key: value for key, value in table.items() if key != "variant"}
    if not isinstance(experiment, str) or experiment not in variants:
        if "variant" in table:
            raise ConfigError(f"{place}: experiment {experiment!r} does not vary")
        every = itertools.chain(*variants.values())
        one = next((variant for variant in every if variant.id == experiment), None)
        yield _replaced(rest, one.values) if one else rest
        return
    wanted = _wanted(table.get("variant", {}), variants[experiment], place)
    fixed = [name for name, values in wanted.items() if len(values) == 1]
    for variant in variants[experiment]:
        if all(variant.values[name] in values for name, values in wanted.items()):
            new = _replaced(rest, variant.values)
            new_id = f"{table.get('id')}{variant.suffix(without=fixed)}"
            yield {**new, "id": new_id, "experiment": variant.id}


def _wanted(chosen: Any, variants: Sequence[_Variant], where: str) -> dict[str, list[Any]]:
    if not isinstance(chosen, dict):
        raise ConfigError(f"{where}: variant is not a table", hint='variant = { name = "a" }')
    wanted = {}
    for name, value in chosen.items():
        if name not in variants[0].values:
            hint = near(name, variants[0].values)
            raise ConfigError(f"{where}: variant names {name!r}, which does not vary", hint=hint)
        wanted[name] = value if isinstance(value, list) else [value]
        known = list(dict.fromkeys(variant.values[name] for variant in variants))
        for item in wanted[name]:
            if item not in known:
                hint = near(str(item), map(str, known))
                raise ConfigError(f"{where}: no variant has {name} = {item!r}", hint=hint)
    return wanted


def _places(value: Any) -> Iterator[str]:
    """Return the names in braces in all texts of a value."""
    if isinstance(value, str):
        yield from _PLACE.findall(value)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _places(item)
    elif isinstance(value, list):
        for item in value:
            yield from _places(item)


def _replaced(value: Any, values: Mapping[str, Any]) -> Any:
    """Return it with the values in place of their names, in all its texts."""
    if isinstance(value, str):
        return _PLACE.sub(lambda found: str(values.get(found[1], found[0])), value)
    if isinstance(value, dict):
        return {key: _replaced(item, values) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, values) for item in value]
    return value
