"""A kept snapshot is used as it was made, or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hyperbox.harness.lab.guest_image import project_image, root_image
from hyperbox.harness.lab.kernel_kit import kernel_kit
from hyperbox.harness.lab.nameless import content, in_memory
from hyperbox.harness.lab.qemu import GuestHardware, Qemu, find_qemu
from hyperbox.harness.lab.snapshot import Repeatability, Snapshot, boot_snapshot
from hyperbox.harness.lab.snapshot_cache import SnapshotCache
from hyperbox.harness.lab.vm_laboratory import hardware_for
from hyperbox.harness.model import Lane

_QEMU = Qemu(Path("/bin/false"), (7, 2, 0), "0" * 64)
_SIZE = 5 << 20
_ZEROS, _DATA = 100, 3 << 20  # offsets in its memory


@pytest.fixture
def hardware(tmp_path: Path) -> GuestHardware:
    for name in ("vmlinuz", "initramfs", "image"):
        (tmp_path / name).write_text(name)
    return GuestHardware(
        Lane.FAST, tmp_path / "vmlinuz", tmp_path / "initramfs", (tmp_path / "image",)
    )


def _make(hardware: GuestHardware) -> Snapshot:
    """Return what looks like a snapshot: nothing here restores it."""
    ram, state = in_memory("ram"), in_memory("state")
    os.ftruncate(ram.fileno(), _SIZE)
    os.pwrite(ram.fileno(), b"memory" * 1000, _DATA)
    os.pwrite(ram.fileno(), b"end", _SIZE - 3)
    state.write(b"device state")
    made = Snapshot(
        _QEMU, hardware, ram=ram, state=state, kernel_config="CONFIG_X=y\n", console="booted\n"
    )
    made.repeatability = Repeatability(False, False, {}, "not exact")
    return made


def _flip(path: Path, offset: int) -> None:
    with path.open("r+b") as stream:
        stream.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
        (byte,) = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte ^ 1]))


def _resize(path: Path, by: int) -> None:
    os.truncate(path, path.stat().st_size + by)


def _inside(path: Path, text: bytes) -> None:
    _flip(path, path.read_bytes().index(text))


_DAMAGES: dict[str, Callable[[Path], object]] = {
    "memory's first byte": lambda place: _flip(place / "memory", 0),
    "memory's data": lambda place: _flip(place / "memory", _DATA + 7),
    "memory's last byte": lambda place: _flip(place / "memory", -1),
    "a hole of the memory": lambda place: _flip(place / "memory", _ZEROS),
    "a shorter memory": lambda place: _resize(place / "memory", -1),
    "a longer memory": lambda place: _resize(place / "memory", 1 << 20),
    "no memory": lambda place: (place / "memory").unlink(),
    "state": lambda place: _flip(place / "state", 3),
    "a shorter state": lambda place: _resize(place / "state", -1),
    "console": lambda place: _inside(place / "snapshot.json", b"booted"),
    "configuration": lambda place: _inside(place / "snapshot.json", b"CONFIG_X"),
    "digests": lambda place: _inside(place / "snapshot.json", b'"parts"'),
    "no facts": lambda place: (place / "snapshot.json").unlink(),
    "facts that are not facts": lambda place: (place / "snapshot.json").write_text("[]"),
}


@pytest.fixture
def kept(hardware: GuestHardware, tmp_path: Path) -> Path:
    """Return the directory of a kept snapshot."""
    cache = SnapshotCache(tmp_path / "kept")
    cache.get(_QEMU, hardware, (("step",),), lambda: _make(hardware)).close()
    (place,) = (path for path in (tmp_path / "kept").iterdir() if path.is_dir())
    return place


class _Counted:
    """Makes snapshots and counts them."""

    def __init__(self, make: Callable[[], Snapshot]) -> None:
        self._make = make
        self.made = 0

    def __call__(self) -> Snapshot:
        self.made += 1
        return self._make()


@pytest.mark.parametrize("damage", _DAMAGES)
def test_what_was_changed_is_made_again(hardware: GuestHardware, kept: Path, damage: str) -> None:
    _DAMAGES[damage](kept)
    make = _Counted(lambda: _make(hardware))
    again = SnapshotCache(kept.parent).get(_QEMU, hardware, (("step",),), make)
    assert make.made == 1
    assert content(again.ram)[_DATA : _DATA + 6] == b"memory"
    assert content(again.state) == b"device state"
    assert again.console == "booted\n"
    again.close()


def test_a_snapshot_in_the_place_of_another_is_made_again(
    hardware: GuestHardware, kept: Path
) -> None:
    cache, make = SnapshotCache(kept.parent), _Counted(lambda: _make(hardware))
    cache.get(_QEMU, hardware, (("other",),), make).close()
    (place,) = (path for path in kept.parent.iterdir() if path.is_dir() and path != kept)
    for path in kept.iterdir():
        path.replace(place / path.name)
    cache.get(_QEMU, hardware, (("other",),), make).close()
    assert make.made == 2


@pytest.mark.vm
def test_the_fast_lane_uses_a_snapshot_that_works_and_makes_one_that_does_not_again(
    tmp_path: Path,
) -> None:
    kit, qemu, cache = kernel_kit("6.12"), find_qemu(), SnapshotCache(tmp_path)
    hardware = hardware_for(kit, Lane.FAST, root_image(), project_image())
    cache.get(qemu, hardware, (), lambda: _make(hardware)).close()  # whole, and no guest
    boot = _Counted(
        lambda: boot_snapshot(qemu, hardware, kernel_config="", prepare=lambda machine: None)
    )
    cache.get(qemu, hardware, (), boot).close()
    assert boot.made == 1
    (memory,) = tmp_path.glob("*/memory")
    with memory.open("rb") as source, (tmp_path / "copy").open("wb") as target:
        shutil.copyfileobj(source, target)  # a copy that fills the holes
    (tmp_path / "copy").replace(memory)
    with contextlib.closing(cache.get(qemu, hardware, (), boot)) as again, again.clone() as machine:
        assert machine.execute(["echo", "alive"], timeout=60).stdout == b"alive\n"
    assert boot.made == 1
