"""A measurement counts only if its kernel is known to be well."""

from __future__ import annotations

import pytest

from hyperbox.errors import KernelComplaint, MachineLost, WorkloadError
from hyperbox.harness.lab.dmesg import ConsoleJudgement
from hyperbox.harness.lab.machine import Artifacts
from hyperbox.harness.model import Lane
from hyperbox.harness.runs.health import examine, read_allowances, trouble

_WARN = "WARNING: CPU: 0 PID: 124 at fs/proc.c:42 demo+0x0/0x3\nRIP: 0010:demo+0x0/0x3\n"
_OOM = "Out of memory: Killed process 12 (walk) total-vm:1kB\n"


def _examine(evidence: Artifacts | None, lane: Lane = Lane.EXACT) -> ConsoleJudgement:
    return examine(
        evidence, lane=lane, release="6.12.1", experiment="x", allowances=read_allowances()
    )


def _said(dmesg: str, taint: int | None = 0) -> Artifacts:
    return Artifacts("", dmesg, "", taint)


def test_a_quiet_kernel_is_well() -> None:
    judgement = _examine(_said(""))
    assert judgement == ConsoleJudgement((), ())
    assert trouble(judgement, "here") is None


@pytest.mark.parametrize("evidence", [None, _said("", None)])
def test_health_that_is_not_known_is_not_health(evidence: Artifacts | None) -> None:
    with pytest.raises(MachineLost, match="cannot be asked") as caught:
        _examine(evidence)
    assert caught.value.fingerprint == "stopped answering: after the measurement"


def test_a_warning_is_the_kernels_trouble_and_comes_before_the_workloads() -> None:
    error = trouble(_examine(_said(_OOM + _WARN, 1 << 9)), "on of block 3")
    assert isinstance(error, KernelComplaint)
    assert error.fingerprint == "WARN: demo"
    assert error.message.startswith("on of block 3: the kernel reports WARN: ")


def test_an_out_of_memory_kill_is_the_workloads_failure() -> None:
    error = trouble(_examine(_said(_OOM)), "on of block 3")
    assert isinstance(error, WorkloadError)
    assert "Killed process 12 (walk)" in error.message


def test_modules_of_a_kernel_of_ones_own_are_allowed_with_the_reason() -> None:
    judgement = _examine(_said("", 1 << 12 | 1 << 13))
    assert judgement.refused == ()
    assert [word.partition(" (allowed: ")[0] for word in judgement.allowed] == [
        "taint: O",
        "taint: E",
    ]


def test_messages_of_the_host_are_kept_and_not_judged() -> None:
    judgement = _examine(_said(_WARN, None), Lane.HOST)
    assert judgement == ConsoleJudgement((), ("WARN: demo",))
    assert _examine(None, Lane.HOST) == ConsoleJudgement((), ())
