"""The index of published runs: a README made from the summary of each run beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jsonschema

from hyperbox.errors import HarnessError
from hyperbox.foreign import read_json, read_text
from hyperbox.harness.report.markdown import code_block, plain

__all__ = ["KEPT", "index_page"]

KEPT = "<!-- From here on written by hand: `hyperbox report --index` keeps it. -->"
"""Begins the part of the README that is not made from the summaries."""

_SCHEMA = Path(__file__).parent / "schema" / "summary.json"


def index_page(directory: Path) -> str:
    """Return the README of a directory of runs, each with its ``report/summary.json``.

    What stands in the README from `KEPT` on is kept.

    Raises
    ------
    HarnessError
        If there is no summary, or one cannot be read or does not follow its schema.
    """
    summaries = dict(_summaries(directory))
    if not summaries:
        raise HarnessError(
            f"{directory} has no run with a report",
            hint="it is to hold run directories: DIR/RUN/report/summary.json",
        )
    parts = [
        "# Published runs",
        "Made by `hyperbox report --index` from the summary of each run. `hyperbox report RUN` "
        "makes the whole report with its figures from the records and samples that are kept here.",
        *(part for name, found in summaries.items() for part in _section(name, found)),
        *_kept(directory / "README.md"),
    ]
    return "\n\n".join(parts) + "\n"


def _summaries(directory: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    schema = json.loads(_SCHEMA.read_text())
    for path in sorted(directory.glob("*/report/summary.json")):
        found = read_json(path)
        error = next(jsonschema.Draft202012Validator(schema).iter_errors(found), None)
        if error is not None:
            raise HarnessError(
                f"{path} does not follow the schema of a summary: {error.message[:200]}",
                hint=f"make it again: hyperbox report {path.parent.parent}",
            )
        yield path.parent.parent.name, found


def _section(name: str, found: Mapping[str, Any]) -> Iterator[str]:
    kernels = dict.fromkeys(plain(one["kernel"]) for one in found["verdicts"])
    gates = {one["gate"] for one in found["verdicts"]}
    yield f"## [{plain(name)}]({quote(name)}/report/report.md)"
    yield f"**{plain(found['headline'])}** {plain(found['release']['text'])}"
    yield (
        f"{found['lane']} lane, seed {found['seed']}, measured {plain(found['created'][:10])}: "
        f"{len(gates)} gates on {', '.join(kernels) or 'no kernel'}."
    )
    yield code_block(found["reproduce"])


def _kept(path: Path) -> Iterator[str]:
    """Return the part of an earlier README that was written by hand."""
    if path.exists():
        _, mark, kept = read_text(path).partition(KEPT)
        if mark:
            yield f"{mark}\n\n{kept.strip()}"
