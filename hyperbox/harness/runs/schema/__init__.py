"""The published JSON Schema of a run directory, and the check against it."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

import jsonschema_rs
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from hyperbox.errors import HarnessError

__all__ = ["SCHEMA_VERSION", "check", "schema"]

SCHEMA_VERSION = 2
"""Raised when a reader of older run directories would misread a new one."""


@functools.cache
def schema(kind: str) -> dict[str, Any]:
    """Return the schema of ``run`` or ``record``."""
    text = resources.files(__name__).joinpath(f"{kind}.json").read_text(encoding="utf-8")
    parsed: dict[str, Any] = json.loads(text)
    return parsed


@functools.cache
def _quick(kind: str) -> jsonschema_rs.Draft202012Validator:
    """Return a compiled check: a hundred times faster, with worse messages."""
    return jsonschema_rs.Draft202012Validator(schema(kind))


def check(kind: str, value: object, where: str) -> None:
    """Check a value against the schema of its kind.

    Raises
    ------
    HarnessError
        With the place and the first fault; an unknown `schema_version` is named as such.
    """
    if isinstance(value, dict):
        version = value.get("schema_version")
        if isinstance(version, int) and not 1 <= version <= SCHEMA_VERSION:
            raise HarnessError(
                f"{where} has schema version {version}, this hyperbox knows 1 to {SCHEMA_VERSION}",
                hint="use a newer hyperbox" if version > SCHEMA_VERSION else "restore the file",
            )
    if _quick(kind).is_valid(value):
        return
    fault = best_match(Draft202012Validator(schema(kind)).iter_errors(value))
    path, message = ("top", "a number is NaN or infinite") if fault is None else _told(fault)
    raise HarnessError(f"{where} is not a valid {kind}.json: {path}: {message}")


def _told(fault: ValidationError) -> tuple[str, str]:
    return "/".join(str(part) for part in fault.absolute_path) or "top", fault.message[:200]
