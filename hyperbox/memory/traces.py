"""Recorded readings, one JSON object a line, and replaying them through the policy. Pure.

A trace holds what `hyperbox.memory.readings.Reading` holds; ``hyperbox psi record`` makes it.
Replaying shows what the policy would have decided. It cannot show what its steps would have
done to the pressure: a trial is judged by what the trace goes on to say.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields

from hyperbox.errors import ConfigError
from hyperbox.foreign import parse_json
from hyperbox.memory.decisions import Decision, Rules
from hyperbox.memory.policy import Policy, decide
from hyperbox.memory.readings import GroupCounters, Reading

__all__ = ["as_line", "parse_trace", "replay"]

_NUMBERS = tuple(one.name for one in fields(Reading) if one.name not in ("groups", "swaps"))
_REQUIRED = ("time_ns", "memory_some_us", "memory_full_us", "io_some_us")


def as_line(reading: Reading) -> str:
    """Return a reading as one line of a trace."""
    value = asdict(reading) | {"swaps": sorted(reading.swaps)}
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def parse_trace(lines: Iterable[str], name: str = "trace") -> Iterator[Reading]:
    """Return the readings of a trace; empty lines are passed over.

    Raises
    ------
    ConfigError
        With name and number of a line that is not a reading.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield _reading(parse_json(line))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            said = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise ConfigError(
                f"{name}, line {number}: not a reading: {said}",
                hint="hyperbox psi record makes traces",
            ) from None


def replay(
    readings: Iterable[Reading],
    rules: Rules,
    steps: Sequence[str],
    preparations: Sequence[str] = (),
    reliefs: Sequence[str] = (),
) -> Iterator[Decision]:
    """Return the decision at each reading, as if every step could be made."""
    policy = Policy.of(steps, preparations, reliefs)
    for reading in readings:
        policy, decision = decide(policy, reading, rules)
        yield decision


def _reading(value: dict[str, object]) -> Reading:
    for name in _REQUIRED:
        value[name]
    numbers = {name: _whole(value[name], name) for name in _NUMBERS if name in value}
    groups = value.get("groups", {})
    swaps = value.get("swaps", [])
    if not isinstance(groups, dict) or not isinstance(swaps, list):
        raise TypeError("groups is an object, swaps a list")
    found = {str(name): GroupCounters(**_counters(one)) for name, one in groups.items()}
    return Reading(**numbers, groups=found, swaps=frozenset(map(str, swaps)))


def _counters(value: dict[str, object]) -> dict[str, int]:
    return {name: _whole(one, name) for name, one in value.items()}


def _whole(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}, not a whole number")
    return value
