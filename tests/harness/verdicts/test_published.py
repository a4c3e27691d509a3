"""The published run: what its report says is what the rules say today."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hyperbox.harness.runs.loading import load_run

PUBLISHED = Path(__file__).parents[3] / "reports" / "psi"


def test_published_verdicts_have_not_changed_silently() -> None:
    """A changed rule must say which published verdicts it turns; then the report is made anew."""
    shown = json.loads((PUBLISHED / "report" / "summary.json").read_text())["verdicts"]
    found = {(v.gate, v.kernel, str(v.lane)): v for v in load_run(PUBLISHED).verdicts}
    assert {(one["gate"], one["kernel"], one["lane"]) for one in shown} == set(found)
    for one in shown:
        verdict = found[one["gate"], one["kernel"], one["lane"]]
        assert (verdict.outcome, verdict.n) == (one["outcome"], one["n"]), verdict.gate
        assert verdict.estimate == pytest.approx(one["estimate"])
