"""The PSI suite's programs: their judgement on planted errors, their endings, real guests."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.errors import KernelFeatureMissing, WorkloadError
from hyperbox.harness.declarations import load_suite
from hyperbox.harness.lab.kernel_kit import kernel_kit
from hyperbox.harness.lab.snapshot import Snapshot
from hyperbox.harness.model import Perturbation, Suite
from hyperbox.harness.runs.output import parse_output
from hyperbox.linux.cgroup import cgroup_root
from hyperbox.linux.modules import load_module
from hyperbox.linux.pressure import Line, Pressure, Resource
from hyperbox.linux.swap import swap_areas
from hyperbox.memory.psi import PressureSample
from hyperbox.processes import run, spawn, stop
from suites.harness.storing import EROFS
from suites.program import SKIP_STATUS, Measured, run_program
from suites.psi.accuracy import ReadingCheck, Tally, judge
from suites.psi.arms import FastSwap, TunerProcess
from suites.psi.pressure_reduction import check_load, check_share, check_small_pages, of_mix
from suites.psi.reference import Moment, ReferenceRecording, total_is_right
from tests.guests import kept_guest
from workloads.stress import Metrics, report

ROOT = Path(__file__).parents[2]
KEY = ("memory", "some")
SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def suite() -> Suite:
    return load_suite(ROOT / "suites" / "psi" / "suite.toml")


# Reading the kernel's word


def moment(time_ns: int, total_us: int, avg10: float = 0.0) -> Moment:
    return Moment(time_ns, time_ns + 1000, {KEY: total_us}, {KEY: avg10})


@given(st.lists(st.integers(0, 50_000), min_size=2, max_size=40), st.data())
def test_recording_bounds_hold_the_truth(steps: list[int], data: st.DataObject) -> None:
    """Stall within each 50 ms may lie anywhere: the true share is always within bounds."""
    sums = [0]
    for step in steps:
        sums.append(sums[-1] + step)
    recording = ReferenceRecording([moment(i * 50_000_000, total) for i, total in enumerate(sums)])
    first = data.draw(st.integers(1, len(steps) - 1)) if len(steps) > 1 else 1
    end_index = data.draw(st.integers(first, len(steps) - 1)) if len(steps) > 1 else 1
    from_ns = first * 50_000_000 - data.draw(st.integers(1, 49_000_000))
    to_ns = end_index * 50_000_000 + data.draw(st.integers(2_000, 49_000_000))
    bounds = recording.share_bounds(KEY, from_ns, to_ns)
    assert bounds is not None
    at_start = data.draw(st.integers(sums[first - 1], sums[first]))
    at_end = data.draw(st.integers(sums[end_index], sums[end_index + 1]))
    true = (at_end - at_start) * 100_000 / (to_ns - from_ns)
    assert bounds[0] - 1e-9 <= true <= bounds[1] + 1e-9


def test_recording_that_does_not_reach_says_nothing() -> None:
    recording = ReferenceRecording([moment(0, 0), moment(SECOND, 5)])
    assert recording.share_bounds(KEY, -1, SECOND // 2) is None
    assert recording.share_bounds(KEY, SECOND // 2, 2 * SECOND) is None


@pytest.mark.parametrize(("value", "right"), [(9, False), (10, True), (12, True), (13, False)])
def test_total_must_lie_between_its_neighbours(value: int, right: bool) -> None:
    assert total_is_right(moment(0, 10), value, moment(9, 12), KEY) is right


# Judging the product: each kind of planted error is found


def judged(
    *, total_us: int = 500_000, boxcar: float = 5.0, replica: float = 5.0, line: bool = True
) -> Tally:
    """Judge a reading at 10 s of a steady 5 % stall, with the product's word as given."""
    recording = ReferenceRecording([moment(i * 50_000_000, i * 2500, 5.0) for i in range(204)])
    found = Pressure(Line(5.0, 0, 0, total_us), None)
    pressure: Mapping[Resource, Pressure] = {Resource.MEMORY: found} if line else {}
    check = ReadingCheck(
        before=moment(10 * SECOND - 2000, 499_999, 5.0),
        sample=PressureSample(10 * SECOND + 25_000_000, 0, 0.0, pressure),
        after=moment(10 * SECOND + 2000, 500_001, 5.0),
        boxcar={KEY: (boxcar, 0.1, 10.0)},
        replica={KEY: (replica, 1.0)},
    )
    tally = Tally()
    judge(check, recording, tally)
    return tally


def test_right_readings_are_no_deviation() -> None:
    tally = judged()
    assert (tally.readings, tally.averages, tally.deviations) == (1, 1, 0)
    assert tally.wrong == []


@pytest.mark.parametrize("total_us", [499_998, 500_002])
def test_total_off_by_a_microsecond_is_found(total_us: int) -> None:
    tally = judged(total_us=total_us)
    assert (tally.wrong_totals, tally.deviations, tally.worst_total_us) == (1, 1, 1)


