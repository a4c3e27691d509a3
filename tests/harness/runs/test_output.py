"""A program's last line becomes metrics, a skip, or a clear complaint."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.errors import KernelFeatureMissing, WorkloadError
from hyperbox.harness.lab.machine import CommandResult
from hyperbox.harness.model import Arm, Experiment, Metric
from hyperbox.harness.runs.output import SKIP_STATUS, parse_output

_EXPERIMENT = Experiment(
    id="demo.load",
    suite="demo",
    title="Demo",
    arms=(Arm("on", "on"),),
    metrics=(
        Metric("time", "Time", "us"),
        Metric("rate", "Rate", "1/s", "higher", least=-5, most=5),
    ),
    program=("true",),
)


def _result(text: str, status: int = 0, errors: str = "") -> CommandResult:
    return CommandResult(status, text.encode(), errors.encode())


@given(
    time=st.floats(0, allow_infinity=False) | st.integers(0, 2**53),
    noise=st.text(max_size=50),
    notes=st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3),
)
def test_metrics_and_notes_come_from_the_last_line(
    time: float, noise: str, notes: dict[str, int | str]
) -> None:
    line = json.dumps({"metrics": {"time": time, "rate": 1}, "notes": notes})
    metrics, found = parse_output(_result(f"{noise}\n{line}\n"), _EXPERIMENT)
    assert metrics == {"time": float(time), "rate": 1.0}
    assert found == notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("done", "not JSON"),
        ("[1]", "not a JSON object"),
        ("{}", 'no "metrics" object'),
        ('{"metrics": 1}', 'no "metrics" object'),
        ('{"metrics": {"time": 1}}', "lack rate"),
        ('{"metrics": {"time": 1, "rate": 2, "colour": 3}}', "unknown colour"),
        ('{"metrics": {"time": "1", "rate": 2}}', "metric time is '1', not a number"),
        ('{"metrics": {"time": true, "rate": 2}}', "metric time is True"),
        ('{"metrics": {"time": null, "rate": 2}}', "metric time is None"),
        ('{"metrics": {"time": NaN, "rate": 2}}', "NaN is not a JSON number"),
        ('{"metrics": {"time": 1e999, "rate": 2}}', "metric time is not finite"),
        ('{"metrics": {"time": -5, "rate": 2}}', "metric time is -5, which is not at least 0"),
        ('{"metrics": {"time": -1e308, "rate": 2}}', r"time is -1e\+308, which is not at least"),
        ('{"metrics": {"time": 1, "rate": 5.5}}', "metric rate is 5.5, which is not -5 to 5"),
        ('{"metrics": {"time": 1, "rate": 2}, "notes": []}', "notes must be an object"),
    ],
)
def test_other_lines_are_refused(text: str, message: str) -> None:
    with pytest.raises(WorkloadError, match=message):
        parse_output(_result(text), _EXPERIMENT)


def test_a_failure_is_told_with_its_last_words() -> None:
    with pytest.raises(WorkloadError, match="exit status 3: no swap"):
        parse_output(_result("{}", 3, "Traceback\nno swap\n"), _EXPERIMENT)
    with pytest.raises(WorkloadError, match="killed by signal 9: no output"):
        parse_output(_result("", -9), _EXPERIMENT)


def test_status_77_is_a_skip_with_the_reason() -> None:
    with pytest.raises(KernelFeatureMissing, match="no zram"):
        parse_output(_result('x\n{"skip": "no zram"}', SKIP_STATUS), _EXPERIMENT)
    with pytest.raises(KernelFeatureMissing, match="gave no reason"):
        parse_output(_result("{}", SKIP_STATUS), _EXPERIMENT)
    with pytest.raises(WorkloadError, match="not JSON"):
        parse_output(_result("", SKIP_STATUS), _EXPERIMENT)


@given(output=st.binary(max_size=200), status=st.integers(-64, 255))
def test_any_output_is_read_or_refused(output: bytes, status: int) -> None:
    with contextlib.suppress(WorkloadError, KernelFeatureMissing):
        parse_output(CommandResult(status, output, b""), _EXPERIMENT)
