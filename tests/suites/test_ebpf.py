"""Suite ebpf: its programs run here, and what tracing misses is found out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.errors import WorkloadError
from hyperbox.observability.instrument import Instrument
from hyperbox.observability.tallies import Rows
from suites.ebpf import coverage
from suites.ebpf.streaming import percentile
from suites.ebpf.works import WORKS

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of a run that is cut off here is no leftover to the tests beside it."""
    monkeypatch.setenv("HYPERBOX_STATE", os.fspath(tmp_path / "state"))


def measured(*words: str) -> dict[str, float]:
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    metrics: dict[str, float] = json.loads(done.stdout.splitlines()[-1])["metrics"]
    return metrics


def test_spans_carry_what_perf_counts() -> None:
    metrics = measured("suites.ebpf.coverage")
    assert metrics["unaccounted"] == metrics["wrong_counts"] == 0
    assert metrics["missing"] < 1
    assert metrics["calls"] > 300_000


@pytest.mark.parametrize(
    ("counted", "carried", "lost", "unaccounted"),
    [(9, 9, 0, 0), (9, 9, 4, 0), (9, 7, 2, 0), (9, 7, 3, 0), (9, 7, 1, 1), (9, 11, 5, 2)],
)
def test_what_is_missing_must_be_among_the_lost(
    counted: int, carried: int, lost: int, unaccounted: int
) -> None:
    assert coverage.CallCounts(counted, carried, 0, lost, 0).unaccounted == unaccounted


def test_a_tracer_that_misses_calls_is_found_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The gates can fail: here the tables of every second window are thrown away."""
    flips = 0
    flip = Instrument.flip

    def forgetful(self: Instrument) -> Rows:
        nonlocal flips
        flips += 1
        rows = flip(self)
        return rows[:0] if flips % 2 else rows

    monkeypatch.setattr(Instrument, "flip", forgetful)
    monkeypatch.setattr(coverage, "WORKLOADS", {"programs": coverage.WORKLOADS["programs"]})
    assert coverage.main() == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics["missing"] > 1
    assert metrics["unaccounted"] > 0


def test_where_it_cannot_trace_it_says_why() -> None:
    assert measured("suites.ebpf.fallback") == {"situations": 2.0, "unclear": 0.0}


def test_a_load_that_ends_after_a_time_says_how_much_it_did() -> None:
    assert WORKS["nginx"].done("  Requests/sec\n  9052 requests in 4.00s, 9.2MB read\n") == 9052
    assert WORKS["redis"].done("") == WORKS["redis"].count
    for nothing in ("  0 requests in 4.00s", "unable to connect"):
        with pytest.raises(WorkloadError, match="no work was done"):
            WORKS["nginx"].done(nothing)


@given(st.lists(st.integers(0, 10**12), min_size=1), st.sampled_from((0.5, 0.9, 0.99, 1.0)))
def test_percentiles_are_of_nearest_rank(values: list[int], share: float) -> None:
    assert percentile(values, share) == np.quantile(values, share, method="inverted_cdf")


def test_work_is_measured_with_and_without() -> None:
    untraced = measured("suites.ebpf.overhead", "--work", "gcc", "--arm", "untraced")
    traced = measured("suites.ebpf.overhead", "--work", "gcc", "--arm", "traced")
    assert untraced["calls_per_second"] == 0
    assert traced["calls_per_second"] > 0
