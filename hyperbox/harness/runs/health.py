"""Whether a kernel that was measured is well: its messages and taint decide, not its answer."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence

from hyperbox.errors import ConfigError, HarnessError, KernelComplaint, MachineLost, WorkloadError
from hyperbox.harness.lab.crash import OOM_KILL, find_reports
from hyperbox.harness.lab.dmesg import Allowance, Judgement, judge, parse_allowances
from hyperbox.harness.lab.machine import Artifacts
from hyperbox.harness.model import Lane
from hyperbox.paths import project_directory

__all__ = ["examine", "read_allowances", "trouble"]


def read_allowances() -> tuple[Allowance, ...]:
    """Return the project's allow-list of kernel messages; ConfigError if it is wrong."""
    path = project_directory() / "vm-images" / "dmesg-allow.toml"
    try:
        return parse_allowances(tomllib.loads(path.read_text(encoding="utf-8")), path.name)
    except OSError as error:
        raise HarnessError(f"cannot read {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name}: {error}") from None


def examine(
    evidence: Artifacts | None,
    *,
    lane: Lane,
    release: str,
    experiment: str,
    allowances: Sequence[Allowance],
) -> Judgement:
    """Judge the kernel of a machine on which an arm has just ended.

    Messages of the host are kept and not judged: they may be about anything that runs there.

    Raises
    ------
    MachineLost
        If the machine could not be asked: health that is not known is not health.
    """
    if lane is Lane.HOST:
        found = find_reports(evidence.dmesg) if evidence else ()
        return Judgement((), tuple(dict.fromkeys(report.fingerprint for report in found)))
    if evidence is None or evidence.taint is None:
        raise MachineLost(
            "the kernel cannot be asked about its health any more",
            fingerprint="stopped answering: after the measurement",
        )
    text = f"{evidence.serial}\n{evidence.dmesg}"
    return judge(
        text, evidence.taint, release=release, experiment=experiment, allowances=allowances
    )


def trouble(judgement: Judgement, where: str) -> KernelComplaint | WorkloadError | None:
    """Return the error that a judgement comes to, or None.

    An out-of-memory kill is the workload's failure, anything else the kernel's.
    """
    for report in judgement.refused:
        if report.kind != OOM_KILL:
            words = f"{where}: the kernel reports {report.kind}: {report.message}"
            return KernelComplaint(words, fingerprint=report.fingerprint)
    kills = [report.message for report in judgement.refused]
    return WorkloadError(f"{where}: {kills[0]}") if kills else None
