"""Pressure files: their text in every shape, real files, absence, and triggers."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.errors import ConfigError, WorkloadError
from hyperbox.linux.cgroup import cgroup
from hyperbox.linux.mounts import mounts
from hyperbox.linux.pressure import (
    PROC_PRESSURE,
    Line,
    Missing,
    Pressure,
    PressureFile,
    PressureMissing,
    Resource,
    StallKind,
    Trigger,
    cgroup_files,
    parse_pressure,
    system_files,
    why_missing,
)
from hyperbox.processes import run, spawn, stop

has_pressure = pytest.mark.skipif(
    not (PROC_PRESSURE / "memory").exists(), reason="this kernel has no pressure files"
)
has_cgroup2 = pytest.mark.skipif(not mounts("cgroup2"), reason="cgroup v2 is not mounted")
percent = st.integers(0, 10_000).map(lambda value: value / 100)
lines = st.builds(Line, percent, percent, percent, st.integers(0, 2**64 - 1))


def text_of(kind: str, line: Line) -> str:
    """Print a line as kernel/sched/psi.c does."""
    return (
        f"{kind} avg10={line.avg10:.2f} avg60={line.avg60:.2f} avg300={line.avg300:.2f} "
        f"total={line.total_us}\n"
    )


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@given(st.none() | lines, st.none() | lines)
def test_printed_pressure_parses_to_itself(some: Line | None, full: Line | None) -> None:
    text = "".join(text_of(kind, line) for kind, line in (("some", some), ("full", full)) if line)
    if not text:
        with pytest.raises(ValueError, match="no line of pressure"):
            parse_pressure(text)
    else:
        assert parse_pressure(text) == Pressure(some, full)


@given(st.text())
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        parsed = parse_pressure(text)
    except ValueError:
        return
    assert parsed.some or parsed.full


@given(lines)
def test_what_later_kernels_add_is_passed_over(line: Line) -> None:
    text = "most avg10=1.00 total=1\n" + text_of("some", line).replace(
        " total", " avg900=0.1 total"
    )
    assert parse_pressure(text) == Pressure(line, None)


@pytest.mark.parametrize("field", ["avg10", "avg60", "avg300", "total"])
def test_missing_field_is_named(field: str) -> None:
    text = text_of("full", Line(0, 0, 0, 0)).replace(f"{field}=", "x=", 1)
    with pytest.raises(ValueError, match=f"no {field} in"):
        parse_pressure(text)


def test_absent_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(PressureMissing, match="is absent") as caught:
        system_files(tmp_path)
    assert caught.value.why is Missing.ABSENT
    assert "psi=1" in caught.value.hint


@pytest.mark.root
@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (["-t", "tmpfs", "none", "/proc/pressure"], "something is mounted over /proc/pressure"),
        (["--bind", "/dev/null", "/proc/pressure/cpu"], "mounted over /proc/pressure/cpu"),
        (["-t", "proc", "-o", "subset=pid", "proc", "/proc"], "/proc is mounted with subset=pid"),
    ],
)
def test_what_a_container_hides_is_not_what_the_kernel_lacks(mask: list[str], said: str) -> None:
    program = (
        "import subprocess, sys\n"
        "from hyperbox.linux.namespaces import own_mounts\n"
        "from hyperbox.linux.pressure import PressureMissing, system_files\n"
        "own_mounts(); subprocess.run(['mount', *sys.argv[1:]], check=True)\n"
        "try: system_files()\n"
        "except PressureMissing as error: print(error.why, error.message)\n"
    )
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = run([sys.executable, "-c", program, *mask], timeout=60, environment=environment)
    assert done.text().startswith("hidden pressure is hidden here: ")
    assert done.text().endswith(said)


def test_switched_off_file_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Only a kernel booted with psi=0 has such a file; its answer is planted here.
    (tmp_path / "cpu").write_text("")

    def refuse(*_: object) -> bytes:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "pread", refuse)
    with pytest.raises(PressureMissing, match="switched off") as caught:
        system_files(tmp_path)
    assert caught.value.why is Missing.DISABLED


@pytest.mark.parametrize(
    ("command_line", "config", "switch", "why", "reason"),
    [
        ("quiet psi=0", "", "", Missing.DISABLED, "psi=0 on the kernel's command line"),
        ("psi=1 psi=off", "", "", Missing.DISABLED, "psi=off on the kernel's"),
        ("psi=0 psi=1", "# CONFIG_PSI is not set\n", "", Missing.ABSENT, "without CONFIG_PSI"),
        ("", "CONFIG_PSI=y\nCONFIG_PSI_DEFAULT_DISABLED=y", "", Missing.DISABLED, "psi=1"),
        ("psi=1", "CONFIG_PSI_DEFAULT_DISABLED=y", "0", Missing.DISABLED, "cgroup.pressure is 0"),
        ("psi=1 nopsi=0", "CONFIG_PSI=y", "1", Missing.ABSENT, ""),
    ],
)
def test_reason_of_missing_pressure(
    command_line: str, config: str, switch: str, why: Missing, reason: str
) -> None:
    found = why_missing(command_line, config, switch)
    assert found[0] is why
    assert reason in found[1]
    assert bool(found[1]) is bool(reason)


def test_irq_is_optional_and_the_others_are_not(tmp_path: Path) -> None:
    for name in ("cpu", "memory", "io"):
        (tmp_path / f"{name}.pressure").write_text(text_of("some", Line(0, 0, 0, 7)))
    opened = cgroup_files(tmp_path)
    assert [file.resource for file in opened] == [Resource.CPU, Resource.MEMORY, Resource.IO]
    for file in opened:
        file.close()
    (tmp_path / "io.pressure").unlink()
    before = open_descriptors()
    with pytest.raises(PressureMissing, match=r"io\.pressure is absent"):
        cgroup_files(tmp_path)
    assert open_descriptors() == before


def test_directory_that_is_no_cgroup_is_not_the_kernels_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not a cgroup$"):
        cgroup_files(tmp_path)
    (tmp_path / "cgroup.procs").write_text("")
    with pytest.raises(ConfigError, match="a cgroup of version 1, which has no pressure"):
        cgroup_files(tmp_path)
    (tmp_path / "cgroup.controllers").write_text("")
    with pytest.raises(PressureMissing, match=r"cpu\.pressure is absent"):
        cgroup_files(tmp_path)


@has_cgroup2
@has_pressure
@pytest.mark.root
def test_cgroup_whose_pressure_is_switched_off_is_not_gone() -> None:
    with cgroup(f"hyperbox-test-{os.getpid()}") as group:
        switch = group.directory / "cgroup.pressure"
        if not switch.exists():
            pytest.skip("needs Linux 6.1")
        files = cgroup_files(group.directory)
        path = group.directory / "memory.pressure"
        with Trigger(path, StallKind.SOME, 100_000, 2_000_000) as trigger:
            group.limit("cgroup.pressure", "0")
            for end in (files[0].read, lambda: trigger.wait(5)):
                with pytest.raises(PressureMissing, match=r"its cgroup\.pressure is 0") as caught:
                    end()
                assert caught.value.why is Missing.DISABLED
                assert caught.value.hint == f"write 1 to {switch}"
        with pytest.raises(PressureMissing, match=r"its cgroup\.pressure is 0"):
            cgroup_files(group.directory)
        group.limit("cgroup.pressure", "1")
        for file in files:
            with pytest.raises(WorkloadError, match="its cgroup is gone"):
                file.read()  # as when a cgroup of this name is made again: to be opened anew
            file.close()


def test_nonsense_in_a_file_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "memory").write_text("nonsense")
    with (
        PressureFile(Resource.MEMORY, tmp_path / "memory") as file,
        pytest.raises(WorkloadError, match=r"memory: no line of pressure"),
    ):
        file.read()


def test_kept_descriptor_sees_the_file_anew(tmp_path: Path) -> None:
    path = tmp_path / "io"
    path.write_text(text_of("some", Line(0, 0, 0, 1)))
    with PressureFile(Resource.IO, path) as file:
        assert file.read().some == Line(0, 0, 0, 1)
        path.write_text(text_of("some", Line(1.5, 0, 0, 22)))
        assert file.read().some == Line(1.5, 0, 0, 22)


@has_pressure
def test_real_totals_never_fall() -> None:
    files = system_files()
    first = {file.resource: file.read() for file in files}
    for file in files:
        second = file.read()
        for kind in StallKind:
            before, after = first[file.resource].line(kind), second.line(kind)
            assert (before is None) == (after is None)
            if before and after:
                assert after.total_us >= before.total_us
        file.close()


@has_pressure
@pytest.mark.root
def test_trigger_waits_out_its_time_on_a_calm_line() -> None:
    # Windows of 2 s are allowed to everybody, also where root lacks CAP_SYS_RESOURCE.
    with Trigger(PROC_PRESSURE / "memory", StallKind.FULL, 1_900_000, 2_000_000) as trigger:
        assert trigger.wait(0.05) is False


@has_cgroup2
@has_pressure
@pytest.mark.root
def test_trigger_fires_under_pressure() -> None:
    # In a cgroup of its own: root may lack CAP_SYS_RESOURCE, and then whoever reads the same
    # file can take the trigger's turn (Trigger says why); other tests read /proc/pressure.
    bursts = Path(__file__).parents[2] / "workloads" / "cpu_bursts.py"
    with cgroup(f"hyperbox-test-{os.getpid()}") as group:
        path = group.directory / "cpu.pressure"
        command = ["--burst-ms", "100", "--period-ms", "250"]
        enter = 'echo $$ >"$0" && exec "$@"'
        procs = group.directory / "cgroup.procs"
        load = spawn(["sh", "-c", enter, procs, sys.executable, bursts, *command])
        try:
            with Trigger(path, StallKind.SOME, 10_000, 2_000_000) as trigger:
                assert trigger.wait(60), path.read_text()
        finally:
            stop(load)


@has_pressure
@pytest.mark.root
def test_refused_trigger_is_one_clear_error() -> None:
    before = open_descriptors()
    with pytest.raises(WorkloadError, match="Invalid argument"):
        Trigger(PROC_PRESSURE / "memory", StallKind.SOME, 5_000_000, 2_000_000)
    assert open_descriptors() == before


def test_trigger_on_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(PressureMissing, match="absent"):
        Trigger(tmp_path / "memory", StallKind.SOME, 100_000, 1_000_000)
