"""What differs between the kernels of a run beside the kernel: environment, configuration. Pure."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hyperbox.harness.report.cells import flat
from hyperbox.harness.report.data import RunData
from hyperbox.printing import legible

__all__ = ["Difference", "config_differences", "config_table", "environment_differences", "notable"]

_ABSENT = "not set"
_PROBE = "repeatability.probe."
_NUMBERS = re.compile(r"-?\d+(\.\d+)?(, -?\d+(\.\d+)?)*")
# Options that the measured features rest on; the rest is in the CSV file.
_NOTABLE = re.compile(
    "CONFIG_(PSI|SWAP|ZRAM|ZSWAP|ZSMALLOC|Z3FOLD|ZBUD|MEMCG|LRU_GEN|TRANSPARENT_HUGEPAGE|DAMON"
    "|HZ|PREEMPT|NO_HZ|SCHED|CGROUP|BPF|DEBUG_INFO_BTF|FTRACE|KPROBE|EROFS|FSCACHE|CACHEFILES"
    "|OVERLAY|FUSE|FANOTIFY|SECCOMP|SLUB|SLAB|INIT_ON|MITIGATION|RETPOLINE|PAGE_TABLE_ISOLATION"
    "|STACKPROTECTOR|KASAN|UBSAN|LOCKDEP|PROVE_LOCKING|CC_VERSION|CC_OPTIMIZE|CRYPTO_(LZ4|ZSTD|LZO))"
)


@dataclass(frozen=True)
class Difference:
    """One fact that is not the same everywhere: its value by kernel, in the order asked for."""

    name: str
    values: tuple[str, ...]


def environment_differences(run: RunData, kernels: Sequence[str]) -> tuple[Difference, ...]:
    """Return what differs between the machines of the kernels.

    The kernel's own record and the numbers of the repeatability probe, which are what a kernel
    does, are left out. Of several values for one kernel (cells measured on several machines)
    of numbers the smallest and the largest are shown, texts are joined by "; ".
    """
    found: dict[str, dict[str, list[str]]] = {}
    for cell in run.cells:
        own = {key: value for key, value in cell.environment.items() if key != "kernel"}
        for name, value in flat(own).items():
            if name.startswith(_PROBE):
                continue
            known = found.setdefault(name, {}).setdefault(cell.cell.kernel, [])
            if value not in known:
                known.append(value)
    differing = {
        name: values
        for name, values in found.items()
        if len({tuple(values.get(kernel, ())) for kernel in kernels}) > 1
        or any(len(known) > 1 for known in values.values())
    }
    return tuple(
        Difference(name, tuple(_several(values.get(kernel, [])) for kernel in kernels))
        for name, values in differing.items()
    )


def _several(texts: Sequence[str]) -> str:
    """Return the values that cells of one kernel saw as one text."""
    rows = [text.split(", ") for text in texts]
    if len(rows) < 2 or not all(_NUMBERS.fullmatch(text) for text in texts):
        return "; ".join(texts)
    if len({len(row) for row in rows}) > 1:
        return "; ".join(texts)
    columns = [sorted(column, key=float) for column in zip(*rows, strict=True)]
    ranges = [f"{c[0]} … {c[-1]}" if c[0] != c[-1] else c[0] for c in columns]
    return ", ".join(ranges)


def config_differences(run: RunData, kernels: Sequence[str]) -> tuple[Difference, ...]:
    """Return the options that differ between kernels whose configuration is on record."""
    known = [run.kernel_configs.get(kernel, {}) for kernel in kernels]
    recorded = [config for config in known if config]
    if len(recorded) < 2:
        return ()
    names = sorted(set().union(*recorded))
    return tuple(
        Difference(name, tuple(_value(config, name) for config in known))
        for name in names
        if len({config.get(name) for config in recorded}) > 1
    )


def notable(differences: Sequence[Difference]) -> tuple[Difference, ...]:
    """Return the options that the measured features rest on."""
    return tuple(one for one in differences if _NOTABLE.match(one.name))


def config_table(kernels: Sequence[str], differences: Sequence[Difference]) -> str:
    """Return all differing options as CSV: one line an option, one column a kernel."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["option", *map(legible, kernels)])
    writer.writerows([legible(one.name), *map(legible, one.values)] for one in differences)
    return stream.getvalue()


def _value(config: Mapping[str, str], name: str) -> str:
    return config.get(name, _ABSENT) if config else "not on record"
