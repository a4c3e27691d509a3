"""The exact lane's promise: a snapshot made anew is the same machine, to the byte."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from hyperbox.harness.lab.guest_image import project_image, root_image
from hyperbox.harness.lab.kernel_kit import kernel_kit
from hyperbox.harness.lab.nameless import content
from hyperbox.harness.lab.qemu import GuestHardware, find_qemu
from hyperbox.harness.lab.snapshot import PreparationStep, Snapshot, boot_snapshot
from hyperbox.harness.lab.snapshot_cache import SnapshotCache, snapshot_key
from hyperbox.harness.lab.vm import VirtualMachine
from hyperbox.harness.lab.vm_laboratory import hardware_for
from hyperbox.harness.model import Lane, Perturbation

pytestmark = pytest.mark.vm

_STEP = ("sh", "-c", "head -c 1000000 /dev/urandom > /run/random")
_DOZE = """
import hashlib, time
times = []
for _ in range(40_000):
    time.sleep(0.00005)
    times.append(time.monotonic_ns())
print(times[-1] - times[0], hashlib.sha256(str(times).encode()).hexdigest())
"""
_LOOK = ("sh", "-c", "sha256sum /run/random; python3 -c 'print(id(object()))'")


@pytest.fixture(scope="module")
def oldest() -> GuestHardware:
    return hardware_for(kernel_kit("5.10"), Lane.EXACT, root_image(), project_image())


def make(hardware: GuestHardware) -> Snapshot:
    return boot_snapshot(find_qemu(), hardware, kernel_config="", prepare=PreparationStep(_STEP))


def memory_hash(snapshot: Snapshot) -> str:
    return hashlib.sha256(content(snapshot.ram)).hexdigest()


def test_a_kept_snapshot_is_used_and_one_made_anew_equals_it(
    oldest: GuestHardware, tmp_path: Path, no_leftovers: None
) -> None:
    made: list[Snapshot] = []

    def count() -> Snapshot:
        made.append(make(oldest))
        return made[-1]

    cache = SnapshotCache(tmp_path)
    first = cache.get(find_qemu(), oldest, (_STEP,), count)
    assert first.repeatability is not None
    assert first.repeatability.exact, first.repeatability.reason
    assert first.repeatability.canonical, first.repeatability.reason
    with first.clone() as machine:
        seen = machine.execute(_LOOK, timeout=60, start=Perturbation(3))
    hashed = memory_hash(first)
    first.close()

    again = cache.get(find_qemu(), oldest, (_STEP,), count)
    assert len(made) == 1
    assert memory_hash(again) == hashed
    assert again.repeatability == first.repeatability
    again.close()

    # What was changed is made anew ...
    (memory,) = tmp_path.glob("*/memory")
    with memory.open("r+b") as stream:
        stream.seek(100 << 20)
        stream.write(b"x")
    mended = cache.get(find_qemu(), oldest, (_STEP,), count)
    assert len(made) == 2
    # ... with the same bytes, random numbers and address layouts included.
    assert memory_hash(mended) == hashed
    with mended.clone() as machine:
        repeated = machine.execute(_LOOK, timeout=60, start=Perturbation(3))
    assert (repeated.stdout, repeated.elapsed_ns) == (seen.stdout, seen.elapsed_ns)
    mended.close()


def test_idleness_ends_at_the_same_instruction_every_time(snapshot: Snapshot) -> None:
    # Two threads of QEMU raced for each of the sleeps: one in 50,000 ended some ns late.
    seen = set()
    for _ in range(3):
        with snapshot.clone() as machine:
            done = machine.execute(["python3", "-c", _DOZE], timeout=120, start=Perturbation(5))
        seen.add((done.stdout, done.elapsed_ns))
    ((said, _),) = seen
    assert int(said.split()[0]) > 2_000_000_000


def test_perturbed_starts_differ_in_layout_and_time(snapshot: Snapshot) -> None:
    look = ("python3", "-c", "print(id(object()))")
    found: dict[int, set[tuple[bytes, int]]] = {}
    for seed in (1, 1, 2, 3):
        with snapshot.clone() as machine:
            start = Perturbation(seed, delay_ns=seed * 1000, padding=seed, noise_pages=seed)
            done = machine.execute(look, timeout=60, start=start)
        found.setdefault(seed, set()).add((done.stdout, done.elapsed_ns))
    assert all(len(numbers) == 1 for numbers in found.values())
    assert len({next(iter(numbers))[0] for numbers in found.values()}) == 3


def test_a_leap_at_any_stop_is_remembered(
    snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperbox.harness.lab.snapshot.TRIES", 1)

    def plant(machine: VirtualMachine) -> None:
        machine.prepare(["true"], timeout=60)
        machine.leapt = True  # as the command after a leap reports it

    with contextlib.closing(snapshot.derive(plant)) as child:
        assert child.repeatability is not None
        assert child.repeatability.exact
        assert not child.repeatability.canonical
        assert "leapt" in child.repeatability.reason
        with contextlib.closing(child.derive(PreparationStep(("true",)))) as grandchild:
            assert grandchild.repeatability is not None
            assert not grandchild.repeatability.canonical


def test_least_used_snapshots_make_room(
    hardware: GuestHardware, snapshot: Snapshot, tmp_path: Path
) -> None:
    places = []
    for number in range(3):
        place = tmp_path / f"old{number}"
        place.mkdir()
        (place / "memory").write_bytes(bytes(1 << 20))
        (place / "snapshot.json").write_text(json.dumps({}))
        places.append(place)
    SnapshotCache(tmp_path, limit=5 << 19)._make_room("other")
    assert sum(place.exists() for place in places) == 2


def test_key_depends_on_what_decides_the_content(hardware: GuestHardware) -> None:
    base = snapshot_key(find_qemu(), hardware, (("a",),))
    assert snapshot_key(find_qemu(), hardware, (("b",),)) != base
    assert snapshot_key(find_qemu(), hardware, (("a",),)) == base
    for changes in ({"memory": 1 << 30}, {"processors": 2}, {"mitigations": False}):
        other = dataclasses.replace(hardware, **changes)
        assert snapshot_key(find_qemu(), other, (("a",),)) != base
