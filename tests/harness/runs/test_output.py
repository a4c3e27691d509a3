"""A program's last line becomes metrics, a skip, or a clear complaint."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hyperbox.errors import KernelFeatureMissing, WorkloadError
from hyperbox.foreign import parse_json
from hyperbox.harness.lab.machine import CommandResult
from hyperbox.harness.model import Arm, Experiment, Metric
from hyperbox.harness.runs.documents import document_bytes
from hyperbox.harness.runs.output import SKIP_STATUS, parse_output
from tests.mutation import batches

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
        ('{"metrics": {"time": true, "rate": 2}}', "metric time is 'True'"),
        ('{"metrics": {"time": null, "rate": 2}}', "metric time is 'None'"),
        ('{"metrics": {"time": NaN, "rate": 2}}', "a number is NaN or infinite"),
        ('{"metrics": {"time": 1e999, "rate": 2}}', "a number is NaN or infinite"),
        ('{"metrics": {"time": 1, "time": 1, "rate": 2}}', "'time' stands twice"),
        ('{"metrics": {}, "metrics": {"time": 1, "rate": 2}}', "'metrics' stands twice"),
        ('{"metrics": {"time": 1, "rate": 2}, "notes": {"a": 1e999}}', "NaN or infinite"),
        ('{"metrics": {"time": 1, "rate": 2}, "notes": {"a": 1' + "0" * 400 + "}}", "401 digits"),
        ('{"metrics": {"time": 1' + "0" * 400 + ', "rate": 2}}', "401 digits"),
        ('{"metrics": {"time": 1, "rate": 2}, "notes": {"\\ud800": 1}}', "half of a surrogate"),
        ("[" * 100_000, "nested too deeply"),
        (
            '{"metrics": {"time": 1, "rate": 2}, "notes": {"a": ' + "[" * 95 + "]" * 95 + "}}",
            "notes cannot be put on record: it is nested too deeply",
        ),
        ('{"notes": "' + "x" * (1 << 20) + '"}', "more than 1048576 characters"),
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
    for text in ("{}", '{"skip": ""}', '{"skip": 7}', '{"metrics": {"time": 1, "rate": 2}}'):
        with pytest.raises(WorkloadError, match="status 77 without a reason"):
            parse_output(_result(text, SKIP_STATUS), _EXPERIMENT)
    with pytest.raises(WorkloadError, match="not JSON"):
        parse_output(_result("", SKIP_STATUS), _EXPERIMENT)


_OUTPUTS = [
    '{"metrics": {"time": 1, "rate": 2}, "notes": {"a": [1, "b", null, 0.5], "c": {"d": true}}}',
    '{"step": 1}\n{"metrics": {"time": 1.5, "rate": -2e0}}\n\n',
    '{"skip": "no zram"}',
]


@settings(max_examples=200)  # of 50 inputs each
@example(
    [
        '{"metrics": {"time": 1, "rate": 2}, "notes": {"a": 1e999}}',
        f'{{"metrics": {{"time": 1, "rate": 2}}, "notes": {{"a": {"9" * 400}}}}}',
        '{"metrics": {"time": 1, "rate": 2}, "notes": {"\\ud800": 1, "\\ud801": 2}}',
        '{"metrics": {"time": 1, "rate": 2}, "notes": {"a": "\u2028\x85"}}',
        f'{{"metrics": {{"time": {"1" * 309}, "rate": 2}}}}',
        "[" * 100_000,
    ]
)
@given(batches(_OUTPUTS))
def test_any_output_is_refused_or_can_be_put_on_record(texts: list[str]) -> None:
    for text, status in itertools.product(texts, (0, SKIP_STATUS)):
        try:
            metrics, notes = parse_output(_result(text, status), _EXPERIMENT)
        except (WorkloadError, KernelFeatureMissing):
            continue
        assert metrics["time"] >= 0
        assert -5 <= metrics["rate"] <= 5
        written = document_bytes({"blocks": [{"notes": {"on": notes}}]})
        assert parse_json(written.decode())["blocks"][0]["notes"]["on"] == notes


_GOOD = '{"metrics": {"time": 1, "rate": 2}}'


_OTHERS = [_GOOD, '{"metrics": null}', '{"skip": "no zram"}', f"\t{_GOOD}\r"]


@pytest.mark.parametrize("other", _OTHERS)
@pytest.mark.parametrize("between", ["\n", "\nmore\n\n"])
def test_a_second_result_is_refused_wherever_it_stands(other: str, between: str) -> None:
    for text in (f"{other}{between}{_GOOD}", f"{other}{between}{_GOOD}\n\n"):
        with pytest.raises(WorkloadError, match="more than one result"):
            parse_output(_result(text), _EXPERIMENT)


def test_other_json_before_the_result_is_not_one() -> None:
    text = f'{{"step": 1}}\n{{"metrics": \n["metrics"]\n{_GOOD}'
    assert parse_output(_result(text), _EXPERIMENT)[0] == {"time": 1.0, "rate": 2.0}


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x1c"])
def test_what_python_takes_for_the_end_of_a_line_is_text(separator: str) -> None:
    note = json.dumps(separator, ensure_ascii=False) if separator != "\x1c" else '"\\u001c"'
    line = f'{{"metrics": {{"time": 1, "rate": 2}}, "notes": {{"a": {note}}}}}'
    assert parse_output(_result(f"first{separator}\n{line}\n"), _EXPERIMENT)[1] == {"a": separator}
