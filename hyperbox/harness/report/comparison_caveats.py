"""What a comparison leaves out, and what differs beside its sides. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

from hyperbox.harness.model import Arm, Lane, Metric
from hyperbox.harness.report.data import CellData

__all__ = ["both_measured", "caveats", "exact_in_truth", "left_out"]

Pairs = Sequence[tuple[CellData, CellData]]
_Blocks = Mapping[int, float]

_LARGEST = 1e300
"""Differences of larger values overflow; nothing that is measured is so large."""

_FACTS: Mapping[tuple[str, ...], str] = {
    ("images", "root"): "the guests' images",
    ("qemu", "version"): "QEMU",
    ("accelerator",): "the accelerator",
    ("memory_bytes",): "bytes of memory",
    ("cpus",): "the number of processors",
    ("commandline",): "the kernels' command lines",
}
_HOST_FACTS: Mapping[tuple[str, ...], str] = {
    ("host", "cpu"): "the processor",
    ("host", "kernel"): "the host's kernel",
}
_BUILD = (("kernel", "sha256"), ("kernel", "build"))
_MOST_SHOWN = 40
"""Longer values, such as hashes, are not shown."""


def exact_in_truth(cell: CellData) -> bool:
    """Whether a cell's lane is what it is called: a failed self-test makes exact time host time."""
    found = _fact(cell, ("repeatability", "exact"))
    return not (cell.cell.lane is Lane.EXACT and found is False)


def both_measured(
    left: CellData, right: CellData
) -> Iterator[tuple[Metric, Arm, _Blocks, _Blocks]]:
    """Return the metrics with a better direction that both sides measured, block -> value."""
    one, two = _by_arm_and_metric(left), _by_arm_and_metric(right)
    for metric, arm in _judged(left):
        first, second = one.get((arm.id, metric.id)), two.get((arm.id, metric.id))
        if first and second and _small_enough(first, second):
            yield metric, arm, first, second


def left_out(
    left: Sequence[CellData], right: Sequence[CellData], pairs: Pairs, labels: tuple[str, str]
) -> list[str]:
    """Say what one side has no numbers of, and why: what broke there is no defeat nor victory."""
    found: list[str] = []
    for cells, label, place in ((left, labels[0], 0), (right, labels[1], 1)):
        paired = {id(pair[place]) for pair in pairs}
        alone = [cell for cell in cells if id(cell) not in paired]
        if alone:
            found.append(f"only {label} planned {_places(alone)}")
    for pair in pairs:
        holes = [
            f"{label} has no numbers of {cell.cell.experiment} on {cell.cell.kernel}: {_why(cell)}"
            for cell, label in zip(pair, labels, strict=True)
            if not cell.samples
        ]
        found += holes or _lone_metrics(*pair, labels)
    return found


def caveats(pairs: Pairs, labels: tuple[str, str]) -> list[str]:
    """Say what else differs between the sides, so that a difference may be its doing."""
    found: list[str] = []
    programs = next((pair for pair in pairs if _other_programs(pair)), None)
    if programs is not None:
        versions = " against ".join(map(_version, programs))
        found.append(
            f"the programs that load and measure are not the same (hyperbox {versions}): a "
            "difference may be theirs"
        )
    facts = dict(_FACTS)
    if any(cell.cell.lane is not Lane.EXACT for cell in chain(*pairs)):
        facts |= _HOST_FACTS
    for path, name in facts.items():
        odd = next((pair for pair in pairs if _differ(pair, path)), None)
        if odd is not None:
            found = [str(_fact(cell, path)) for cell in odd]
            values = f": {' against '.join(found)}" if max(map(len, found)) <= _MOST_SHOWN else ""
            found.append(f"not the same on both sides: {name}{values}")
    found += _kernels(pairs)
    for place, label in enumerate(labels):
        inexact = [pair[place] for pair in pairs if not exact_in_truth(pair[place])]
        if inexact:
            found.append(
                f"{label} failed the exact lane's self-test in {_places(inexact)}: compared as "
                "host time"
            )
    return found


