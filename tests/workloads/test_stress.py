"""stress-ng's jobs are written as values say, its metrics are read back, real runs count."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.errors import WorkloadError
from hyperbox.processes import run
from workloads.stress import (
    MIXES,
    Job,
    Metrics,
    Stressor,
    arguments,
    check_done,
    main,
    parse_metrics,
    report,
    stress,
)

ROOT = Path(__file__).parents[2]
NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,12}", fullmatch=True)
VALUES = st.from_regex(r"([A-Za-z0-9_.,/%-]{1,12})?", fullmatch=True)
STRESSORS = st.builds(
    Stressor, NAMES, st.integers(1, 64), st.integers(0, 10**9), st.dictionaries(NAMES, VALUES)
)

WRITTEN = """\
---
build-info:
      compiler: 'gcc 14.2.0'

system-info:
      stress-ng-version: '0.19.02'
      hostname: 'metrics:'

metrics:
    - stressor: vm
      bogo-ops: 200
      bogo-ops-per-second-usr-sys-time: 1646.903821
      bogo-ops-per-second-real-time: 1465.097815
      wall-clock-time: 0.136510
      user-time: 0.063660
      system-time: 0.057780
      max-rss: 10808

    - stressor: hdd
      bogo-ops: 50
      wall-clock-time: 0.026578
      user-time: 0.004470
      system-time: 0.008940
      mbsec-read-rate: 194.092880