@pytest.mark.parametrize("percent", [4.5, 5.5])
def test_wrong_average_is_found(percent: float) -> None:
    assert judged(boxcar=percent).wrong_averages == 1


def test_wrong_replica_is_found() -> None:
    assert judged(replica=6.5).wrong_replicas == 1


def test_line_that_the_product_lacks_is_found() -> None:
    assert judged(line=False).wrong_totals == 1


@pytest.mark.parametrize(("stall_us", "pages"), [(0, 10_000), (10_000_000, 0)])
def test_baseline_without_pressure_is_refused(stall_us: int, pages: int) -> None:
    with pytest.raises(WorkloadError, match="less than"):
        check_load({"memory_some_us": stall_us, "disk_swap_out": pages})


def test_compressed_swap_that_takes_more_than_its_share_is_refused() -> None:
    with pytest.raises(WorkloadError, match="its share is 0"):
        check_share(FastSwap("none"), 0.1)
    share = FastSwap("zram").share_mib
    check_share(FastSwap("zram"), share)
    with pytest.raises(WorkloadError, match=f"its share is {share}"):
        check_share(FastSwap("zram"), share + 0.1)
    check_share(FastSwap("zram", lenience_mib=0.5), share + 0.5)
    with pytest.raises(WorkloadError, match=f"its share is {share}"):
        check_share(FastSwap("zram", lenience_mib=0.5), share + 0.6)


def test_a_start_with_huge_pages_is_no_measurement() -> None:
    check_small_pages(0.0)
    with pytest.raises(WorkloadError, match="huge pages took 2 MiB"):
        check_small_pages(2.0)


def test_what_the_tuner_did_is_told_with_its_reasons() -> None:
    assert FastSwap("zram").decided() == []
    process = spawn([sys.executable, "-c", ""])
    process.wait(60)
    stop(process)
    said = [
        {"action": "prepare", "step": "fast-swap", "reason": "ahead of need"},
        {"action": "nothing", "step": "", "reason": "score 3.0"},
        {"action": "revert", "step": "page-cluster", "reason": "score 81.0 -> 82.0"},
    ]
    assert FastSwap("zram", None, TunerProcess(process, said)).decided() == [
        "prepare fast-swap: ahead of need",
        "revert page-cluster: score 81.0 -> 82.0",
    ]


def test_a_mix_counts_all_its_operations_and_its_slowest_stressor() -> None:
    vm, cpu = Metrics("vm", 300, 2.0, 0.1, 0.1), Metrics("cpu", 100, 1.0, 0.1, 0.1)
    metrics, notes = of_mix(report(600, (vm, cpu)))
    assert metrics == {"work_rate": 200.0}
    assert notes == {"seconds": {"vm": 2.0, "cpu": 1.0}}


# How programs end


def test_measured_numbers_are_the_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(lambda: Measured({"a": 1.5}, {"why": "x"})) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert json.loads(last) == {"metrics": {"a": 1.5}, "notes": {"why": "x"}}


def test_missing_feature_is_a_skip_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    def measure() -> Measured:
        raise KernelFeatureMissing("no zram here")

    assert run_program(measure) == SKIP_STATUS
    assert json.loads(capsys.readouterr().out) == {"skip": "no zram here"}


def test_a_machine_that_cannot_ask_its_kernel_is_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def measure() -> Measured:
        load_module("hyperbox_absent")
        raise AssertionError

    assert run_program(measure) == SKIP_STATUS
    capsys.readouterr()
    monkeypatch.setattr("hyperbox.processes._SEARCH_PATH", str(tmp_path))
    assert run_program(measure) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "modprobe is not installed (apt-get install" in captured.err


def test_an_image_that_is_not_there_is_an_error_with_the_remedy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("suites.harness.storing._DEVICES", tmp_path)

    def measure() -> Measured:
        with EROFS.set_up():
            raise AssertionError

    assert run_program(measure) == 1
    said = "error: this machine has no EROFS image on a memory disk (/dev/pmem*) (measure it in a "
    assert capsys.readouterr().err.startswith(said)


