"""Determinism: each load, started alike in two clones, gives every number again."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperbox.harness.declarations import load_suite
from hyperbox.harness.lab.kernel_kit import kernel_kit
from hyperbox.harness.lab.machine import CommandResult
from hyperbox.harness.lab.snapshot import Snapshot
from hyperbox.harness.model import Experiment, Perturbation
from hyperbox.harness.runs.output import parse_output
from suites.harness.work import LOADS
from tests.guests import kept_guest

SUITE = load_suite(Path(__file__).parents[2] / "suites" / "harness" / "suite.toml")
START = Perturbation(seed=11, delay_ns=3_210_987, padding=321, noise_pages=99)

pytestmark = pytest.mark.vm


# What the probe of every snapshot does as well, on every kernel: the newest shows the rest.
PROBED = ("processor", "system_calls", "processes", "tmpfs")


@pytest.fixture(scope="module")
def newest() -> Iterator[Snapshot]:
    with contextlib.closing(kept_guest(kernel_kit("7.3"))) as made:
        yield made


@pytest.fixture(scope="module")
def oldest() -> Iterator[Snapshot]:
    with contextlib.closing(kept_guest(kernel_kit("5.10"))) as made:
        yield made


def experiment_of(load: str) -> Experiment:
    return next(item for item in SUITE.experiments if item.id == f"harness.{load}")


def measured(guest: Snapshot, load: str) -> CommandResult:
    experiment = experiment_of(load)
    argv = [word.replace("{arm}", "base") for word in experiment.program]
    with guest.clone() as machine:
        return machine.execute(argv, timeout=experiment.timeout_s, start=START)


@pytest.mark.parametrize("load", LOADS)
def test_equal_starts_give_equal_numbers(newest: Snapshot, load: str) -> None:
    check_equal(newest, load)


@pytest.mark.parametrize("load", [load for load in LOADS if load not in PROBED])
def test_equal_starts_give_equal_numbers_on_the_oldest_kernel(oldest: Snapshot, load: str) -> None:
    check_equal(oldest, load)


def check_equal(guest: Snapshot, load: str) -> None:
    assert guest.repeatability is not None
    assert guest.repeatability.exact, guest.repeatability.reason
    first, second = measured(guest, load), measured(guest, load)
    metrics, _ = parse_output(first, experiment_of(load))
    assert metrics["elapsed_ns"] > 0
    assert json.loads(first.stdout) == json.loads(second.stdout)
    assert (first.stdout, first.elapsed_ns) == (second.stdout, second.elapsed_ns)
    if load == "swap":  # that nothing was squeezed would repeat as well
        assert metrics["swap_in"] > 1000
        assert metrics["io_some_us"] > 0
