"""Whether a kernel that was measured is well: its messages and taint decide, not its answer."""

from __future__ import annotations

from collections.abc import Sequence

from hyperbox.errors import KernelComplaint, MachineLost, WorkloadError
from hyperbox.foreign import read_toml
from hyperbox.harness.lab.crash import OOM_KILL, find_reports
from hyperbox.harness.lab.dmesg import Allowance, ConsoleJudgement, judge, parse_allowances
from hyperbox.harness.lab.machine import Artifacts
from hyperbox.harness.model import Lane
from hyperbox.paths import project_directory

__all__ = ["examine", "read_allowances", "trouble"]


def read_allowances() -> tuple[Allowance, ...]:
    """Return the project's allow-list of kernel messages; ConfigError if it is wrong."""
    path = project_directory() / "vm-images" / "dmesg-allow.toml"
    return parse_allowances(read_toml(path), path.name)


def examine(
    evidence: Artifacts | None,
    *,
    lane: Lane,
    release: str,
    experiment: str,
    allowances: Sequence[Allowance],
) -> ConsoleJudgement:
    """Judge the kernel of a machine on which an arm has just ended.

    Messages of the host are kept and not judged: they may be about anything that runs there.

    Raises
    ------
    MachineLost
        If the machine could not be asked: health that is not known is not health.
    """
    if lane is Lane.HOST:
        found = find_reports(evidence.dmesg) if evidence else ()
        return ConsoleJudgement((), tuple(dict.fromkeys(report.fingerprint for report in found)))
    if evidence is None or evidence.taint is None:
        raise MachineLost(
            "the kernel cannot be asked about its health any more",
            fingerprint="stopped answering: after the measurement",
        )
    text = f"{evidence.serial}\n{evidence.dmesg}"
    return judge(
        text, evidence.taint, release=release, experiment=experiment, allowances=allowances
    )


def trouble(judgement: ConsoleJudgement, where: str) -> KernelComplaint | WorkloadError | None:
    """Return the error that a judgement comes to, or None.

    An out-of-memory kill is the workload's failure, anything else the kernel's.
    """
    for report in judgement.refused:
        if report.kind != OOM_KILL:
            words = f"{where}: the kernel reports {report.kind}: {report.message}"
            return KernelComplaint(words, fingerprint=report.fingerprint)
    kills = [report.message for report in judgement.refused]
    return WorkloadError(f"{where}: {kills[0]}") if kills else None
