"""Tallies: sums over processors, what was added since, percentiles."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.observability.layouts import TALLY
from hyperbox.observability.tallies import (
    Rows,
    abi_of,
    call_name,
    errors_of,
    grown,
    merged,
    percentile_ns,
)

ROW = st.tuples(st.integers(1, 6), st.integers(0, 50), st.integers(0, 3), st.integers(0, 19))


def rows_of(described: list[tuple[int, int, int, int]]) -> Rows:
    rows = np.zeros(len(described), TALLY)
    for row, (key, count, errors, bucket) in zip(rows, described, strict=True):
        row["key"], row["count"], row["errors"], row["timed"] = key, count, errors, 1
        row["max_ns"] = bucket
        row["buckets"][bucket] = 1
        if errors:
            row["failures"][0] = (key + 1, errors)
    return rows


@given(st.lists(ROW, max_size=30))
def test_merging_keeps_every_sum(described: list[tuple[int, int, int, int]]) -> None:
    rows = rows_of(described)
    found = merged(rows)
    assert found["key"].tolist() == sorted({key for key, *_ in described})
    for row in found:
        of_key = rows[rows["key"] == row["key"]]
        for name in ("count", "errors", "timed"):
            assert row[name] == of_key[name].sum()
        assert row["buckets"].tolist() == of_key["buckets"].sum(axis=0).tolist()
        assert row["max_ns"] == of_key["max_ns"].max()
        assert errors_of(row.reshape(1)) == errors_of(of_key)


@given(st.lists(ROW, min_size=1, max_size=10), st.data())
def test_what_was_added_late_is_found(
    described: list[tuple[int, int, int, int]], data: st.DataObject
) -> None:
    now = rows_of(described)
    before = now[data.draw(st.integers(0, len(now))) :].copy()
    late = data.draw(st.lists(st.integers(0, 5), min_size=len(before), max_size=len(before)))
    added = len(now) - len(before)
    now["count"][added:] += np.array(late, np.uint64)
    found = grown(before, now)
    assert found["count"].sum() == now["count"].sum() - before["count"].sum()
    assert len(grown(now, now)) == 0


def test_calls_have_the_names_of_their_abi() -> None:
    assert [call_name(1 << 32 | abi << 30 | 1) for abi in range(3)] == ["write", "exit", "write"]
    assert [abi_of(abi << 30) for abi in range(3)] == ["x86_64", "i386", "x32"]
    assert call_name(0x3FFFFFFF) == "syscall_1073741823"


def test_percentiles_lie_in_their_bucket_and_below_the_longest() -> None:
    buckets = [0] * 20
    assert percentile_ns(buckets, 0.5, 0) == 0
    buckets[2], buckets[10] = 99, 1
    assert 512 <= percentile_ns(buckets, 0.5, 200_000) < 1024
    assert percentile_ns(buckets, 1.0, 200_000) == 200_000
    buckets[19] = 1
    assert percentile_ns(buckets, 1.0, 5_000_000_000) == 5_000_000_000
