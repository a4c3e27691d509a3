"""stress-ng behind types: jobs are values, written as a job file; its metrics are read back.

Follows stress-ng(1). Run alone, ``python3 -m workloads.stress --mix service --seconds 10``
prints one JSON object; ``--show`` prints the job file instead. The seed is fixed, so each
stressor draws the same numbers every time. A mix with a number of operations does just these:
where they do not fit into the seconds, or a stressor is killed for memory, that is a failure.

With ``--stepwise`` it prints ``started`` and waits for a line of input before the job.
"""

from __future__ import annotations

import json
import math
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

if __package__ in (None, ""):  # run by its path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hyperbox.errors import HyperboxError, WorkloadError
from hyperbox.files import write_text
from hyperbox.processes import require, run
from workloads import command_line, memory_walk

__all__ = [
    "MIXES",
    "Job",
    "Metrics",
    "Stressor",
    "arguments",
    "check_done",
    "main",
    "parse_metrics",
    "report",
    "stress",
]

_NAME = re.compile(r"[a-z][a-z0-9-]*")
_VALUE = re.compile(r"[A-Za-z0-9_.,/%-]+")
_GRACE_S = 120.0  # beyond the job's own time: it starts slowly in a guest
_LONGEST = 300  # characters of a complaint
_TESTED = "0.15"  # Debian 12's; the guests have trixie's 0.19
_MOST_SEED = (1 << 64) - 1
# So that memory takes longest: it is the last to end, and what the time of the whole tells.
_CPU_OPS, _FILE_OPS, _MEMORY_OPS = 100, 4000, 2000


@dataclass(frozen=True)
class Stressor:
    """One kind of load: `instances` processes; `ops` bogus operations, 0 for no end.

    `options` are the stressor's own, without its name: ``{"bytes": "16M"}`` of ``vm`` is
    ``--vm-bytes 16M``; an empty value makes a switch, as of ``--vm-keep``.
    """

    name: str
    instances: int = 1
    ops: int = 0
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (self.name, *self.options):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a name of a stressor or an option")
        for name, value in self.options.items():
            if value and not _VALUE.fullmatch(value):
                raise ValueError(f"{self.name}-{name} cannot be {value!r}")
        if self.instances < 1 or self.ops < 0:
            raise ValueError("a stressor has an instance or more, and no negative operations")

    def lines(self) -> tuple[str, ...]:
        """Return its lines of a job file."""
        ops = (f"{self.name}-ops {self.ops}",) if self.ops else ()
        own = (
            f"{self.name}-{name} {value}".rstrip() for name, value in sorted(self.options.items())
        )
        return (f"{self.name} {self.instances}", *ops, *own)


@dataclass(frozen=True)
class Job:
    """Stressors that run side by side, or one after the other, for at most `seconds` each."""

    stressors: tuple[Stressor, ...]
    seconds: float
    seed: int = 0
    parallel: bool = True

    def __post_init__(self) -> None:
        if not self.stressors:
            raise ValueError("a job has a stressor or more")
        if not 1 <= self.seconds < math.inf:
            raise ValueError("a job takes a second or more, and has an end")
        if not 0 <= self.seed <= _MOST_SEED:
            raise ValueError("a seed has 64 bits")
        names = [one.name for one in self.stressors]
        if len(set(names)) != len(names):
            raise ValueError("a job has one entry for each stressor")

    def text(self) -> str:
        """Return the job file."""
        lines = [f"run {'parallel' if self.parallel else 'sequential'}"]
        for one in self.stressors:
            lines += one.lines()
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Metrics:
    """What a stressor did, all instances together; times in seconds."""

    stressor: str
    ops: int
    wall_s: float
    user_s: float
    system_s: float

    @property
    def rate(self) -> float:
        """Return bogus operations per second of wall time; 0 if none passed."""
        return self.ops / self.wall_s if self.wall_s else 0.0


_FIELDS = {
    "bogo-ops": "ops",
    "wall-clock-time": "wall_s",
    "user-time": "user_s",
    "system-time": "system_s",
}


def arguments(job: Path, metrics: Path, wanted: Job) -> list[str]:
    """Return the arguments for a job file whose metrics go to a file."""
    return [
        *("--job", str(job)),
        *("--seed", str(wanted.seed)),
        *("--timeout", f"{math.ceil(wanted.seconds)}s"),
        *("--yaml", str(metrics)),
        *("--temp-path", str(job.parent)),
        "--oomable",  # else one killed for memory begins anew, without a word
        "--metrics",
    ]


def parse_metrics(text: str) -> tuple[Metrics, ...]:
    """Read the ``metrics`` list of stress-ng's YAML file, in the order that it has there.

    Only what stress-ng writes is understood: a list of flat mappings.

    Raises
    ------
    ValueError
        If there is no such list, or an entry lacks a number or has it twice.
    """
    entries: list[dict[str, str]] = []
    inside = found = False
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.strip()
        if not line.startswith((" ", "-")) or content in ("---", "..."):
            if content and content not in ("---", "..."):
                inside = content == "metrics:"
                found |= inside
            continue
        if not inside or not content:
            continue
        if content.startswith("- "):
            entries.append({})
            content = content[2:]
        key, colon, value = content.partition(":")
        if not entries or not colon or key in entries[-1]:
            raise ValueError(f"line {number} of the metrics is {line!r}")
        entries[-1][key] = value.strip()
    if not found:
        raise ValueError("no metrics: stress-ng wrote none")
    return tuple(_metrics(entry) for entry in entries)


