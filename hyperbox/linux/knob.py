"""Kernel settings that are one small file each: procfs, sysfs, configfs, cgroupfs.

Such files are written in place by a single write(2): the kernel takes the value or
refuses it, there is nothing to make atomic. `changed` and `KnobChange` go through the
journal; `write_knob` does not and is for what goes away with its owner, such as the files
of a cgroup of one's own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from hyperbox.errors import HarnessError, KernelFeatureMissing, WorkloadError
from hyperbox.journal import ChangeKind, ChangeRecord, Sharing, UndoOutcome, begin
from hyperbox.linux.refusal import refusal
from hyperbox.records import Change

__all__ = [
    "KNOB",
    "KnobChange",
    "KnobTaken",
    "changed",
    "read_knob",
    "same_setting",
    "setting",
    "sysctl",
    "write_knob",
]

_MISSING = (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP)
_CHOSEN = re.compile(r"\[([^\]\s]+)\]")
_TRUTH = {"1": "Y", "y": "Y", "Y": "Y", "0": "N", "n": "N", "N": "N"}


class KnobTaken(WorkloadError):
    """Somebody else gave the setting another value meanwhile: it is theirs now."""


def sysctl(name: str) -> Path:
    """Return the file of a sysctl, ``vm.swappiness`` -> ``/proc/sys/vm/swappiness``."""
    return Path("/proc/sys").joinpath(*name.split("."))


def read_knob(path: Path) -> str:
    """Return a setting's text without surrounding white space.

    Raises
    ------
    KernelFeatureMissing
        If this kernel has no such setting.
    WorkloadError
        If it may not be read.
    """
    try:
        return path.read_text().strip()
    except OSError as error:
        raise refusal(f"cannot read {path}", error, missing=_MISSING) from error


def write_knob(path: Path, value: str | int) -> None:
    """Set a setting.

    Raises
    ------
    KernelFeatureMissing
        If this kernel has no such setting.
    WorkloadError
        If the kernel refuses the value or the caller.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(handle, str(value).encode() or b"\n")  # of no bytes nothing would be heard
        finally:
            os.close(handle)
    except OSError as error:
        raise refusal(f"cannot write {value!r} to {path}", error, missing=_MISSING) from error


def setting(text: str) -> str:
    """Return what has to be written to get a knob that reads as `text`.

    A choice such as ``always [madvise] never`` is written as the chosen word.
    """
    chosen = _CHOSEN.findall(text)
    return chosen[0] if len(chosen) == 1 and len(text.split()) > 1 else text


def same_setting(written: str, read: str) -> bool:
    """Whether a knob that reads `read` may hold what was written to it.

    Kernels show truths as Y and N, choices in brackets, columns with tabs, and round
    sizes down to pages.
    """
    one, two = written.split(), setting(read).split()
    if one == two:
        return True
    if len(one) != 1 or len(two) != 1:
        return False
    if one[0] in _TRUTH and _TRUTH[one[0]] == _TRUTH.get(two[0]):
        return True
    page = os.sysconf("SC_PAGE_SIZE")
    sizes = one[0].isdecimal() and two[0].isdecimal() and int(two[0]) > 0
    return sizes and int(one[0]) // page * page == int(two[0])


class KnobChange:
    """A setting in our hands, journalled, from the first `apply` to `restore`.

    Parameters
    ----------
    path
        The setting's file.

    Raises
    ------
    KernelFeatureMissing, WorkloadError
        If it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.original = read_knob(path)
        """What it read before the first `apply`, the value that `restore` brings back."""
        self._record: ChangeRecord | None = None

    def __enter__(self) -> KnobChange:
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()

    @property
    def ours(self) -> str | None:
        """What it read after our last `apply`; None if nothing is applied."""
        return self._record.change.text("ours") if self._record else None

    def held(self) -> bool:
        """Whether it is ours and still reads as we left it; False too if it is gone."""
        try:
            return self._record is not None and read_knob(self.path) == self.ours
        except KernelFeatureMissing:
            return False

    def apply(self, value: str | int) -> str:
        """Set it, on record before; return what it reads then.

        Raises
        ------
        KnobTaken
            If it no longer holds what we last gave it: nothing is written any more.
        HarnessError
            If the journal cannot be written: then nothing is changed.
        WorkloadError
            If the kernel refuses, or another process is changing it.
        KernelFeatureMissing
            If it is gone.
        """
        now, intended = read_knob(self.path), str(value)
        first = self._record is None
        if self._record is None:
            self.original = now
            facts = {"original": now, "ours": now, "intended": intended}
            self._record = begin(KNOB, self.path, **facts)
        elif now != self.ours:
            raise KnobTaken(f"{self.path} holds {now!r}, not our {self.ours!r}: left alone")
        else:
            self._record.note(intended=intended)
        try:
            write_knob(self.path, value)
            ours = read_knob(self.path)
        except (WorkloadError, KernelFeatureMissing):
            if first:
                self.restore()
            raise
        if ours != self.ours:
            with contextlib.suppress(HarnessError):  # a repair goes by what was intended then
                self._record.note(ours=ours)
        return ours

    def restore(self) -> UndoOutcome:
        """Bring the original back where it still holds ours; `apply` may follow again.

        Raises
        ------
        WorkloadError
            If the kernel refuses; then it stays on record.
        """
        if self._record is None:
            return UndoOutcome.NOTHING
        outcome = self._record.undo()
        self._record = None
        return outcome


@contextlib.contextmanager
def changed(path: Path, value: str | int) -> Iterator[str]:
    """Set a setting for the block; yields the original, which is put back after.

    A value that somebody else has written meanwhile is left alone. Errors are those of
    `KnobChange.apply`.
    """
    with KnobChange(path) as knob:
        knob.apply(value)
        yield knob.original


def _look(change: Change) -> tuple[UndoOutcome, str]:
    """Say what is to be done, and what the knob reads."""
    try:
        now = read_knob(Path(change.subject))
    except KernelFeatureMissing:
        return UndoOutcome.NOTHING, ""  # it went away, and its value with it
    if now == change.text("original"):
        return UndoOutcome.NOTHING, now
    if now != change.text("ours") and not same_setting(change.text("intended"), now):
        return UndoOutcome.FOREIGN, now
    return UndoOutcome.UNDONE, now


def _undo(change: Change) -> UndoOutcome:
    outcome, _ = _look(change)
    if outcome is UndoOutcome.UNDONE:
        write_knob(Path(change.subject), setting(change.text("original")))
    return outcome


def _describe(change: Change) -> str:
    outcome, now = _look(change)
    if outcome is not UndoOutcome.UNDONE:
        return ""
    name = change.subject
    if name.startswith("/proc/sys/"):
        name = name.removeprefix("/proc/sys/").replace("/", ".")
    return f"{name} is {setting(now)}, was {setting(change.text('original'))}"


KNOB = ChangeKind("knob", _describe, _undo, Sharing.NONE)
"""A setting: facts `original` and `ours` as read, `intended` as written."""
