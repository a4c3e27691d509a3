"""Errors of refused calls: their kind, their text and their hint."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hyperbox.errors import KernelFeatureMissing, WorkloadError
from hyperbox.linux.mounts import mount
from hyperbox.linux.refusal import refusal


def test_error_of_python_and_errno_of_ctypes_read_alike(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="none") as caught:
        (tmp_path / "none").rmdir()
    by_python = refusal("cannot remove it", caught.value)
    by_number = refusal("cannot remove it", errno.ENOENT)
    assert str(by_python) == str(by_number) == "cannot remove it: No such file or directory"
    assert type(by_python) is type(by_number) is WorkloadError


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENODEV])
def test_lack_of_the_kernel_is_a_missing_feature(number: int) -> None:
    error = refusal("cannot mount it", number, missing=(errno.ENODEV,))
    assert isinstance(error, KernelFeatureMissing)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_lack_of_rights_says_who_may(number: int) -> None:
    assert refusal("cannot mount it", number).hint == "run as root"


def test_call_knows_its_own_hint_better() -> None:
    error = refusal("no trigger", errno.EPERM, hints={errno.EPERM: "with CAP_SYS_RESOURCE"})
    assert error.hint == "with CAP_SYS_RESOURCE"


def test_error_without_a_number_keeps_its_words() -> None:
    assert str(refusal("cannot read it", OSError("a reason of its own"))).endswith("of its own")


@pytest.mark.root
def test_unknown_file_system_is_what_this_kernel_lacks(tmp_path: Path) -> None:
    with pytest.raises(KernelFeatureMissing, match=f"{tmp_path}: {os.strerror(errno.ENODEV)}"):
        mount("hyperboxfs", tmp_path)