def _kernels(pairs: Pairs) -> Iterator[str]:
    """Name kernels of one label that are not the same kernel, by version or by hash."""
    named = {}
    for left, right in pairs:
        if left.cell.kernel != right.cell.kernel:
            continue
        path = next((path for path in _BUILD if _differ((left, right), path)), None)
        if path is not None:
            versions = [str(_fact(cell, ("kernel", "version")) or "") for cell in (left, right)]
            if "" in versions or versions[0] == versions[1]:  # a build of the user's own
                versions = [f"build {_fact(cell, path)!s:.12}" for cell in (left, right)]
            named[left.cell.kernel] = " against ".join(versions)
    for kernel, builds in named.items():
        yield f"kernel {kernel}: {builds}"


def _lone_metrics(left: CellData, right: CellData, labels: tuple[str, str]) -> list[str]:
    one, two = _by_arm_and_metric(left), _by_arm_and_metric(right)
    found = []
    for metric, arm in _judged(left):
        first, second = one.get((arm.id, metric.id)), two.get((arm.id, metric.id))
        named = f"{metric.id} ({arm.id}) of {left.cell.experiment}"
        if first and second and not _small_enough(first, second):
            found.append(f"{named} is beyond any measurement")
        elif bool(first) is not bool(second):
            found.append(f"only {labels[0] if first else labels[1]} measured {named}")
    return found


def _judged(cell: CellData) -> Iterator[tuple[Metric, Arm]]:
    for metric in cell.experiment.metrics:
        if metric.better in ("lower", "higher"):
            for arm in cell.experiment.arms:
                yield metric, arm


def _by_arm_and_metric(cell: CellData) -> dict[tuple[str, str], dict[int, float]]:
    found: dict[tuple[str, str], dict[int, float]] = {}
    for sample in cell.samples:
        found.setdefault((sample.arm, sample.metric), {})[sample.block] = sample.value
    return found


def _small_enough(first: _Blocks, second: _Blocks) -> bool:
    return max(map(abs, chain(first.values(), second.values()))) < _LARGEST


def _places(cells: Iterable[CellData]) -> str:
    """Name cells: "a on 5.10, 6.12; b on 7.3"."""
    kernels: dict[str, list[str]] = {}
    for cell in cells:
        kernels.setdefault(cell.cell.experiment, []).append(cell.cell.kernel)
    named = (f"{name} on {', '.join(dict.fromkeys(on))}" for name, on in kernels.items())
    return "; ".join(named)


def _why(cell: CellData) -> str:
    """Say how the last attempt at a cell without numbers ended."""
    if not cell.attempts:
        return "not measured"
    last = cell.attempts[-1]
    status, reason = str(last.get("status", "")), str(last.get("reason", ""))
    if status == "measured":
        return "damaged"
    return f"{status}: {reason}" if reason else status


def _other_programs(pair: Sequence[CellData]) -> bool:
    """Whether other loads may have run: by the image that held them, else by the version."""
    if all(_fact(cell, ("images", "project")) for cell in pair):
        return _differ(pair, ("images", "project"))
    return _differ(pair, ("hyperbox", "commit")) or _differ(pair, ("hyperbox", "hyperbox"))


def _version(cell: CellData) -> str:
    known = (_fact(cell, ("hyperbox", key)) for key in ("commit", "hyperbox"))
    return next((str(value) for value in known if value), "of unknown version")


def _differ(pair: Sequence[CellData], path: tuple[str, ...]) -> bool:
    """Whether both cells have a fact on record, and not the same."""
    left, right = (_fact(cell, path) for cell in pair)
    return left is not None and right is not None and left != right


def _fact(cell: CellData, path: tuple[str, ...]) -> object:
    found: object = cell.environment
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found
