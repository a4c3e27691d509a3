"""A run as the engine would leave it: three kernels, all outcomes, decided by the real gates."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from hyperbox.harness.model import (
    Arm,
    Cell,
    Experiment,
    Gate,
    Lane,
    Metric,
    Rule,
    Sample,
    Verdict,
)
from hyperbox.harness.report.data import CellData, RunData
from hyperbox.harness.report.page import html_page
from hyperbox.harness.verdicts.gates import broken, decide, skipped
from hyperbox.processes import run as run_program

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")

STORM = Experiment(
    id="psi.swap_storm",
    suite="psi",
    title="Swap storm under a memory limit",
    arms=(Arm("off", "Tuner off"), Arm("on", "Tuner on")),
    metrics=(
        Metric("some_us", "Memory pressure, some", "us", "lower"),
        Metric("full_us", "Memory pressure, full", "us", "lower"),
        Metric("pswpout", "Pages swapped out", "pages", "lower"),
        Metric("work_rate", "Work done", "1/s", "higher"),
        Metric("refaults", "Refaults", "pages", "neither"),
    ),
    program=("python3", "workloads/storm.py", "--arm={arm}"),
    blocks=12,
)
READINGS = Experiment(
    id="psi.readings",
    suite="psi",
    title="Readings against the kernel",
    arms=(Arm("monitor", "Monitor"),),
    metrics=(
        Metric("mismatches", "Readings that differ", "1", "lower"),
        Metric("cpu_percent", "CPU of the monitor", "%", "lower"),
    ),
    program=("python3", "workloads/readings.py"),
)
GATES = (
    Gate(
        "psi.accuracy",
        "Readings equal the kernel's",
        "no reading differs",
        "psi.readings",
        "mismatches",
        Rule.COUNT,
        0.0,
        "monitor",
    ),
    Gate(
        "psi.monitor_cpu",
        "The monitor is cheap",
        "< 1 % CPU",
        "psi.readings",
        "cpu_percent",
        Rule.AT_MOST,
        1.0,
        "monitor",
    ),
    Gate(
        "psi.pressure_reduction",
        "Less memory pressure under high load",
        "5-15 % less memory pressure",
        "psi.swap_storm",
        "some_us",
        Rule.REDUCES_AT_LEAST,
        0.05,
        "on",
        "off",
        0.15,
    ),
    Gate(
        "psi.swap_reduction",
        "Less swap",
        "5-15 % fewer pages swapped out",
        "psi.swap_storm",
        "pswpout",
        Rule.REDUCES_AT_LEAST,
        0.05,
        "on",
        "off",
        0.15,
    ),
    Gate(
        "psi.no_degradation",
        "No performance loss",
        "work per second at most 2 % lower",
        "psi.swap_storm",
        "work_rate",
        Rule.NON_INFERIOR,
        0.02,
        "on",
        "off",
    ),
)
# Ratio tuned/baseline of (some, full, pswpout, work) on each kernel.
EFFECTS = {
    "5.10": (0.17, 0.21, 0.90, 1.31),
    "6.12": (0.89, 0.93, 0.958, 1.004),
    "7.3": (0.93, 0.95, 0.985, 0.96),
}


def storm_samples(kernel: str, blocks: int) -> tuple[Sample, ...]:
    noise = random.Random(kernel)
    base = {"some_us": 61.6e6, "full_us": 44.1e6, "pswpout": 16042.0, "work_rate": 812.5}
    samples = []
    for block in range(blocks):
        first = noise.choice(("off", "on"))
        for metric, ratio in zip(base, EFFECTS[kernel], strict=True):
            start = base[metric] * noise.gauss(1, 0.004)
            for arm in ("off", "on"):
                value = start * noise.gauss(1, 0.006) * (ratio if arm == "on" else 1)
                samples.append(Sample(block, int(arm != first), arm, metric, value))
        for arm in ("off", "on"):
            samples.append(Sample(block, int(arm != first), arm, "refaults", 3000.0 + block))
    return tuple(samples)


def readings_samples(kernel: str) -> tuple[Sample, ...]:
    noise = random.Random(kernel + "r")
    samples = []
    for block in range(8):
        samples.append(Sample(block, 0, "monitor", "mismatches", 0.0))
        samples.append(Sample(block, 0, "monitor", "cpu_percent", noise.gauss(0.031, 0.0006)))
    return tuple(samples)


def cell(kernel: str, experiment: Experiment, samples: tuple[Sample, ...]) -> CellData:
    attempt: Mapping[str, object] = {
        "number": 1,
        "status": "measured",
        "reason": "",
        "started": "2030-01-01T00:03:11Z",
        "seconds": 74.25,
        "retries": 0,
    }
    return CellData(Cell(kernel, experiment.id, Lane.EXACT), experiment, samples, (attempt,))


def make_run(directory: Path) -> RunData:
    cells = []
    verdicts: list[Verdict] = []
    for kernel in EFFECTS:
        for experiment, samples in (
            (READINGS, readings_samples(kernel)),
            (STORM, storm_samples(kernel, 12)),
        ):
            cells.append(cell(kernel, experiment, samples))
            verdicts += [
                decide(gate, experiment, kernel, Lane.EXACT, samples)
                for gate in GATES
                if gate.experiment == experiment.id
            ]
    return RunData(
        run_id="20300101T000000-4f2a",
        created="2030-01-01T00:00:00Z",
        hyperbox_version="0.1.0",
        lane=Lane.EXACT,
        seed=1,
        environment={
            "host": {"cpus": 2, "kernel": "6.18.3"},
            "qemu": {"version": "7.2.11", "accelerator": "tcg", "command": "qemu-system-x86_64 -x"},
            "load": [0.5, 1.25],
        },
        kernels=(
            {
                "label": "5.10",
                "release": "5.10.0-36-cloud-amd64",
                "version": "5.10.244-1",
                "sha256": "ab" * 32,
                "remarks": ["MGLRU absent"],
            },
            {
                "label": "6.12",
                "release": "6.12.48+deb13-cloud-amd64",
                "version": "6.12.48-1",
                "sha256": "cd" * 32,
                "remarks": [],
            },
            {
                "label": "7.3",
                "release": "7.3.2+deb14-cloud-amd64",
                "version": "7.3.2-1~bpo13+1",
                "sha256": "ef" * 32,
                "remarks": ["locked 7.3.1-1 has left the mirror: newest of its series taken"],
            },
        ),
        cells=tuple(cells),
        gates=GATES,
        verdicts=tuple(verdicts),
        reproduce="hyperbox validate --kernels 5.10,6.12,7.3 --seed 1 --lane exact",
        directory=directory,
    )


def make_troubled_run(directory: Path) -> RunData:
    """SKIP, ERROR, untested, hostile text: what must be shown and not break a page."""
    run = make_run(directory)
    hostile = "<b>& \x1b[31m|panic|\x00 \"quoted\" 'it' `tick`"
    keep = [v for v in run.verdicts if v.kernel == "6.12" or v.gate == "psi.accuracy"]
    troubled = [
        skipped(GATES[1], "5.10", Lane.EXACT, "no /proc/pressure: boot with psi=1"),
        broken(GATES[2], "7.3", Lane.EXACT, hostile),
    ]
    failed: Mapping[str, object] = {
        "number": 1,
        "status": "failed",
        "reason": hostile,
        "seconds": None,
        "fingerprint": "shrink_lruvec+0x1f",
    }
    cells = tuple(
        replace(c, samples=(), attempts=(failed,))
        if c.cell.kernel == "7.3" and c.experiment is STORM
        else c
        for c in run.cells
    )
    return replace(run, cells=cells, verdicts=(*keep, *troubled))


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def troubled_run(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    return make_troubled_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def empty_run(run: RunData) -> RunData:
    return replace(run, environment={}, kernels=(), cells=(), gates=(), verdicts=())


@pytest.fixture(scope="session")
def small_run(run: RunData) -> RunData:
    """One gate of one kernel: two figures and a heat map, quick to draw."""
    verdicts = tuple(v for v in run.verdicts if (v.gate, v.kernel) == ("psi.accuracy", "5.10"))
    return replace(
        run,
        kernels=run.kernels[:1],
        cells=run.cells[:1],
        gates=run.gates[:1],
        verdicts=verdicts,
    )


@pytest.fixture(scope="session")
def page_of() -> Callable[[RunData], str]:
    """Draw each run's page once."""
    pages: dict[int, str] = {}

    def drawn(run: RunData) -> str:
        if id(run) not in pages:
            pages[id(run)] = html_page(run)
        return pages[id(run)]

    return drawn


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Chromium without a window, a network or a profile; return what it logged."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    profile = tmp_path_factory.mktemp("chromium")

    def opened(page: Path, *options: str) -> str:
        argv = [CHROMIUM, "--headless=new", "--disable-gpu", "--hide-scrollbars"]
        argv += ["--enable-logging=stderr", f"--user-data-dir={profile}"]
        argv += ["--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND"]
        if os.geteuid() == 0:
            argv.append("--no-sandbox")  # chromium refuses to sandbox for root
        done = run_program(
            [*argv, *options, page.as_uri()], timeout=120, environment={"HOME": str(profile)}
        )
        return done.stderr.decode(errors="replace") + done.stdout.decode(errors="replace")

    return opened
