"""The command line hides what differs between QEMU versions, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperbox.errors import ConfigError, HarnessError
from hyperbox.harness.lab.qemu import (
    QEMU_VARIABLE,
    Connections,
    GuestHardware,
    Qemu,
    command_line,
    find_qemu,
)
from hyperbox.harness.model import Lane

OLD = Qemu(Path("/usr/bin/qemu-system-x86_64"), (7, 2, 22), "0" * 64)
NEW = Qemu(Path("/usr/bin/qemu-system-x86_64"), (11, 1, 0), "1" * 64)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "root.erofs"
    path.write_bytes(b"")
    with path.open("r+b") as stream:
        stream.truncate(4 << 20)
    return path


def words(
    qemu: Qemu,
    image: Path,
    lane: Lane = Lane.EXACT,
    *,
    incoming: bool = False,
    memory: int = 768 << 20,
    processors: int = 1,
) -> str:
    hardware = GuestHardware(
        lane,
        Path("vmlinuz"),
        Path("initramfs"),
        (image,),
        memory=memory,
        processors=processors,
    )
    line = command_line(
        qemu,
        hardware,
        ram_file=Path("/proc/self/fd/4"),
        ram_shared=False,
        connections=Connections(Path("serial"), image, agent_fd=5, monitor_fd=6),
        incoming=incoming,
    )
    return " ".join(line)


def test_exact_lane_counts_instructions_without_cmpxchg16b(image: Path) -> None:
    line = words(OLD, image)
    assert "-icount shift=0,sleep=off" in line
    assert "-cpu max,cx16=off" in line
    assert "thread=multi" not in line


def test_fast_lane_keeps_host_time(image: Path) -> None:
    assert "-icount" not in words(OLD, image, Lane.FAST)


def test_new_qemu_keeps_cmpxchg16b_and_has_a_monitor_object(image: Path) -> None:
    line = words(NEW, image)
    assert "cx16" not in line
    assert "-object monitor-qmp" in line
    assert "-mon chardev=qmp" in words(OLD, image)


def test_new_qemu_has_no_timer_that_ticks_when_it_is_disabled(image: Path) -> None:
    assert "-M pc,memory-backend=ram,nvdimm=on,hpet=off " in words(NEW, image)
    assert "hpet" not in words(OLD, image)


def test_migration_addresses_fit_the_version() -> None:
    assert OLD.migrate_in(7) == "exec:cat /proc/$PPID/fd/7"
    assert NEW.migrate_in(7) == "file:/proc/self/fd/7"


@pytest.mark.parametrize("mitigations", [True, False])
def test_mitigations_are_off_only_where_that_is_asked_for(mitigations: bool, image: Path) -> None:
    hardware = GuestHardware(
        Lane.FAST, image, image, (image,), mitigations=mitigations, extra_commandline="psi=0"
    )
    assert ("mitigations" in hardware.commandline) is not mitigations
    assert hardware.commandline.endswith(" psi=0")


def test_memory_and_processors_are_as_many_as_asked_for(image: Path) -> None:
    line = words(OLD, image, Lane.FAST, memory=6 << 30, processors=2)
    assert "-smp 2 -m 6144M,slots=16,maxmem=10240M" in line
    assert "-smp 1 -m 768M,slots=16,maxmem=8192M" in words(OLD, image)


def test_the_exact_lane_has_one_processor(image: Path) -> None:
    with pytest.raises(ConfigError, match="the exact lane has one processor, not 2") as caught:
        words(OLD, image, Lane.EXACT, processors=2)
    assert "fast" in caught.value.hint


def test_clone_waits_for_its_state(image: Path) -> None:
    assert words(OLD, image, incoming=True).endswith("-incoming defer -S")


def test_commas_in_paths_are_no_separators(image: Path) -> None:
    odd = image.with_name("size=1,share=off")
    image.rename(odd)
    assert "/size=1,,share=off,size=4194304" in words(NEW, odd)


def test_unpadded_image_is_refused(tmp_path: Path) -> None:
    image = tmp_path / "root.erofs"
    image.write_bytes(b"x")
    with pytest.raises(HarnessError, match="not padded"):
        words(OLD, image)


def test_host_is_no_virtual_machine(image: Path) -> None:
    with pytest.raises(HarnessError, match="host"):
        words(OLD, image, Lane.HOST)


def _script(path: Path, version: str) -> Path:
    path.write_text(f"#!/bin/sh\necho 'QEMU emulator version {version}'\n")
    path.chmod(0o755)
    return path


def test_another_qemu_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = _script(tmp_path / "newer", "10.0.13 (Debian)")
    monkeypatch.setenv(QEMU_VARIABLE, str(chosen))
    found = find_qemu()
    assert (found.program, found.version_text) == (chosen, "10.0.13")


def test_a_script_that_runs_another_build_is_another_qemu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its text is the same, but numbers and kept snapshots of the two builds differ."""
    (tmp_path / "version").write_text("10.0.13")
    words = f'echo "QEMU emulator version $(cat {tmp_path}/version)"'
    digests = []
    for name, version in (("a", "10.0.13"), ("b", "10.0.14")):
        (tmp_path / "version").write_text(version)
        script = tmp_path / name
        script.write_text(f"#!/bin/sh\n{words}\n")
        script.chmod(0o755)
        monkeypatch.setenv(QEMU_VARIABLE, str(script))
        digests.append(find_qemu().sha256)
    assert digests[0] != digests[1]


def test_a_chosen_qemu_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(QEMU_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="HYPERBOX_QEMU names no program"):
        find_qemu()
