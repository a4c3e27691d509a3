"""The walk is the same work for the same seed, and its pages compress as stated."""

from __future__ import annotations

import json
import sys
import zlib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.processes import run, spawn, stop
from workloads.memory_walk import PAGE, WalkPlan, fill, offsets, pages, percentile, walk

WALK = Path(__file__).parents[2] / "workloads" / "memory_walk.py"


@given(
    st.integers(1, 4),
    st.integers(1, 500),
    st.integers(0, 2**32),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_every_access_lies_in_a_page_of_the_plan(
    mib: int, accesses: int, seed: int, hot_fraction: float, hot_share: float, writes: float
) -> None:
    plan = WalkPlan(mib, accesses, seed, hot_fraction, hot_share, writes)
    sequence = offsets(plan)
    assert len(sequence) == accesses
    places = [~offset if offset < 0 else offset for offset in sequence]
    assert all(0 <= place < mib << 20 and place % PAGE == PAGE // 2 for place in places)
    assert sequence == offsets(plan)


def test_seeds_differ() -> None:
    assert offsets(WalkPlan(4, 100, seed=1)) != offsets(WalkPlan(4, 100, seed=2))


def test_shares_are_as_planned() -> None:
    plan = WalkPlan(mib=8, accesses=40_000, hot_fraction=0.25, hot_share=0.8, write_share=0.3)
    sequence = offsets(plan)
    written = sum(offset < 0 for offset in sequence) / len(sequence)
    assert written == pytest.approx(0.3, abs=0.02)
    counts = Counter(~offset if offset < 0 else offset for offset in sequence)
    hottest = sum(count for _, count in counts.most_common(plan.page_count // 4))
    # The hot pages also get their part of the accesses that go anywhere.
    assert hottest / len(sequence) == pytest.approx(0.8 + 0.2 * 0.25, abs=0.03)


def test_pages_compress_two_to_three_times_and_differ() -> None:
    contents = pages(3)
    assert len(set(contents)) == len(contents)
    assert {len(content) for content in contents} == {PAGE}
    for content in contents:
        assert 2 < PAGE / len(zlib.compress(content, 1)) < 3.2
    assert contents == pages(3)
    assert contents != pages(4)


def test_filled_pages_are_all_different() -> None:
    memory = fill(WalkPlan(mib=1, accesses=1))
    seen = {memory[start : start + PAGE] for start in range(0, 1 << 20, PAGE)}
    assert len(seen) == (1 << 20) // PAGE


def test_the_memory_is_a_heaps_private_and_anonymous() -> None:
    def kib(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name))

    anonymous, shared = kib("RssAnon"), kib("RssShmem")
    memory = fill(WalkPlan(mib=32, accesses=1))
    assert kib("RssAnon") - anonymous > 24 << 10
    assert kib("RssShmem") - shared < 1 << 10
    memory.close()


def test_walk_writes_where_the_plan_says_and_counts_everything() -> None:
    plan = WalkPlan(mib=1, accesses=300, write_share=0.5)
    sequence = offsets(plan)
    memory = fill(plan)
    before = bytes(memory)
    result = walk(plan, memory, sequence)
    assert result.accesses == 300
    assert 0 <= result.p50_ns <= result.p99_ns <= result.max_ns <= result.elapsed_ns
    written = {~offset for offset in sequence if offset < 0}
    changed = {place for place in range(1 << 20) if memory[place] != before[place]}
    assert changed == written


def test_walk_by_time_goes_round() -> None:
    plan = WalkPlan(mib=1, accesses=10, seconds=0.05)
    result = walk(plan, fill(plan), offsets(plan))
    assert result.accesses > 10
    assert result.elapsed_ns >= 50_000_000


@given(st.lists(st.integers(), min_size=1), st.floats(0, 100))
def test_percentile_is_the_smallest_value_with_enough_below(
    values: list[int], percent: float
) -> None:
    ordered = sorted(values)
    found = percentile(ordered, percent)
    assert sum(value <= found for value in values) * 100 >= len(values) * percent - 1e-6
    assert found in values


def test_steps_wait_for_the_parent() -> None:
    done = run(
        [sys.executable, WALK, "--mib", "1", "--accesses", "5", "--stepwise"],
        timeout=60,
        data=b"\n\n",
    )
    started, filled, result = done.text().splitlines()
    assert (started, filled) == ("started", "filled")
    assert json.loads(result)["accesses"] == 5


def test_walk_ends_when_the_parent_is_gone() -> None:
    done = run([sys.executable, WALK, "--stepwise"], timeout=60, data=b"", check=False)
    assert done.status == 1
    assert b"parent is gone" in done.stderr


@pytest.mark.parametrize("option", ["--mib", "--accesses", "--burst"])
def test_nothing_to_do_is_refused(option: str) -> None:
    done = run([sys.executable, WALK, option, "0"], timeout=60, check=False)
    assert done.status == 2


def test_bursts_want_the_same_cpu_and_end_with_their_session() -> None:
    bursts = WALK.with_name("cpu_bursts.py")
    process = spawn([sys.executable, bursts, "--processes", "3"])
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while len(children.read_text().split()) < 2:
            assert process.poll() is None
        allowed = {
            line
            for pid in (str(process.pid), *children.read_text().split())
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if line.startswith("Cpus_allowed_list")
        }
        assert len(allowed) == 1
    finally:
        stop(process)


def test_impossible_bursts_are_refused() -> None:
    bursts = WALK.with_name("cpu_bursts.py")
    argv = [sys.executable, str(bursts), "--burst-ms", "20", "--period-ms", "10"]
    assert run(argv, timeout=60, check=False).status == 2