...
"""


def test_metrics_that_stress_ng_wrote_are_read() -> None:
    vm, hdd = parse_metrics(WRITTEN)
    assert vm == Metrics("vm", 200, 0.136510, 0.063660, 0.057780)
    assert round(vm.rate, 1) == 1465.1
    assert (hdd.stressor, hdd.ops) == ("hdd", 50)
    assert Metrics("idle", 5, 0.0, 0.0, 0.0).rate == 0


METRICS = st.builds(
    Metrics,
    NAMES,
    st.integers(0, 2**53),
    *(st.floats(0, 1e9).map(lambda value: round(value, 6)) for _ in range(3)),
)


@given(st.lists(METRICS, max_size=5), st.lists(st.sampled_from(["max-rss", "rate"]), unique=True))
def test_metrics_come_back_as_written(wanted: list[Metrics], more: list[str]) -> None:
    lines = ["---", "system-info:", "      cpus: 1", "metrics:"]
    for one in wanted:
        lines += [
            f"    - stressor: {one.stressor}",
            f"      bogo-ops: {one.ops}",
            *(f"      {name}: 1.5" for name in more),
            f"      wall-clock-time: {one.wall_s:.6f}",
            f"      user-time: {one.user_s:.6f}",
            f"      system-time: {one.system_s:.6f}",
            "",
        ]
    assert parse_metrics("\n".join([*lines, "..."])) == tuple(wanted)


@given(st.integers(0, len(WRITTEN) - 1), st.text(max_size=3))
def test_damaged_metrics_are_read_or_refused_never_worse(place: int, put: str) -> None:
    try:
        found = parse_metrics(WRITTEN[:place] + put + WRITTEN[place + len(put) :])
    except ValueError:
        return
    assert all(isinstance(one, Metrics) and one.ops >= 0 for one in found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "wrote none"),
        ("metrics:\n      bogo-ops: 1\n", "line 2"),
        (WRITTEN.replace("      bogo-ops: 50\n", ""), "bogo-ops of hdd is not a number"),
        (WRITTEN.replace("bogo-ops: 50", "bogo-ops: many"), "bogo-ops of hdd is not a number"),
        (WRITTEN.replace("0.004470", "-1"), "user-time of hdd is -1"),
        (WRITTEN.replace("0.004470", "inf"), "user-time of hdd is inf"),
        (WRITTEN.replace("      bogo-ops: 50\n", "      bogo-ops: 50\n" * 2), "bogo-ops: 50"),
    ],
)
def test_what_is_no_metrics_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_metrics(text)


@given(st.lists(STRESSORS, min_size=1, max_size=4, unique_by=lambda one: one.name), st.booleans())
def test_a_job_file_says_what_the_job_is(stressors: list[Stressor], parallel: bool) -> None:
    first, *lines = Job(tuple(stressors), 5, parallel=parallel).text().splitlines()
    assert first == ("run parallel" if parallel else "run sequential")
    for one in stressors:
        assert lines.pop(0) == f"{one.name} {one.instances}"
        if one.ops:
            assert lines.pop(0) == f"{one.name}-ops {one.ops}"
        for name in sorted(one.options):
            assert lines.pop(0).split() == [f"{one.name}-{name}", *one.options[name].split()]
    assert lines == []


def test_the_seed_and_the_time_are_passed_on(tmp_path: Path) -> None:
    words = arguments(tmp_path / "job", tmp_path / "y", Job(MIXES["service"], 2.5, seed=7))
    pairs = dict(itertools.pairwise(words))
    assert (pairs["--seed"], pairs["--timeout"]) == ("7", "3s")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Stressor("vm\ncpu"),
        lambda: Stressor("vm", options={"bytes": "1 M"}),
        lambda: Stressor("vm", 0),
        lambda: Job((), 5),
        lambda: Job(MIXES["service"], 0.5),
        lambda: Job(MIXES["service"], 5, seed=-1),
        lambda: Job((Stressor("vm"), Stressor("vm")), 5),
    ],
)
def test_impossible_jobs_are_refused(wrong: object) -> None:
    assert callable(wrong)
    with pytest.raises(ValueError, match=r"."):
        wrong()


needs_stress_ng = pytest.mark.skipif(
    not shutil.which("stress-ng"), reason="stress-ng is not installed"
)


@needs_stress_ng
def test_every_mix_is_taken_by_stress_ng_and_bounded_work_is_counted() -> None:
    for mix in MIXES.values():
        bounded = tuple(Stressor(one.name, 1, 3, one.options) for one in mix)  # whatever its own
        done = stress(Job(bounded, 60, seed=1))
        assert {one.stressor for one in done} == {one.name for one in mix}
        assert all(one.ops >= 3 for one in done)


def test_work_cut_short_is_refused() -> None:
    job = Job((Stressor("vm", ops=10), Stressor("cpu")), 5)
    done = Metrics("vm", 10, 1.0, 0.5, 0.5)
    check_done(job, (done,))
    with pytest.raises(WorkloadError, match="vm did 9 of 10 operations within 5 s"):
        check_done(job, (Metrics("vm", 9, 1.0, 0.5, 0.5),))
    with pytest.raises(WorkloadError, match="vm did 0 of 10"):
        check_done(job, ())


def test_a_job_takes_as_long_as_its_slowest_stressor() -> None:
    said = report(60, (Metrics("vm", 3, 1.5, 0.1, 0.2), Metrics("cpu", 4, 0.5, 0.1, 0.0)))
    assert (said["elapsed_ns"], said["operations"]) == (1_500_000_000, 7)


@needs_stress_ng
def test_too_little_time_for_the_work_is_one_line() -> None:
    with pytest.raises(WorkloadError, match=r"cpu did \d+ of 100000000 operations within 1 s"):
        stress(Job((Stressor("cpu", ops=10**8),), 1))


@needs_stress_ng
def test_a_led_mix_waits_for_the_parent() -> None:
    argv = [sys.executable, "-m", "workloads.stress", "--seconds", "1", "--stepwise"]
    started, line = run(argv, timeout=200, cwd=ROOT, data=b"\n").text().splitlines()
    assert started == "started"
    assert json.loads(line)["operations"] > 0
    gone = run(argv, timeout=60, cwd=ROOT, data=b"", check=False)
    assert gone.status == 1
    assert b"parent is gone" in gone.stderr


@needs_stress_ng
def test_what_stress_ng_refuses_is_one_line() -> None:
    with pytest.raises(WorkloadError, match=r"stress-ng ended with status \d+: "):
        stress(Job((Stressor("nonesuch"),), 1))


def test_the_job_can_be_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--mix", "builder", "--show"]) == 0
    assert capsys.readouterr().out == Job(MIXES["builder"], 10).text()
    with pytest.raises(SystemExit):
        main(["--seconds", "0"])


def test_it_runs_alone_by_its_path_and_as_a_module(tmp_path: Path) -> None:
    path = ROOT / "workloads" / "stress.py"
    by_path = run([sys.executable, path, "--help"], timeout=60, cwd=tmp_path)
    as_module = run([sys.executable, "-m", "workloads.stress", "--help"], timeout=60, cwd=ROOT)
    assert b"--mix" in by_path.stdout
    assert by_path.stdout == as_module.stdout


@needs_stress_ng
def test_alone_it_prints_one_json_line() -> None:
    argv = [sys.executable, "-m", "workloads.stress", "--mix", "service", "--seconds", "1"]
    (line,) = run(argv, timeout=200, cwd=ROOT).text().splitlines()
    assert {one["stressor"] for one in json.loads(line)["stressors"]} == {"cpu", "vm", "pipe"}
