"""The recorder to use: the first back end that works here, and why others do not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from hyperbox.errors import KernelFeatureMissing, MissingDependency, WorkloadError
from hyperbox.isolation.audit_recorder import AuditRecorder
from hyperbox.isolation.bpf_recorder import BpfRecorder
from hyperbox.isolation.notify_recorder import NotifyRecorder
from hyperbox.isolation.profile import Profile
from hyperbox.isolation.recorder import Recorder
from hyperbox.isolation.watching import LOG_DENIED
from hyperbox.linux.audit import AuditListener
from hyperbox.linux.cgroup import cgroup

__all__ = ["BACK_ENDS", "Chosen", "auditing_recorder", "chosen_recorder"]

BACK_ENDS = ("bpf", "audit", "notify")
"""Names of the back ends, the quickest first."""
_UNUSABLE = (KernelFeatureMissing, MissingDependency, WorkloadError)


@dataclass(frozen=True)
class Chosen:
    """A recorder, and a line for each back end that does not work here."""

    recorder: Recorder
    passed_over: tuple[str, ...] = ()


@contextlib.contextmanager
def chosen_recorder(
    group: str,
    directory: Path,
    default: Profile,
    *,
    back_ends: tuple[str, ...] = BACK_ENDS,
    log_denied: bool = False,
) -> Iterator[Chosen]:
    """Return a recorder for a container that is started in the block, under its `profile`.

    Parameters
    ----------
    group
        Name of the container's cgroup, without a slash; made in version 2 if a back end needs it.
    directory
        Of the container alone, for what a back end needs.
    back_ends
        Which to try, in this order.
    log_denied
        Whether the runtime can have denied calls logged.

    Raises
    ------
    KernelFeatureMissing
        If none works here; with the reason of each.
    """
    known: frozenset[str] = frozenset()
    with _first(group, directory, default, known, back_ends, log_denied=log_denied) as chosen:
        yield chosen


@contextlib.contextmanager
def auditing_recorder(
    directory: Path, profile: Profile, default: Profile, *, log_denied: bool = False
) -> Iterator[Chosen]:
    """Return a recorder of the calls that a profile denies and its default allows; they run.

    Parameters and errors are those of `chosen_recorder`. BPF is not among the back ends: it counts
    calls, but does not say which program made them.
    """
    known = profile.allowed()
    ends = BACK_ENDS[1:]
    with _first("", directory, default, known, ends, log_denied=log_denied) as chosen:
        yield chosen


@contextlib.contextmanager
def _first(
    group: str,
    directory: Path,
    default: Profile,
    known: frozenset[str],
    back_ends: tuple[str, ...],
    *,
    log_denied: bool,
) -> Iterator[Chosen]:
    logged = replace(default, flags=(LOG_DENIED,)) if log_denied else default
    made: Mapping[str, Callable[[], AbstractContextManager[Recorder]]] = {
        BpfRecorder.name: lambda: _bpf(group, logged),
        AuditRecorder.name: lambda: AuditRecorder(logged, known),
        NotifyRecorder.name: lambda: NotifyRecorder(directory, logged, known),
    }
    reasons: list[str] = []
    with contextlib.ExitStack() as stack:
        for name in back_ends:
            try:
                recorder = stack.enter_context(made[name]())
            except _UNUSABLE as error:
                reasons.append(f"{name}: {error.message}")
            else:
                yield Chosen(recorder, tuple(reasons))
                return
    raise KernelFeatureMissing(
        f"no recorder works here: {'; '.join(reasons)}", hint="run as root; see docs/seccomp.md"
    )


@contextlib.contextmanager
def _bpf(group: str, default: Profile) -> Iterator[BpfRecorder]:
    with contextlib.ExitStack() as stack:
        listener = None
        if default.flags:  # denied calls never reach the tracepoint
            with contextlib.suppress(KernelFeatureMissing):
                listener = stack.enter_context(AuditListener())
        directory = stack.enter_context(cgroup(group)).directory
        yield stack.enter_context(BpfRecorder(directory, default, listener))
