"""Traces: what is written reads back, nonsense is refused with its place, golden replays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.errors import ConfigError
from hyperbox.memory.decisions import Action, Rules
from hyperbox.memory.readings import SECOND_NS, GroupCounters, Reading
from hyperbox.memory.traces import as_line, parse_trace, replay

counts = st.integers(0, 2**63)
readings = st.builds(
    Reading,
    counts,
    counts,
    counts,
    counts,
    counts,
    counts,
    counts,
    st.dictionaries(st.text(max_size=5), st.builds(GroupCounters, counts, counts), max_size=2),
    st.frozensets(st.text(max_size=5), max_size=2),
)


@given(st.lists(readings, max_size=4))
def test_written_trace_reads_back(wanted: list[Reading]) -> None:
    assert list(parse_trace(map(as_line, wanted))) == wanted


@given(st.text())
def test_any_line_is_a_reading_or_refused_with_its_number(text: str) -> None:
    if not text.strip():
        assert list(parse_trace([text])) == []
        return
    with pytest.raises(ConfigError, match=r"^x\.jsonl, line 1: not a reading"):
        list(parse_trace([text], "x.jsonl"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{}", "no 'time_ns'"),
        ("[]", "not a reading"),
        ('{"time_ns": 1.5, "memory_some_us":1,"memory_full_us":1,"io_some_us":1}', "whole number"),
        ('{"time_ns": true, "memory_some_us":1,"memory_full_us":1,"io_some_us":1}', "True"),
        (
            '{"time_ns": 1, "memory_some_us":1,"memory_full_us":1,"io_some_us":1, "groups": []}',
            "groups is an object",
        ),
        (
            '{"time_ns": 1, "memory_some_us":1,"memory_full_us":1,"io_some_us":1, '
            '"groups": {"a": {"x": 1}}}',
            "unexpected keyword",
        ),
    ],
)
def test_wrong_line_is_named(line: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        list(parse_trace(["", line], "t"))
    assert "t, line 2" in caught.value.message


def trace(shares: Sequence[tuple[int, int, int]]) -> list[Reading]:
    """Return the readings of a load: memory %, storage %, pages a second from swap, each 5 s."""
    made = [Reading(SECOND_NS, 0, 0, 0)]
    for memory, storage, pages in shares:
        last = made[-1]
        made.append(
            replace(
                last,
                time_ns=last.time_ns + 5 * SECOND_NS,
                memory_some_us=last.memory_some_us + memory * 50_000,
                io_some_us=last.io_some_us + storage * 50_000,
                swap_ins=last.swap_ins + pages * 5,
            )
        )
    return made


def played(shares: Sequence[tuple[int, int, int]]) -> list[tuple[int, str, str]]:
    return [
        (round(decision.time_ns / SECOND_NS) - 1, str(decision.action), decision.step)
        for decision in replay(trace(shares), Rules(), ["one", "two"])
        if decision.action is not Action.NOTHING
    ]


# Golden: what the policy of TARGETS.md says about four machines, to the second.


def test_golden_spike_is_left_alone() -> None:
    assert played([(0, 0, 0)] * 4 + [(100, 0, 0)] + [(0, 0, 0)] * 20) == []


def test_golden_thrash_that_a_step_cures() -> None:
    load = [(90, 30, 50)] * 4 + [(60, 20, 50)] * 6 + [(5, 1, 0)] * 30
    assert played(load) == [
        (10, "apply", "one"),
        (25, "keep", "one"),
        (110, "restore", "one"),
    ]


def test_golden_thrash_that_nothing_cures() -> None:
    assert played([(95, 50, 90)] * 30) == [
        (10, "apply", "one"),
        (25, "revert", "one"),
        (30, "apply", "two"),
        (45, "revert", "two"),
        (85, "apply", "one"),
        (100, "revert", "one"),
        (105, "apply", "two"),
        (120, "revert", "two"),
    ]


def test_golden_thrash_as_storage_stall_is_seen_and_a_backup_is_not() -> None:
    assert played([(8, 90, 300)] * 4)[0] == (10, "apply", "one")
    assert played([(8, 90, 0)] * 20) == []
