"""Runs of one plan, measured on several machines, joined into one run directory.

Shards may differ in their kernels only. A cell that several shards measured is taken if
its attempts are the same bytes; choosing among different ones would be choosing results.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hyperbox import files
from hyperbox.errors import ConfigError, HarnessError
from hyperbox.foreign import read_bytes
from hyperbox.harness.model import Cell
from hyperbox.harness.runs.documents import digest, write_document
from hyperbox.harness.runs.ingredients import fact
from hyperbox.harness.runs.record import read_record
from hyperbox.harness.runs.schema import SCHEMA_VERSION
from hyperbox.harness.runs.store import RunInfo, RunStore, plan_document

__all__ = ["merge"]


def merge(shards: Sequence[Path], output: Path) -> None:
    """Join run directories into the new directory `output`; the shards stay as they are.

    Raises
    ------
    ConfigError
        If a shard is not a run or is given twice, the plans differ, two shards measured a cell
        differently or under different builds of a kernel, or `output` is in use.
    HarnessError
        If something cannot be read or written; nothing is left of `output` then.
    """
    stores = [RunStore.open(path) for path in shards]
    _check_given_once(shards)
    infos = [store.info() for store in stores]
    _check_plans(shards, infos)
    _check_output(output)
    sources = _sources(stores, infos)
    _check_kernels(sources)
    document = _run_document(shards, infos, complete=_complete(infos, sources))
    try:
        for cell, store in sources.items():
            for attempt in store.attempts(cell):
                _copy(attempt, output / "cells" / cell.key / attempt.name)
        write_document(output / "run.json", "run", document)
    except BaseException:
        shutil.rmtree(output, ignore_errors=True)
        raise


def _check_output(output: Path) -> None:
    hint = "name a directory that does not exist"
    try:
        if output.exists() and any(output.iterdir()):
            raise ConfigError(f"{output} is not empty", hint=hint)
    except OSError as error:
        raise ConfigError(f"cannot use {output}: {error.strerror or error}", hint=hint) from error


def _check_given_once(shards: Sequence[Path]) -> None:
    seen: set[Path] = set()
    for path in shards:
        if path.resolve() in seen:
            raise ConfigError(f"{path} is given twice")
        seen.add(path.resolve())


def _check_plans(shards: Sequence[Path], infos: Sequence[RunInfo]) -> None:
    """Refuse shards whose plans differ in anything but the kernels.

    The plans are compared as they are read: what a plan of an older hyperbox does not say is
    its default.
    """

    def rest(info: RunInfo) -> dict[str, Any]:
        plan = {**plan_document(info.plan), "target": info.document["target"]}
        return {key: value for key, value in plan.items() if key != "kernels"}

    first = rest(infos[0])
    for path, info in zip(shards[1:], infos[1:], strict=True):
        other = rest(info)
        differing = [key for key in first.keys() | other.keys() if first.get(key) != other.get(key)]
        if differing:
            listed = ", ".join(sorted(differing))
            raise ConfigError(
                f"{path} is not a shard of the plan of {shards[0]}: other {listed}",
                hint="only the kernels may differ; `hyperbox compare` holds runs side by side",
            )


def _sources(stores: Sequence[RunStore], infos: Sequence[RunInfo]) -> dict[Cell, RunStore]:
    """Return the shard of every measured cell; ConfigError if two shards differ about one."""
    found: dict[Cell, RunStore] = {}
    for store, info in zip(stores, infos, strict=True):
        for cell in info.plan.cells():
            if not store.attempts(cell):
                continue
            if cell in found and _content(found[cell], cell) != _content(store, cell):
                raise ConfigError(
                    f"{found[cell].directory} and {store.directory} both measured {cell.key}, "
                    "with different records",
                    hint="remove the cell's directory from the shard that is not to count",
                )
            found.setdefault(cell, store)
    return found


def _content(store: RunStore, cell: Cell) -> dict[str, str]:
    """Return the digest of every file of a cell's attempts."""
    return {
        f"{attempt.name}/{path.name}": digest(read_bytes(path))
        for attempt in store.attempts(cell)
        for path in _files(attempt)
    }


def _check_kernels(sources: Mapping[Cell, RunStore]) -> None:
    """Refuse one label for two builds of a kernel; damaged records are the report's affair."""
    builds: dict[tuple[str, str], tuple[str, Path]] = {}
    for cell, store in sources.items():
        for attempt in store.attempts(cell):
            try:
                environment = read_record(attempt).document["environment"]
            except HarnessError:
                continue
            for key in ("sha256", "build"):
                digest = str(fact(environment, ("kernel", key)) or "")
                known, where = builds.setdefault((cell.kernel, key), (digest, store.directory))
                if digest and known and digest != known:
                    raise ConfigError(
                        f"kernel {cell.kernel} is another build in {store.directory} than in "
                        f"{where}",
                        hint="measure the shards with one kernels.lock.json, or one bzImage",
                    )


def _complete(infos: Sequence[RunInfo], sources: Mapping[Cell, RunStore]) -> bool:
    """Whether every shard is, or what one was cut off from has been measured by another."""
    if all(info.status == "complete" for info in infos):
        return True
    return all(
        cell in sources and _finished(sources[cell], cell)
        for info in infos
        for cell in info.plan.cells()
    )


def _finished(store: RunStore, cell: Cell) -> bool:
    """Whether a resumed run would leave the cell alone."""
    try:
        found = store.latest(cell)
    except HarnessError:  # damaged: the report's affair
        return False
    return found is not None and found.finished


def _run_document(
    shards: Sequence[Path], infos: Sequence[RunInfo], *, complete: bool
) -> dict[str, Any]:
    documents = [info.document for info in infos]
    first = documents[0]
    ended: list[str] = [document["ended"] for document in documents if document.get("ended")]
    kernels = _in_order(kernel for info in infos for kernel in info.plan.kernels)
    environments = {
        name: {**document["environment"], "versions": document["versions"]}
        for name, document in zip(_names(shards), documents, strict=True)
    }
    return {
        **first,
        "schema_version": SCHEMA_VERSION,
        "status": "complete" if complete else "interrupted",
        "created": min(document["created"] for document in documents),
        "ended": max(ended, default=None) if complete or len(ended) == len(documents) else None,
        "asked": {**first["asked"], "kernels": kernels},
        "plan": {**first["plan"], "kernels": kernels},
        "environment": {"shards": environments},
    }


def _names(shards: Sequence[Path]) -> list[str]:
    """Return each shard's name; those of the same name get their whole paths."""
    names = [path.resolve().name for path in shards]
    return [
        name if names.count(name) == 1 else str(path.resolve())
        for name, path in zip(names, shards, strict=True)
    ]


def _in_order(labels: Iterable[str]) -> list[str]:
    """Return labels once each: versions from old to new, anything else as it came."""
    kernels = list(dict.fromkeys(labels))
    if all(re.match(r"\d", kernel) for kernel in kernels):
        kernels.sort(key=lambda kernel: [int(digits) for digits in re.findall(r"\d+", kernel)])
    return kernels


def _copy(attempt: Path, target: Path) -> None:
    for path in _files(attempt):
        files.write_bytes(target / path.name, read_bytes(path))


def _files(attempt: Path) -> list[Path]:
    try:
        return sorted(attempt.iterdir())
    except OSError as error:
        raise HarnessError(f"cannot read {attempt}: {error.strerror or error}") from error
