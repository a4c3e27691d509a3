"""The sampler on planted and real files, and the monitor as a process."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import pytest

import hyperbox
from hyperbox.linux.pressure import (
    PROC_PRESSURE,
    PressureFile,
    PressureMissing,
    Resource,
    StallKind,
    system_files,
)
from hyperbox.memory import monitor
from hyperbox.memory.psi import Sampler, watch
from hyperbox.processes import run

has_pressure = pytest.mark.skipif(
    not (PROC_PRESSURE / "memory").exists(), reason="this kernel has no pressure files"
)


class Planted:
    """A memory pressure file with a total that the test sets."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.say(0)

    def say(self, total_us: int) -> None:
        fields = f"avg10=0.00 avg60=0.00 avg300=0.00 total={total_us}"
        self.path.write_text(f"some {fields}\nfull {fields}\n")

    def sampler(self, history: int = 100) -> Sampler:
        return Sampler([PressureFile(Resource.MEMORY, self.path)], history=history)


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    return Planted(tmp_path / "memory")


def test_ring_keeps_the_last_samples(planted: Planted) -> None:
    with planted.sampler() as sampler:
        for total in range(130):
            planted.say(total)
            sampler.sample()
        kept = [sample.line(Resource.MEMORY, StallKind.SOME) for sample in sampler.history]
    assert [line.total_us for line in kept if line] == list(range(30, 130))


def test_history_is_configurable_and_at_least_one(planted: Planted) -> None:
    with planted.sampler(history=3) as sampler:
        for _ in range(5):
            sampler.sample()
        assert len(sampler.history) == 3
    with pytest.raises(ValueError, match="history"):
        Sampler([], history=0)


def test_report_has_the_names_of_the_endpoint(planted: Planted) -> None:
    planted.say(1234)
    with planted.sampler() as sampler:
        sampler.sample()
        report = sampler.report()
    assert report["some_memory_us"] == report["full_memory_us"] == 1234
    assert report["samples"] == 1
    assert report["avg10"] == {
        "some_memory": {"kernel": 0.0, "boxcar": None},
        "full_memory": {"kernel": 0.0, "boxcar": None},
    }
    assert json.loads(json.dumps(report)) == report


def test_no_average_without_two_samples_and_none_of_an_absent_line(planted: Planted) -> None:
    with planted.sampler() as sampler:
        assert sampler.replica(Resource.MEMORY, StallKind.SOME) is None
        assert sampler.boxcar(Resource.MEMORY, StallKind.SOME) is None
        sampler.sample()
        sampler.sample()
        assert sampler.boxcar(Resource.MEMORY, StallKind.SOME) is not None
        assert sampler.boxcar(Resource.IRQ, StallKind.FULL) is None


def test_watch_takes_the_count_and_stops_when_told(planted: Planted) -> None:
    seen: list[int] = []
    stop = threading.Event()

    def on_sample(sampler: Sampler) -> None:
        seen.append(len(sampler.history))
        if len(seen) == 5:
            stop.set()

    with planted.sampler() as sampler:
        watch(sampler, on_sample, interval_s=0.001, count=3)
        assert seen == [1, 2, 3]
        watch(sampler, on_sample, interval_s=0.001, stop=stop)
    assert len(seen) == 5
    with pytest.raises(ValueError, match="interval"):
        watch(sampler, on_sample, interval_s=0.0)


def test_watch_does_not_read_after_stop(planted: Planted) -> None:
    stop = threading.Event()
    stop.set()
    with planted.sampler() as sampler:
        watch(sampler, lambda _: pytest.fail("sampled"), stop=stop)


def test_sampler_without_pressure_says_why(tmp_path: Path) -> None:
    with pytest.raises(PressureMissing, match="absent"):
        Sampler(system_files(tmp_path))


@has_pressure
def test_real_readings_lie_between_two_raw_ones() -> None:
    def raw() -> int:
        return int((PROC_PRESSURE / "cpu").read_text().splitlines()[0].rpartition("=")[2])

    with Sampler() as sampler:
        for _ in range(50):
            before = raw()
            line = sampler.sample().line(Resource.CPU, StallKind.SOME)
            assert line is not None
            assert before <= line.total_us <= raw()


@has_pressure
def test_monitor_as_a_process_prints_one_object_a_sample() -> None:
    package = Path(hyperbox.__file__).parent.parent
    argv = [sys.executable, "-m", "hyperbox.memory.monitor", "--interval", "0.01", "--count", "3"]
    done = run(argv, timeout=60, environment={"PYTHONPATH": str(package)})
    reports = [json.loads(line) for line in done.text().splitlines()]
    assert [report["samples"] for report in reports] == [1, 2, 3]
    assert {"some_cpu_us", "some_memory_us", "full_memory_us"} <= reports[0].keys()


@pytest.mark.parametrize("arguments", [["--interval", "0"], ["--history", "0"]])
def test_monitor_refuses_nonsense(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        monitor.main(arguments)
    assert caught.value.code == 2