def _metrics(entry: Mapping[str, str]) -> Metrics:
    name = entry.get("stressor", "")
    numbers: dict[str, float] = {}
    for key, attribute in _FIELDS.items():
        try:
            numbers[attribute] = float(entry[key])
        except (KeyError, ValueError):
            raise ValueError(f"{key} of {name or 'a stressor'} is not a number") from None
        if not 0 <= numbers[attribute] < math.inf:
            raise ValueError(f"{key} of {name} is {entry[key]}")
    if not name:
        raise ValueError("metrics without a stressor")
    return Metrics(
        name, int(numbers["ops"]), numbers["wall_s"], numbers["user_s"], numbers["system_s"]
    )


def stress(job: Job) -> tuple[Metrics, ...]:
    """Run a job to its end and give its metrics.

    Raises
    ------
    MissingDependency
        If stress-ng is not installed.
    WorkloadError
        If it fails, does not end, writes no metrics, or did fewer operations than asked for.
    """
    program = require("stress-ng", "stress-ng")
    with tempfile.TemporaryDirectory(prefix="stress-") as scratch:
        path, metrics = Path(scratch) / "job", Path(scratch) / "metrics.yaml"
        write_text(path, job.text())
        share = 1 if job.parallel else len(job.stressors)
        timeout = job.seconds * share + _GRACE_S
        done = run([program, *arguments(path, metrics, job)], timeout=timeout, check=False)
        if done.status:
            said = _complaint(done.stderr.decode(errors="replace"))
            raise WorkloadError(
                f"stress-ng ended with status {done.status}: {said}",
                hint=f"an older stress-ng than {_TESTED} may lack what is asked for",
            )
        try:
            found = parse_metrics(metrics.read_text())
        except (OSError, ValueError) as error:
            raise WorkloadError(f"metrics of stress-ng: {error}") from error
    check_done(job, found)
    return found


def _complaint(stderr: str) -> str:
    """Return what stress-ng says is wrong, without where its help is."""
    lines = [line.strip() for line in stderr.splitlines()]
    said = [line for line in lines if line and not line.startswith("Try ")]
    return " ".join("; ".join(said[-2:]).split())[-_LONGEST:]


def check_done(job: Job, found: Sequence[Metrics]) -> None:
    """Refuse work that was cut short: WorkloadError with what is missing."""
    done = {one.stressor: one.ops for one in found}
    for wanted in job.stressors:
        ops = done.get(wanted.name, 0)
        if ops < wanted.ops:
            raise WorkloadError(
                f"{wanted.name} did {ops} of {wanted.ops} operations "
                f"within {job.seconds:g} s: too slow, or killed for memory"
            )


MIXES: Mapping[str, tuple[Stressor, ...]] = {
    "service": (
        Stressor("cpu", options={"load": "10", "method": "int64"}),
        Stressor("vm", options={"bytes": "8M", "method": "write64"}),
        Stressor("pipe", options={"data-size": "512"}),
    ),
    "builder": (
        Stressor("fork", options={"max": "4"}),
        Stressor("hdd", options={"bytes": "4M", "write-size": "64K"}),
        Stressor("vm", options={"bytes": "16M", "method": "rand-set", "keep": ""}),
    ),
    "pressure": (
        Stressor("cpu", ops=_CPU_OPS, options={"load": "10", "method": "int64"}),
        Stressor(
            "hdd",
            ops=_FILE_OPS,
            options={"bytes": "2M", "write-size": "64K", "opts": "wr-rnd,rd-rnd"},
        ),
        Stressor("vm", ops=_MEMORY_OPS, options={"bytes": "24M", "method": "rand-set", "keep": ""}),
    ),
}
"""Mixes by name: what a small service, what a build, and what too much for 24 MiB of memory do.

The last has a fixed amount of work: memory written and verified over and over, which
compresses to about a half; a file in random order; a little computing.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a mix; return the exit code."""
    parser = command_line.parser(
        "stress", __doc__, "python3 -m workloads.stress --mix service --seconds 10"
    )
    parser.add_argument("--mix", choices=sorted(MIXES), default="service", help="what runs")
    parser.add_argument(
        "--seconds", type=command_line.number(1), default=10.0, help="how long at most; 1 or more"
    )
    parser.add_argument(
        "--seed", type=command_line.whole(0, _MOST_SEED), default=0, help="of the stressors"
    )
    parser.add_argument("--show", action="store_true", help="print the job file, run nothing")
    parser.add_argument("--stepwise", action="store_true", help="wait for the parent's word")
    chosen = parser.parse_args(argv)
    job = Job(MIXES[chosen.mix], chosen.seconds, chosen.seed)
    if chosen.show:
        print(job.text(), end="")
        return 0
    memory_walk.step("started", chosen.stepwise)
    try:
        found = stress(job)
    except HyperboxError as error:
        print(f"stress: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(report(chosen.seconds, found)), flush=True)
    return 0


def report(seconds: float, found: Sequence[Metrics]) -> dict[str, object]:
    """Return a job's metrics as JSON values; it took as long as its slowest stressor."""
    return {
        "seconds": seconds,
        "elapsed_ns": round(max(one.wall_s for one in found) * 1e9),
        "operations": sum(one.ops for one in found),
        "stressors": [asdict(one) for one in found],
    }


if __name__ == "__main__":
    sys.exit(command_line.ended(main))
