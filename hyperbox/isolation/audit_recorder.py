"""Recorder on the audit log: the container's filter logs every call, the kernel says which.

It needs no BPF. Each first and later call costs a record, so calls take two to four times as long.
Calls that the filter denies are seen too, if the runtime can ask for that (`LOG_DENIED`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from hyperbox.isolation.profile import FilterAction, Profile
from hyperbox.isolation.recorder import called, recorded
from hyperbox.isolation.recording import Recording
from hyperbox.isolation.watching import watched
from hyperbox.linux.audit import ALLOWED_AND_LOGGED, AuditListener

__all__ = ["AuditRecorder", "denials", "denied"]


class AuditRecorder:
    """Records what this thread starts under `profile`; see `hyperbox.isolation.recorder`.

    Parameters
    ----------
    default
        What the container may do at most.
    known
        Names that are not watched for; see `hyperbox.isolation.watching`.

    Raises
    ------
    KernelFeatureMissing
        On entering, if the kernel has no audit, or refuses it to this process.
    """

    name = "audit"

    def __init__(self, default: Profile, known: frozenset[str] = frozenset()) -> None:
        self.profile = watched(default, FilterAction.LOG, known)
        self._listener = AuditListener()

    def __enter__(self) -> AuditRecorder:
        self._listener.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.__exit__(kind, error, trace)

    def recording(self, ended: str) -> Recording:
        """Return what was seen; waits until every record of the container has been read."""
        lost = self._listener.finish()
        records = list(self._listener.records)
        ran = [one for one in records if one.action == ALLOWED_AND_LOGGED]
        return recorded(
            (called(one.architecture, one.number) for one in ran),
            denied=denied(self._listener),
            programs={one.program for one in ran},
            lost=lost,
            ended=ended,
            back_end=self.name,
        )

    def denials(self) -> Mapping[str, frozenset[str]]:
        """Return the programs of every call that was logged, by the call's name."""
        return denials(self._listener)


def denials(listener: AuditListener) -> Mapping[str, frozenset[str]]:
    """Return the programs of every call that was logged, by the call's name."""
    found: dict[str, set[str]] = {}
    for one in list(listener.records):
        found.setdefault(called(one.architecture, one.number)[1], set()).add(one.program)
    return {name: frozenset(programs) for name, programs in sorted(found.items())}


def denied(listener: AuditListener) -> frozenset[str]:
    """Return the names of calls that a filter refused and logged."""
    return frozenset(
        called(one.architecture, one.number)[1]
        for one in list(listener.records)
        if one.action != ALLOWED_AND_LOGGED
    )
