"""What recorders of a container's system calls have in common; see `recorders` for the choice."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Protocol

from hyperbox.isolation.classic_bpf import AUDIT_ARCH_I386, AUDIT_ARCH_X86_64
from hyperbox.isolation.profile import Profile
from hyperbox.isolation.recording import Recording
from hyperbox.linux.syscalls import Abi, name_of

__all__ = ["Recorder", "called", "recorded"]

_ABIS = {AUDIT_ARCH_X86_64: Abi.X86_64, AUDIT_ARCH_I386: Abi.I386}


class Recorder(Protocol):
    """Records from entering to leaving the block what a container does under its filter."""

    name: str

    @property
    def profile(self) -> Profile:
        """Return what the container must run under, so that its calls are seen."""

    def __enter__(self) -> Recorder: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def recording(self, ended: str) -> Recording:
        """Stop recording and return what was seen."""

    def denials(self) -> Mapping[str, frozenset[str]]:
        """Return the programs that tried each call that was watched for or denied, by its name."""


def called(architecture: int, number: int) -> tuple[Abi, str]:
    """Return the table and name of a call, as seccomp has it: by AUDIT_ARCH_* and number."""
    abi = _ABIS.get(architecture, Abi.X86_64)
    return abi, name_of(number, abi)


def recorded(
    calls: Iterable[tuple[Abi, str]],
    *,
    denied: Iterable[str] = (),
    programs: Iterable[str] = (),
    lost: int,
    ended: str,
    back_end: str,
) -> Recording:
    """Return the recording that seen calls amount to. Pure but for the kernel's release."""
    names: dict[Abi, set[str]] = {}
    for abi, name in calls:
        names.setdefault(abi, set()).add(name)
    return Recording(
        calls={abi: frozenset(found) for abi, found in sorted(names.items())},
        denied=frozenset(denied),
        # runc runs from a file without a name until it executes the command; it shows as "/".
        programs=frozenset(one for one in programs if one.startswith("/") and one != "/"),
        lost=lost,
        ended=ended,
        back_end=back_end,
        environment={"kernel": platform.release()},
    )
