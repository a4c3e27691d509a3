"""What one run of a container did, as a recorder saw it: the input of `seccomp_gen.generate`.

Pure: values and their JSON form.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hyperbox.errors import ConfigError
from hyperbox.linux.syscalls import Abi

__all__ = ["Recording", "parse_recording"]

_FORMAT = 1


@dataclass(frozen=True)
class Recording:
    """System calls by name, split by ABI, and what is needed to judge how complete they are.

    Parameters
    ----------
    calls
        What ran under the container's filter.
    start_calls
        What its runtime called before the filter was loaded. No profile needs them.
    denied
        What the filter refused; seen by another path than the calls that ran.
    programs
        Paths of the programs executed, as the container sees them.
    lost
        Observations that the recorder had to drop. A profile from a run that lost any says so.
    ended
        How the run ended: ``exit 0``, ``signal 9``, or ``recording stopped``.
    back_end
        Which recorder saw it.
    """

    calls: Mapping[Abi, frozenset[str]]
    start_calls: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()
    programs: frozenset[str] = frozenset()
    lost: int = 0
    ended: str = ""
    back_end: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Facts of the machine: kernel, runtime, libseccomp, by name."""

    @property
    def names(self) -> frozenset[str]:
        """Return the names of all calls that ran under the filter."""
        return frozenset(name for names in self.calls.values() for name in names)

    def encoded(self) -> bytes:
        """Return it as JSON: the same bytes for the same recording."""
        document = {
            "format": _FORMAT,
            "calls": {str(abi): sorted(names) for abi, names in self.calls.items()},
            "start_calls": sorted(self.start_calls),
            "denied": sorted(self.denied),
            "programs": sorted(self.programs),
            "lost": self.lost,
            "ended": self.ended,
            "back_end": self.back_end,
            "environment": dict(self.environment),
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def parse_recording(document: object, source: str) -> Recording:
    """Return the recording in a parsed JSON document.

    Raises
    ------
    ConfigError
        If it is not a recording.
    """
    if not isinstance(document, Mapping) or document.get("format") != _FORMAT:
        raise ConfigError(f"{source}: not a recording of this version of hyperbox")
    calls = document.get("calls")
    if not isinstance(calls, Mapping) or not set(calls) <= {str(abi) for abi in Abi}:
        raise ConfigError(f"{source}: calls: an object with x86_64 or i386 is expected")
    lost = document.get("lost")
    if isinstance(lost, bool) or not isinstance(lost, int) or lost < 0:
        raise ConfigError(f"{source}: lost: a count is expected")
    environment = document.get("environment")
    if not isinstance(environment, Mapping):
        raise ConfigError(f"{source}: environment: an object is expected")
    return Recording(
        calls={Abi(abi): _names(names, f"{source}: calls.{abi}") for abi, names in calls.items()},
        start_calls=_names(document.get("start_calls"), f"{source}: start_calls"),
        denied=_names(document.get("denied"), f"{source}: denied"),
        programs=_names(document.get("programs"), f"{source}: programs"),
        lost=lost,
        ended=_text(document.get("ended"), f"{source}: ended"),
        back_end=_text(document.get("back_end"), f"{source}: back_end"),
        environment={str(key): str(value) for key, value in environment.items()},
    )


def _names(value: Any, source: str) -> frozenset[str]:
    if not isinstance(value, list):
        raise ConfigError(f"{source}: a list is expected")
    items: Iterable[Any] = value
    return frozenset(_text(item, source) for item in items)


def _text(value: object, source: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{source}: a text is expected")
    return value
