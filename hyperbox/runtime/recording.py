"""A container that is run under a recorder of its system calls."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import IO

from hyperbox.isolation.profile import Profile
from hyperbox.isolation.recorders import BACK_ENDS, Chosen, auditing_recorder, chosen_recorder
from hyperbox.isolation.recording import Recording
from hyperbox.runtime.containers import Ended, RunningContainer

__all__ = ["Recorded", "audited_run", "recorded_run"]


@dataclass(frozen=True)
class Recorded:
    """How a container ended, and what it did.

    Parameters
    ----------
    denials
        The programs that tried each denied call, by its name, as far as that can be seen here.
    passed_over
        A line for each recorder that does not work here.
    """

    ended: Ended
    recording: Recording
    denials: Mapping[str, frozenset[str]]
    passed_over: Sequence[str]


def recorded_run(
    running: RunningContainer,
    default: Profile,
    back_ends: tuple[str, ...] = BACK_ENDS,
    *,
    stdin: int | IO[bytes] = 0,
    stdout: int | IO[bytes] = 1,
) -> Recorded:
    """Run a container under a default profile and return what it did.

    Raises
    ------
    KernelFeatureMissing
        If none of the recorders works here.
    """
    choice = chosen_recorder(
        running.cgroups_path.strip("/"),
        running.bundle,
        default,
        back_ends=back_ends,
        log_denied=running.runtime.logs_denied_calls(),
    )
    return _recorded(running, choice, stdin, stdout)


def audited_run(
    running: RunningContainer,
    profile: Profile,
    default: Profile,
    *,
    stdin: int | IO[bytes] = 0,
    stdout: int | IO[bytes] = 1,
) -> Recorded:
    """Run a container and return what a profile would have denied it, of what its default allows.

    Those calls run, and are the recording's; what the default denies stays denied.

    Raises
    ------
    KernelFeatureMissing
        If no recorder works here that knows a call's program.
    """
    log_denied = running.runtime.logs_denied_calls()
    choice = auditing_recorder(running.bundle, profile, default, log_denied=log_denied)
    return _recorded(running, choice, stdin, stdout)


def _recorded(
    running: RunningContainer,
    choice: AbstractContextManager[Chosen],
    stdin: int | IO[bytes],
    stdout: int | IO[bytes],
) -> Recorded:
    with choice as chosen:
        recorder = chosen.recorder
        running.confine(recorder.profile)
        ended = running.run(stdin=stdin, stdout=stdout)
        recording = recorder.recording(str(ended))
        denials = recorder.denials()
    facts = {"runtime": running.runtime.version(), "machine": platform.machine()}
    recording = replace(recording, environment={**recording.environment, **facts})
    return Recorded(ended, recording, denials, chosen.passed_over)
