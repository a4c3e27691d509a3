"""The engine on real guests: measured, crashed, skipped, and nothing left behind."""

from __future__ import annotations

import concurrent.futures
import contextlib
import re
from dataclasses import replace
from pathlib import Path

import pytest

from hyperbox.errors import ConfigError
from hyperbox.harness.declarations import parse_suite
from hyperbox.harness.lab.kernel_kit import kernel_kit
from hyperbox.harness.lab.vm_laboratory import VmLaboratory, choose_lane
from hyperbox.harness.model import Outcome
from hyperbox.harness.report.markdown import markdown
from hyperbox.harness.runs.attempt import AttemptState
from hyperbox.harness.runs.engine import run_plan
from hyperbox.harness.runs.ingredients import check_unchanged_since
from hyperbox.harness.runs.loading import load_run
from hyperbox.harness.runs.plan import Plan, make_plan
from hyperbox.harness.runs.store import RunStore

_WORK = """
import json, os, sys
count = 20_000 if sys.argv[1] == "off" else 10_000
total = sum(range(count + len(os.environ["HYPERBOX_PADDING"]) % 7))
print(json.dumps({"metrics": {"work": count}}))
"""
_PANIC = "import pathlib; pathlib.Path('/proc/sysrq-trigger').write_text('c')"
_TAINT = f"open('/proc/sys/kernel/tainted', 'w').write('64'){_WORK}"
_EATEN = (
    "import os; group = '/sys/fs/cgroup/small'; "
    "open('/sys/fs/cgroup/cgroup.subtree_control', 'w').write('+memory'); os.mkdir(group); "
    "open(f'{group}/memory.max', 'w').write('16M'); "
    "open(f'{group}/cgroup.procs', 'w').write(str(os.getpid())); x = bytes(1) * (64 << 20)"
)
_STEPS = f"import time; time.sleep(0.5){_WORK}"
_WIDE = f"""
import os, re
assert os.cpu_count() == 2
assert int(re.search(r"MemTotal: +(\\d+)", open("/proc/meminfo").read())[1]) < 512 << 10
assert "mitigations=off" in open("/proc/cmdline").read()
{_WORK}"""
_SKIP = """print('{"skip": "this kernel cannot"}'); raise SystemExit(77)"""


def _experiment(name: str, program: str) -> dict[str, object]:
    return {
        "id": f"demo.{name}",
        "title": name,
        "program": ["python3", "-c", program, "{arm}"],
        "blocks": 8,
        "arms": [{"id": "off", "title": "off"}, {"id": "on", "title": "on"}],
        "metrics": [{"id": "work", "title": "Work", "unit": "1"}],
    }


def _gate(name: str) -> dict[str, object]:
    facts = {"experiment": f"demo.{name}", "metric": "work", "arm": "on", "baseline": "off"}
    rule = {"rule": "reduces_at_least", "margin": 0.05}
    return {"id": f"demo.{name}.less", "title": name, "target": "less", **facts, **rule}


def _store(directory: Path, plan: Plan) -> RunStore:
    asked = {"names": [], "kernels": ["6.12"], "modules": None, "blocks": None, "suites": None}
    return RunStore.create(
        directory,
        plan,
        target="vm",
        asked={**asked, "allow_host_changes": False},
        versions={"hyperbox": "0"},
        environment={},
    )


