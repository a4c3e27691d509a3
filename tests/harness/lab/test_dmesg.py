"""The gate on kernel messages: what is refused, what the allow-list lets pass, and why."""

from __future__ import annotations

import contextlib
import tomllib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hyperbox.errors import ConfigError
from hyperbox.foreign import parse_toml
from hyperbox.harness.lab.crash import WARN, find_reports
from hyperbox.harness.lab.dmesg import (
    Allowance,
    ConsoleJudgement,
    judge,
    parse_allowances,
    taint_flags,
)
from tests.mutation import batches

_WARN = (
    "[    2.611806] WARNING: CPU: 0 PID: 124 at fs/proc.c:42 demo+0x0/0x3\n"
    "[    2.611892] RIP: 0010:demo+0x0/0x3\n"
)
_OOM = "[    3.1] Out of memory: Killed process 12 (walk) total-vm:1kB\n"
_W, _L, _E = 1 << 9, 1 << 14, 1 << 13


def _allow(text: str) -> tuple[Allowance, ...]:
    return parse_allowances(tomllib.loads(text), "list.toml")


def _entry(**changes: str) -> str:
    facts = {"kind": '"WARN"', "pattern": '"demo"', "since": '"2026-11-25"', "reason": '"known"'}
    facts |= changes
    return "[[allow]]\n" + "".join(f"{key} = {value}\n" for key, value in facts.items())


def _judge(
    text: str, taint: int = 0, allowed: str = "", release: str = "6.12.1-x"
) -> ConsoleJudgement:
    rules = _allow(allowed)
    return judge(text, taint, release=release, experiment="psi.accuracy", allowances=rules)


def test_silence_is_health() -> None:
    assert _judge("[    0.0] Linux version 6.12\n") == ConsoleJudgement((), ())


def test_warning_is_refused_once_though_it_taints_and_is_heard_twice() -> None:
    refused = _judge(_WARN + _WARN, _W).refused
    assert [report.fingerprint for report in refused] == ["WARN: demo"]


def test_allowed_warning_and_its_taint_pass_with_the_reason_on_record() -> None:
    assert _judge(_WARN, _W, _entry()) == ConsoleJudgement((), ("WARN: demo (allowed: known)",))


def test_taint_that_nothing_explains_is_refused() -> None:
    assert [report.fingerprint for report in _judge(_WARN, _W | _L).refused] == [
        "WARN: demo",
        "taint: L",
    ]
    assert [report.fingerprint for report in _judge("", _W).refused] == ["taint: W"]


@pytest.mark.parametrize(
    ("kernels", "passes"),
    [
        ('["5.10", "6.12"]', True),
        ('["6.12", "6.12"]', True),
        ('["5.10", "6.1"]', False),
        ('["6.16", "7.3"]', False),
    ],
)
def test_an_entry_is_for_its_kernels(kernels: str, passes: bool) -> None:
    assert (_judge(_WARN, _W, _entry(kernels=kernels)).refused == ()) is passes


def test_an_entry_is_for_its_experiment() -> None:
    kill = _entry(kind='"OOM kill"', pattern='"walk"', experiment='"psi.accuracy"')
    other = _entry(kind='"OOM kill"', pattern='"walk"', experiment='"psi.other"')
    assert _judge(_OOM, 0, kill).refused == ()
    assert [report.kind for report in _judge(_OOM, 0, other).refused] == ["OOM kill"]


def test_an_entry_is_for_its_kind() -> None:
    taint = _entry(kind='"taint"', pattern='": [OE]$"')
    assert _judge("", _E, taint).refused == ()
    assert _judge("", _W, taint).refused != ()
    assert _judge(_WARN, _W, taint).refused != ()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (_entry(reason='""'), "entry 1: reason must be text"),
        (_entry(since="2026-11-25"), "entry 1: since must be text"),
        (_entry(kind='"panic"'), "kind must be one of"),
        (_entry(pattern='"("'), "is not a pattern"),
        (_entry(kernels='["7.3", "5.10"]'), "is not a range of kernels"),
        (_entry(kernels='["5.10"]'), "oldest"),
        (_entry(excuse='"none"'), "must be a table of"),
        (_entry() + "[other]\n", r"only \[\[allow\]\]"),
    ],
)
def test_a_wrong_entry_is_named(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        _allow(text)


def test_letters_of_taint() -> None:
    assert taint_flags(0) == ""
    assert taint_flags(12800) == "WOE"
    assert taint_flags(1 << 30) == "?"


MESSAGES = [
    f"{_WARN}\n{_OOM}",
    "BUG: Bad page state in process a\nOops: 0000 [#1]\n",
    "mce: [Hardware Error]: Machine check events logged\r\n",
]


@settings(max_examples=200)  # of 50 inputs each
@given(batches(MESSAGES))
def test_every_report_is_allowed_or_refused(texts: list[str]) -> None:
    rules = _allow(_entry(pattern='"."'))
    for text in texts:
        found = judge(text, 0, release="6.12", experiment="", allowances=rules)
        kinds = {report.kind for report in find_reports(text)}
        assert bool(found.allowed) == (WARN in kinds)
        assert {report.kind for report in found.refused} == kinds - {WARN}


@pytest.mark.filterwarnings("ignore:Possible nested set")
@settings(max_examples=200)  # of 50 inputs each
@example([_entry(pattern='"a{99999999999}"'), _entry(pattern=f'"{"(" * 5000}{")" * 5000}"')])
@given(batches([_entry(kernels='["6.1", "6.12"]', experiment='"psi.accuracy"')]))
def test_any_allow_list_is_read_or_refused(texts: list[str]) -> None:
    for text in texts:
        with contextlib.suppress(ConfigError, ValueError):  # ValueError: it is not TOML
            parse_allowances(parse_toml(text), "list.toml")


@given(st.text(), st.integers(0, (1 << 20) - 1))
def test_every_flag_is_refused_unless_allowed(text: str, taint: int) -> None:
    refused = judge(text, taint, release="", experiment="", allowances=()).refused
    assert (refused == ()) <= (taint == 0)
