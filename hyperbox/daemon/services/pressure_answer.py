"""What ``/metrics/memory/psi`` answers, as JSON values and as the schema of them. Pure.

Totals are microseconds of stall since boot, as the kernel has them at the moment of the
answer; averages percent of the last 10 s; times seconds of the wall clock (``time_ns``
CLOCK_MONOTONIC).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hyperbox.daemon.service import Schema, Status
from hyperbox.linux.pressure import Resource, StallKind
from hyperbox.memory.decisions import Action, StepStatus, TunerState
from hyperbox.memory.psi import PressureHistory, PressureSample

__all__ = ["SCHEMA", "Sampling", "answer", "unavailable"]

_NAMES = tuple(f"{kind}_{resource}" for resource in Resource for kind in StallKind)
_NUMBER = {"type": "number"}
_TOTALS = {
    f"{name}_us": {
        "type": "integer",
        "minimum": 0,
        "description": "Stall since boot in microseconds; absent where this kernel has none.",
    }
    for name in _NAMES
}
_REQUIRED = ["some_cpu_us", "some_memory_us", "full_memory_us"]
_BESIDE = ["avg10", "samples", "history", "sampling", "tuner"]
_BOXCAR: Schema = {
    "description": "Share of the last 10 s before the newest sample that was stall; null before "
    "the second sample.",
    "oneOf": [
        {"type": "null"},
        {
            "type": "object",
            "properties": {
                "percent": _NUMBER,
                "error": {**_NUMBER, "description": "The truth is within so many points."},
                "span_s": {**_NUMBER, "description": "Less than 10 while history is shorter."},
            },
            "required": ["percent", "error", "span_s"],
            "additionalProperties": False,
        },
    ],
}
_AVERAGES: Schema = {
    "type": "object",
    "description": "Averages over 10 s in percent, of each total.",
    "properties": {
        name: {
            "type": "object",
            "properties": {
                "kernel": {**_NUMBER, "description": "The kernel's avg10: exponential, 2 s steps."},
                "boxcar": _BOXCAR,
            },
            "required": ["kernel", "boxcar"],
            "additionalProperties": False,
        }
        for name in _NAMES
    },
    "additionalProperties": False,
}
_ROW: Schema = {
    "type": "object",
    "properties": {"time_unix_s": _NUMBER, "time_ns": {"type": "integer"}, **_TOTALS},
    "required": ["time_unix_s", "time_ns", *_REQUIRED],
    "additionalProperties": False,
}
_SAMPLING: Schema = {
    "type": "object",
    "description": "The sampler, and what it costs: CPU seconds of its thread, tuner included.",
    "properties": {
        "interval_s": _NUMBER,
        "keeps": {"type": "integer", "description": "Samples kept at most."},
        "taken": {"type": "integer", "description": "Samples taken since it started."},
        "running_s": _NUMBER,
        "cpu_s": _NUMBER,
    },
    "required": ["interval_s", "keeps", "taken", "running_s", "cpu_s"],
    "additionalProperties": False,
}


def _closed(properties: Mapping[str, Schema], description: str = "") -> Schema:
    """Return an object that has all these properties and no others."""
    described = {"description": description} if description else {}
    return {
        "type": "object",
        **described,
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


_TEXT: Schema = {"type": "string"}
_PERCENT: Schema = {**_NUMBER, "description": "Percent of the interval before the reading."}
_STATE: Schema = {"enum": [str(state) for state in TunerState]}
_DECISION = _closed(
    {
        "time_ns": {"type": "integer"},
        "state": _STATE,
        "action": {"enum": [str(action) for action in Action]},
        "step": {**_TEXT, "description": "What the action is about; empty for nothing."},
        "reason": _TEXT,
        "score": {**_NUMBER, "description": "What was judged by, in percent."},
        "memory_some": _PERCENT,
        "io_some": _PERCENT,
        "swap_ins": {**_NUMBER, "description": "Pages a second from swap that is not zram."},
        "changes": {
            "type": "array",
            "description": "What was really changed, put back or found, in words.",
            "items": _TEXT,
        },
    }
)
_STEP = _closed(
    {
        "name": _TEXT,
        "title": _TEXT,
        "status": {"enum": [str(status) for status in StepStatus]},
        "unavailable": {
            "type": ["string", "null"],
            "description": "Why it cannot be made; null if it can.",
        },
        "failures": {
            "type": "integer",
            "minimum": 0,
            "description": "Trials in a row that did not help.",
        },
    }
)
_REPORT: Mapping[str, Schema] = {
    "state": _STATE,
    "dry_run": {"type": "boolean", "description": "Whether it decides and changes nothing."},
    "score": {"type": ["number", "null"], "description": "What it judges by, in percent."},
    "reason": {"type": ["string", "null"], "description": "Of the last decision."},
    "steps": {"type": "array", "items": _STEP},
    "decisions": {
        "type": "array",
        "description": "The last that were more than nothing, oldest first.",
        "items": _DECISION,
    },
}
_ENDED: Mapping[str, Schema] = {**_REPORT, "reason": {**_TEXT, "description": "Why it ended."}}
_TUNER: Schema = {
    "description": "The tuner; all but its mode only where there is one.",
    "oneOf": [
        _closed({"mode": {"const": "off"}}, "No tuner is wanted."),
        _closed({"mode": {"enum": ["dry-run", "tune"]}, **_REPORT}, "It works."),
        _closed(
            {"mode": {"const": "unavailable"}, "reason": _TEXT, "hint": _TEXT},
            "This machine cannot be tuned as was wanted; the hint, which may be empty, says what "
            "to do about it.",
        ),
        _closed(
            {"mode": {"const": "ended"}, **_ENDED},
            "It could not go on, and put back what it could; the rest is as it was then.",
        ),
    ],
}
SCHEMA: Schema = {
    "oneOf": [
        {
            "type": "object",
            "properties": {
                "available": {"const": True},
                "time_unix_s": {**_NUMBER, "description": "When the totals were read."},
                **_TOTALS,
                "avg10": _AVERAGES,
                "samples": {"type": "integer", "description": "How many samples are kept now."},
                "history": {
                    "type": "array",
                    "description": "The last samples, oldest first.",
                    "items": _ROW,
                },
                "sampling": _SAMPLING,
                "tuner": _TUNER,
            },
            "required": ["available", "time_unix_s", *_REQUIRED, *_BESIDE],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "description": "This machine has no pressure to read, or it is not read now.",
            "properties": {
                "available": {"const": False},
                "reason": {"type": "string"},
                "hint": {"type": "string", "description": "What to do about it."},
            },
            "required": ["available", "reason"],
            "additionalProperties": False,
        },
    ],
}


@dataclass(frozen=True)
class Sampling:
    """How a sampler is doing; times are seconds, `cpu_s` of its thread."""

    interval_s: float
    taken: int = 0
    running_s: float = 0.0
    cpu_s: float = 0.0


def answer(
    now: PressureSample,
    snapshot: PressureHistory,
    sampling: Sampling,
    tuner: Mapping[str, object],
    rows: int,
) -> dict[str, object]:
    """Return the answer of a service that runs.

    Parameters
    ----------
    now
        What the kernel says while the request is answered.
    rows
        How many of the last samples are in it.
    """
    lines = now.lines()
    said: dict[str, object] = {"available": True, "time_unix_s": now.unix_s}
    said |= {f"{kind}_{resource}_us": line.total_us for (resource, kind), line in lines.items()}
    said["avg10"] = {
        f"{kind}_{resource}": {
            "kernel": line.avg10,
            "boxcar": _boxcar(snapshot, resource, kind),
        }
        for (resource, kind), line in lines.items()
    }
    said["samples"] = len(snapshot.samples)
    first = max(len(snapshot.samples) - rows, 0)
    said["history"] = PressureHistory(snapshot.samples[first:]).rows()
    said["sampling"] = {
        "interval_s": sampling.interval_s,
        "keeps": snapshot.history,
        "taken": sampling.taken,
        "running_s": round(sampling.running_s, 3),
        "cpu_s": round(sampling.cpu_s, 6),
    }
    return said | {"tuner": tuner}


def unavailable(status: Status) -> dict[str, object]:
    """Return the answer of a service that does not run."""
    reason = status.reason or f"pressure monitoring is {status.state}"
    said: dict[str, object] = {"available": False, "reason": reason}
    return said | ({"hint": status.hint} if status.hint else {})


def _boxcar(
    snapshot: PressureHistory, resource: Resource, kind: StallKind
) -> dict[str, float] | None:
    average = snapshot.boxcar(resource, kind)
    if average is None:
        return None
    return {
        "percent": round(average.percent, 3),
        "error": round(average.error, 3),
        "span_s": round(average.span_s, 3),
    }
