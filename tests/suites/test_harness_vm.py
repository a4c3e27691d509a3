"""Determinism: each load, started alike in two clones, gives every number again."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperbox.harness.declarations import load_suite
from hyperbox.harness.lab.guest_image import project_image, root_image
from hyperbox.harness.lab.kernel_kit import kernel_kit
from hyperbox.harness.lab.machine import CommandResult
from hyperbox.harness.lab.qemu import find_qemu
from hyperbox.harness.lab.snapshot import Snapshot, boot_snapshot
from hyperbox.harness.lab.snapshot_cache import SnapshotCache
from hyperbox.harness.lab.vm_laboratory import hardware_for
from hyperbox.harness.model import Experiment, Lane, Perturbation
from hyperbox.harness.runs.output import parse_output
from suites.harness.work import LOADS

SUITE = load_suite(Path(__file__).parents[2] / "suites" / "harness" / "suite.toml")
START = Perturbation(seed=11, delay_ns=3_210_987, padding=321, noise_pages=99)

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module", params=["5.10", "7.3"])
def guest(request: pytest.FixtureRequest) -> Iterator[Snapshot]:
    kit = kernel_kit(request.param)
    hardware = hardware_for(kit, Lane.EXACT, root_image(), project_image())
    make = functools.partial(
        boot_snapshot,
        find_qemu(),
        hardware,
        kernel_config=kit.config.read_text(),
        prepare=lambda machine: None,
    )
    made = SnapshotCache().get(find_qemu(), hardware, (("harness determinism",),), make)
    yield made
    made.close()


def experiment_of(load: str) -> Experiment:
    return next(item for item in SUITE.experiments if item.id == f"harness.{load}")


def measured(guest: Snapshot, load: str) -> CommandResult:
    experiment = experiment_of(load)
    argv = [word.replace("{arm}", "base") for word in experiment.program]
    with guest.clone() as machine:
        return machine.execute(argv, timeout=experiment.timeout_s, start=START)


@pytest.mark.parametrize("load", LOADS)
def test_equal_starts_give_equal_numbers(guest: Snapshot, load: str) -> None:
    first, second = measured(guest, load), measured(guest, load)
    metrics, _ = parse_output(first, experiment_of(load))
    assert metrics["elapsed_ns"] > 0
    assert json.loads(first.stdout) == json.loads(second.stdout)
    assert (first.stdout, first.elapsed_ns) == (second.stdout, second.elapsed_ns)
    if load == "swap":  # that nothing was squeezed would repeat as well
        assert metrics["swap_in"] > 1000
        assert metrics["io_some_us"] > 0