@pytest.mark.vm
def test_guests_are_measured_and_a_panic_costs_its_own_cell_only(
    tmp_path: Path, no_leftovers: None
) -> None:
    programs = {"work": _WORK, "panic": _PANIC, "skip": _SKIP, "taint": _TAINT, "eaten": _EATEN}
    asked = {"memory_mib": 512, "processors": 2, "mitigations": False}
    wide = {**_experiment("wide", _WIDE), "default": False, "machine": asked, "blocks": 1}
    one_block = {**_gate("wide"), "rule": "count", "margin": 10_000}  # decides
    del one_block["baseline"]
    suite = parse_suite(
        {
            "id": "demo",
            "title": "Demo",
            "experiment": [*(_experiment(*program) for program in programs.items()), wide],
            "gate": [*(_gate(name) for name in programs), one_block],
        },
        Path("suite.toml"),
    )
    kits = [kernel_kit("6.12")]
    lane = choose_lane("fast", kits)
    plan = make_plan([suite], names=["demo"], kernels=["6.12"], lane=lane.lane, seed=1)
    store = _store(tmp_path / "run", plan)
    with (
        contextlib.closing(VmLaboratory(kits, lane=lane)) as laboratory,
        concurrent.futures.ThreadPoolExecutor(2) as executor,
    ):
        run_plan(plan, laboratory, store, executor)
        check_unchanged_since(plan, store, laboratory)
    rebuilt = [replace(kits[0], build="0" * 64)]
    with contextlib.closing(VmLaboratory(rebuilt, lane=lane)) as laboratory:
        changed = rf"since 6\.12--demo\.work--fast .*: kernel \({kits[0].build[:12]} -> 0{{12}}\)$"
        with pytest.raises(ConfigError, match=changed):
            check_unchanged_since(plan, store, laboratory)

    run = load_run(store.directory)
    outcomes = {verdict.gate: verdict.outcome for verdict in run.verdicts}
    assert outcomes == {
        "demo.work.less": Outcome.PASS,
        "demo.panic.less": Outcome.ERROR,
        "demo.skip.less": Outcome.SKIP,
        "demo.taint.less": Outcome.ERROR,
        "demo.eaten.less": Outcome.ERROR,
        "demo.wide.less": Outcome.PASS,
    }
    machines = [cell.environment for cell in run.cells if cell.samples]
    assert [machine["cpus"] for machine in machines] == [1, 2]
    assert ["mitigations" in str(machine["commandline"]) for machine in machines] == [False, True]
    assert "work on 6.12\n" in markdown(run)
    assert "wide on 6.12 with 2 processors\n" in markdown(run)
    panicked = store.records(plan.cells()[1])
    assert [record.state for record in panicked] == [AttemptState.FAILED, AttemptState.FAILED]
    assert panicked[0].document["error"] == "GuestCrash"
    assert "sysrq" in panicked[0].document["fingerprint"]
    assert "Kernel panic" in (panicked[0].directory / "serial.log").read_text()
    tainted = store.records(plan.cells()[3])[0]
    assert tainted.document["error"] == "KernelComplaint"
    assert tainted.document["fingerprint"] == "taint: U"
    assert tainted.document["environment"]["guest"]["taint"] == "U"
    assert tainted.samples() == ()
    (eaten,) = store.records(plan.cells()[4])
    assert eaten.document["error"] == "WorkloadError"
    assert "emory cgroup out of memory: Killed process" in eaten.document["reason"]
    worked = store.latest(plan.cells()[0])
    assert worked is not None
    assert "Linux version 6.12" in (worked.directory / "dmesg.txt").read_text()
    assert "CONFIG_PSI=y" in (worked.directory / "kernel.config").read_text()
    assert worked.document["warnings"] == []
    assert "erofs" in worked.document["environment"]["guest"]["modules"]
    assert worked.document["environment"]["host_load"].keys() == {"start", "end"}
    for block in worked.document["blocks"]:
        assert block["run_delay_seconds"].keys() == block["cpu_seconds"].keys()
        assert min(block["cpu_seconds"].values()) > 0
        # Thousands of wake-ups take some nanoseconds each, where the kernel counts them.
        counted = Path("/proc/self/schedstat").exists()
        assert all((waited > 0) is counted for waited in block["run_delay_seconds"].values())
    assert run.kernels[0]["sha256"] == kits[0].sha256


@pytest.mark.vm
def test_guests_whose_steps_add_up_to_too_much_are_ended(
    tmp_path: Path, no_leftovers: None
) -> None:
    """Every command keeps its limit, and the guest idles: only the cell's watchdog can tell."""
    steps = {**_experiment("steps", _STEPS), "blocks": 10_000, "limit_s": 25}
    two = {**_experiment("work", _WORK), "blocks": 2}
    data = {"id": "demo", "title": "Demo", "experiment": [steps, two], "gate": [_gate("work")]}
    suite = parse_suite(data, Path("suite.toml"))
    kits = [kernel_kit("6.12")]
    lane = choose_lane("fast", kits)
    plan = Plan(("6.12",), lane.lane, suite.experiments, suite.gates, seed=1)
    store = _store(tmp_path / "run", plan)
    with (
        contextlib.closing(VmLaboratory(kits, lane=lane)) as laboratory,
        concurrent.futures.ThreadPoolExecutor(2) as executor,
    ):
        laboratory.source("6.12", suite.experiments[0], lane.lane)  # the boot is not the plant
        run_plan(plan, laboratory, store, executor)
    (overdue,), (worked,) = (store.records(cell) for cell in plan.cells())
    assert overdue.document["error"] == "CellTimeout"
    assert overdue.document["fingerprint"] == "cell overdue: measuring"
    first = re.match(r"\[ *(\d+\.\d{6})\] ", (overdue.directory / "serial.log").read_text())
    assert first is not None
    assert float(first[1]) < 10  # the console from its boot on, whatever a quiet kernel says first
    assert len(overdue.samples()) == 2 * len(overdue.document["blocks"]) > 0
    assert worked.state is AttemptState.MEASURED