def test_failure_is_one_line_and_no_result(capsys: pytest.CaptureFixture[str]) -> None:
    def measure() -> Measured:
        raise WorkloadError("the walk fell over")

    assert run_program(measure) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "error: the walk fell over\n")


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_termination_undoes_and_repeated_signals_do_not_cut_it_short(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, pathlib, signal, sys, time\n"
        "from suites.program import run_program\n"
        "def measure():\n"
        "    try:\n"
        "        print('ready', flush=True); time.sleep(600)\n"
        "    finally:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        f"        pathlib.Path({str(tmp_path / 'undone')!r}).touch()\n"
        "sys.exit(run_program(measure))\n"
    )
    process = spawn(
        [sys.executable, program], environment={"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    finally:
        stop(process)
    assert (tmp_path / "undone").exists()


@pytest.mark.root
@pytest.mark.parametrize("name", ["psi.accuracy", "psi.monitor_cpu", "psi.pressure_reduction"])
def test_program_on_this_machine_measures_or_skips_and_leaves_nothing(
    suite: Suite, name: str
) -> None:
    if Path("/sys/module/null_blk").exists():
        pytest.skip("would swap on this machine; the guests below do")
    experiment = next(item for item in suite.experiments if item.id == name)
    argv = [word.replace("{arm}", experiment.arms[-1].id) for word in experiment.program]
    argv[0] = sys.executable
    root = cgroup_root()
    before = (swap_areas(), sorted(root.iterdir()), Path("/proc/sys/vm/swappiness").read_text())
    done = run(argv, timeout=300, environment={"PYTHONPATH": str(ROOT)}, cwd=ROOT, check=False)
    assert done.status in (0, SKIP_STATUS), done.stderr.decode()
    if done.status == SKIP_STATUS:
        assert json.loads(done.stdout.splitlines()[-1])["skip"]
    assert before == (
        swap_areas(),
        sorted(root.iterdir()),
        Path("/proc/sys/vm/swappiness").read_text(),
    )


# Real guests: what a fresh clone measures, and what is left of it

STATE = """
sort /proc/self/mountinfo | cut -d' ' -f5- ; tail -n +2 /proc/swaps
ls /sys/fs/cgroup /sys/block ; cat /sys/fs/cgroup/cgroup.subtree_control
cat /proc/sys/vm/swappiness /proc/sys/vm/page-cluster
"""


@pytest.fixture(scope="module")
def guest() -> Iterator[Snapshot]:
    # The oldest: every interface at its barest.
    with contextlib.closing(kept_guest(kernel_kit("5.10"), layers=["daemon"])) as made:
        yield made


@pytest.mark.vm
@pytest.mark.parametrize(
    ("name", "arm"),
    [
        ("psi.accuracy", "sampler"),
        ("psi.monitor_cpu", "monitor"),
        ("psi.pressure_reduction", "tuner"),
        ("psi.alternatives", "senpai"),
        ("psi.endpoint", "daemon"),
    ],
)
def test_program_in_a_guest_measures_what_is_declared_and_undoes_everything(
    suite: Suite, guest: Snapshot, name: str, arm: str
) -> None:
    experiment = next(item for item in suite.experiments if item.id == name)
    argv = [word.replace("{arm}", arm) for word in experiment.program]
    with guest.clone() as machine:
        before = machine.execute(["sh", "-c", STATE], timeout=60).stdout
        seeded = Perturbation(7).environment()
        done = machine.execute(argv, timeout=experiment.timeout_s, environment=seeded)
        after = machine.execute(["sh", "-c", STATE], timeout=60).stdout
    metrics, _ = parse_output(done, experiment)
    assert after.decode() == before.decode()
    if name == "psi.accuracy":
        assert metrics["deviations"] == 0
        assert metrics["averages"] > 0
    elif name == "psi.monitor_cpu":
        assert 0 < metrics["monitor_cpu"] < 1
    elif name == "psi.endpoint":
        assert metrics["deviations"] == 0
        assert metrics["memory_stall_us"] > 0
    else:
        assert metrics["disk_swap_out"] > 1 or arm == "tuner"  # which may need no disk at all
        assert (metrics["fast_swap_max"] > 0) is (arm == "tuner")


@pytest.mark.vm
def test_terminated_program_undoes_everything(suite: Suite, guest: Snapshot) -> None:
    script = f"""
{STATE.strip()} > /tmp/before
python3 -m suites.psi.pressure_reduction --arm zram_generator & program=$!
until grep -q zram /proc/swaps; do sleep 0.01; done
sleep 0.2; kill -TERM $program; wait $program; echo "status $?"
"""
    script = script.replace(STATE.strip(), "{ " + STATE.strip() + "\n}")
    script += "{ " + STATE.strip() + "\n} > /tmp/after; cmp /tmp/before /tmp/after && echo same\n"
    with guest.clone() as machine:
        done = machine.execute(["sh", "-c", script], timeout=300, start=Perturbation(7))
    assert done.stdout.decode().splitlines() == ["status 143", "same"], done.stderr.decode()


@pytest.mark.vm
def test_machine_that_swaps_already_is_an_error(suite: Suite, guest: Snapshot) -> None:
    script = (
        "modprobe zram num_devices=1 && echo 8M > /sys/block/zram0/disksize && "
        "mkswap /dev/zram0 > /dev/null && swapon /dev/zram0 && exec python3 -m suites.psi.accuracy"
    )
    experiment = suite.experiments[0]
    with guest.clone() as machine:
        done = machine.execute(["sh", "-c", script], timeout=300)
    with pytest.raises(WorkloadError, match="swaps already"):
        parse_output(done, experiment)
