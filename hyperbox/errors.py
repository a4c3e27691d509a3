"""Errors that users meet: one clear line each, a hint, and an exit code.

A failed gate is a value (:class:`hyperbox.harness.model.Verdict`), never one of
these. Tracebacks are for bugs: the command line prints every `HyperboxError` as
one line plus its hint.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

__all__ = [
    "BootTimeout",
    "CellTimeout",
    "ConfigError",
    "ExitCode",
    "GuestCrash",
    "HarnessError",
    "HyperboxError",
    "ImageError",
    "KernelComplaint",
    "KernelFeatureMissing",
    "MachineLost",
    "MissingDependency",
    "WorkloadError",
    "near",
]


class ExitCode(IntEnum):
    """Exit codes of the command line."""

    PASS = 0
    GATE_FAILED = 1
    INCONCLUSIVE = 2
    HARNESS_ERROR = 3
    BAD_USAGE = 64
    INTERRUPTED = 130


class HyperboxError(Exception):
    """Root of all expected errors.

    Parameters
    ----------
    message
        What went wrong and where; in one line, also where it quotes others who use more.
    hint
        What to do about it, in one line; may be empty.
    """

    exit_code = ExitCode.HARNESS_ERROR

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message = " ".join(message.splitlines())
        self.hint = hint
        super().__init__(self.message)


class ConfigError(HyperboxError):
    """The user's input is wrong: option, file, name or value."""

    exit_code = ExitCode.BAD_USAGE


class HarnessError(HyperboxError):
    """The harness or its surroundings failed; says nothing about a target.

    `console` is what a machine had printed by then, where one was involved and cannot be
    asked any more.

    Parameters
    ----------
    fingerprint
        Short name of what happened to a machine, to group by: a crash's is built from the
        top stack symbols. Empty where no machine was involved.
    """

    console: str = ""

    def __init__(self, message: str, *, hint: str = "", fingerprint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.fingerprint = fingerprint


class MissingDependency(HarnessError):
    """A program or package that the machine lacks."""


class BootTimeout(HarnessError):
    """A guest did not become ready in time."""


class CellTimeout(HarnessError):
    """A whole cell took longer than its limit, though no single command did."""


class MachineLost(HarnessError):
    """The machine or its agent went away without a crash report."""


class GuestCrash(MachineLost):
    """The guest's kernel crashed: panic, BUG, oops, lockup."""


class KernelComplaint(HarnessError):
    """A kernel that runs on said that something is wrong with it: WARN, taint, lockup."""


class ImageError(HyperboxError):
    """An image, a layer or a registry is not what it should be, or cannot be reached."""


class WorkloadError(HyperboxError):
    """A measured program failed on a healthy machine."""


class KernelFeatureMissing(HyperboxError):
    """The running kernel lacks a feature; the reason becomes a SKIP on record."""


def near(name: str, known: Iterable[str]) -> str:
    """Return a hint for a name that does not exist: near matches, else what there is."""
    import difflib  # noqa: PLC0415 - errors are rare, and what is measured in guests imports this

    names = sorted(known)
    matches = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if matches:
        return f"did you mean {' or '.join(matches)}?"
    return f"known: {', '.join(names)}" if names else ""
