"""Parsers of the small kernel files, and knobs on real files."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.errors import KernelFeatureMissing, WorkloadError
from hyperbox.linux.block_stat import BlockStat, block_stat, parse_block_stat
from hyperbox.linux.cgroup import cgroup, cgroup_root, parse_flat_keyed
from hyperbox.linux.knob import changed, read_knob, sysctl, write_knob
from hyperbox.linux.modules import load_module, why_not_loadable
from hyperbox.linux.mounts import Mount, mount, mounted, mounts, parse_mountinfo, unescape, unmount
from hyperbox.linux.process_clock import process_cpu_ns
from hyperbox.linux.swap import SwapArea, called_here, parse_swaps, swap_areas, swap_on
from hyperbox.linux.vmstat import vmstat
from hyperbox.linux.zram import (
    ZramMemory,
    choose_algorithm,
    parse_algorithms,
    parse_mm_stat,
)
from hyperbox.processes import spawn, stop

has_cgroup2 = pytest.mark.skipif(not mounts("cgroup2"), reason="cgroup v2 is not mounted")
words = st.from_regex(r"[a-z0-9_-]{1,12}", fullmatch=True)
numbers = st.integers(0, 2**63)


def escape(text: str) -> str:
    """Escape a path as the kernel's mangle_path does."""
    return "".join(f"\\{ord(char):03o}" if char in " \t\n\\" else char for char in text)


@given(
    st.text(st.characters(codec="ascii", exclude_characters="\0\r\x0b\x0c\x1c\x1d\x1e"), min_size=1)
)
def test_escaped_paths_come_back(path: str) -> None:
    assert unescape(escape(path)) == path


tags = words.filter(lambda word: word != "-")  # that one ends the optional fields


@given(st.text("ab \\\t/\r\f\x85\u2028", min_size=1), words, st.lists(tags, max_size=3))
def test_mountinfo_comes_back(point: str, kind: str, optional: list[str]) -> None:
    tags = "".join(f" {tag}" for tag in optional)
    line = f"36 35 98:0 / /{escape(point)} rw,noatime{tags} - {kind} none rw,errors=x\n"
    assert parse_mountinfo(line) == (
        Mount(Path("/" + point), "/", kind, "none", ("rw", "errors=x"), "98:0"),
    )


def test_line_that_is_no_mount_is_quoted() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        parse_mountinfo("nonsense\n")


def test_real_mounts_are_understood() -> None:
    assert Path("/proc") in [found.point for found in mounts("proc")]


@pytest.mark.root
def test_a_mount_of_any_name_hides_no_other(tmp_path: Path) -> None:
    names = ("a\rb", "a\fb", "a\x85b", "a\u2028b", "a\nb")
    with contextlib.ExitStack() as stack:
        for name in names:
            (tmp_path / name).mkdir()
            mount("tmpfs", tmp_path / name)
            stack.callback(unmount, tmp_path / name)
        points = [found.point for found in mounts("tmpfs")]
    assert points[-len(names) :] == [tmp_path / name for name in names]


def test_mounted_uses_what_is_there(tmp_path: Path) -> None:
    with mounted("proc", tmp_path) as point:
        assert point == mounts("proc")[0].point


areas = st.builds(
    SwapArea,
    st.text("ab \\\t\r\f\x85\u2028", min_size=1).map(lambda name: "/dev/" + name),
    st.sampled_from(["partition", "file"]),
    st.integers(0, 2**40).map(lambda kib: kib << 10),
    st.integers(0, 2**40).map(lambda kib: kib << 10),
    st.integers(-32768, 32767),
)


@given(st.lists(areas, max_size=4))
def test_swaps_come_back(wanted: list[SwapArea]) -> None:
    text = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n" + "".join(
        f"{escape(area.path)}  {area.kind}\t{area.size >> 10}\t\t{area.used >> 10}\t\t"
        f"{area.priority}\n"
        for area in wanted
    )
    assert parse_swaps(text) == tuple(wanted)


def test_line_that_is_no_swap_area_is_quoted() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        parse_swaps("header\nnonsense\n")


def test_real_swap_areas_are_understood() -> None:
    areas = swap_areas()
    assert len(areas) == len(Path("/proc/swaps").read_text().splitlines()) - 1  # its header
    assert all(area.used <= area.size for area in areas)


def test_swapping_to_what_is_no_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="cannot swap to"):
        swap_on(tmp_path / "absent")
    with pytest.raises(ValueError, match="priority"):
        swap_on(tmp_path / "absent", 40_000)


@given(st.lists(numbers, min_size=11, max_size=17))
def test_block_stat_comes_back(fields: list[int]) -> None:
    parsed = parse_block_stat(" ".join(map(str, fields)))
    assert parsed == BlockStat(fields[0], fields[2] * 512, fields[4], fields[6] * 512)


def test_short_block_stat_is_refused() -> None:
    with pytest.raises(ValueError, match="3 fields"):
        parse_block_stat("1 2 3")


def test_block_stat_of_an_absent_disk() -> None:
    with pytest.raises(KernelFeatureMissing):
        block_stat(Path("/dev/no-such-disk"))


@given(st.dictionaries(words, numbers))
def test_flat_keyed_comes_back(values: dict[str, int]) -> None:
    assert parse_flat_keyed("".join(f"{key} {value}\n" for key, value in values.items())) == values


def test_vmstat_gives_zero_for_what_the_kernel_lacks() -> None:
    found = vmstat(("pgfault", "no_such_counter"))
    assert found["pgfault"] > 0
    assert found["no_such_counter"] == 0


@given(st.lists(words, min_size=1, max_size=5, unique=True), st.data())
def test_algorithms_come_back(names: list[str], data: st.DataObject) -> None:
    chosen = data.draw(st.sampled_from(names))
    text = " ".join(f"[{name}]" if name == chosen else name for name in names)
    assert parse_algorithms(text) == tuple(names)
    assert choose_algorithm((*["absent!"], chosen), names) == chosen


def test_no_algorithm_names_both_sides() -> None:
    with pytest.raises(KernelFeatureMissing, match="lzo; none of lz4"):
        choose_algorithm(("lz4",), ("lzo",))


@given(st.lists(numbers, min_size=5, max_size=9))
def test_mm_stat_comes_back(fields: list[int]) -> None:
    assert parse_mm_stat(" ".join(map(str, fields))) == ZramMemory(
        fields[0], fields[1], fields[2], fields[4]
    )


def test_short_mm_stat_is_refused() -> None:
    with pytest.raises(ValueError, match="2 fields"):
        parse_mm_stat("1 2")


def test_knob_is_put_back_even_after_an_error(tmp_path: Path) -> None:
    knob = tmp_path / "knob"
    knob.write_text("60\n")

    def fail() -> None:
        with changed(knob, 10) as original:
            assert (original, read_knob(knob)) == ("60", "10")
            raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        fail()
    assert read_knob(knob) == "60"


def test_knob_that_somebody_else_changed_is_left_alone(tmp_path: Path) -> None:
    knob = tmp_path / "knob"
    knob.write_text("60")
    with changed(knob, 10):
        write_knob(knob, 33)
    assert read_knob(knob) == "33"


def test_absent_knob_is_a_missing_feature() -> None:
    path = sysctl("vm.no_such_setting")
    assert path == Path("/proc/sys/vm/no_such_setting")
    for attempt in (lambda: read_knob(path), lambda: write_knob(path, 1)):
        with pytest.raises(KernelFeatureMissing, match="no_such_setting"):
            attempt()


@pytest.mark.root
def test_refused_value_is_one_clear_error() -> None:
    with pytest.raises(WorkloadError, match="Invalid argument"):
        write_knob(sysctl("vm.swappiness"), "many")


def test_absent_module_is_a_missing_feature() -> None:
    with pytest.raises(KernelFeatureMissing, match="no module hyperbox_no_such_module"):
        load_module("hyperbox_no_such_module")
    assert why_not_loadable("hyperbox_no_such_module").startswith(
        "no module hyperbox_no_such_module: "
    )


def test_what_is_loaded_or_built_in_is_there() -> None:
    present = sorted(path.name for path in Path("/sys/module").iterdir())
    assert why_not_loadable(present[0]) == ""
    load_module("proc")  # built in without parameters: not below /sys/module


def test_swap_of_another_mount_namespace_is_called_as_it_is_here() -> None:
    disks = [path for path in Path("/dev").iterdir() if path.is_block_device()]
    if not disks:
        pytest.skip("no block device here")
    disk = disks[0]
    for path in (f"/{disk.name}", str(disk), f"/{disk.name} (deleted)", f"/gone/{disk.name}"):
        assert called_here(SwapArea(path, "partition", 1, 0, 0)) == str(disk)
    for area in (
        SwapArea("/no-such-disk", "partition", 1, 0, 0),
        SwapArea(f"/{disk.name}", "file", 1, 0, 0),
    ):
        assert called_here(area) == area.path


def test_nothing_is_written_as_an_empty_line(tmp_path: Path) -> None:
    (tmp_path / "knob").write_text("x")
    write_knob(tmp_path / "knob", "")
    assert read_knob(tmp_path / "knob") == ""


@has_cgroup2
@pytest.mark.root
def test_cgroup_holds_a_process_and_goes_away_with_it_still_running() -> None:
    process = spawn(["sleep", "600"])
    try:
        with cgroup(f"hyperbox-test-{os.getpid()}") as group:
            group.add(process.pid)
            assert group.processes() == (process.pid,)
            assert group.counters("cgroup.events")["populated"] == 1
        assert not group.directory.exists()
        assert process.poll() is None
    finally:
        stop(process)


@has_cgroup2
@pytest.mark.root
def test_controller_that_is_not_there_is_a_missing_feature() -> None:
    with (
        pytest.raises(KernelFeatureMissing, match="no nonsense controller"),
        cgroup(f"hyperbox-test-{os.getpid()}", controllers=("nonsense",)),
    ):
        pass
    assert not (cgroup_root() / f"hyperbox-test-{os.getpid()}").exists()


def test_process_clock_agrees_with_ones_own() -> None:
    before = time.process_time_ns()
    measured = process_cpu_ns(os.getpid())
    assert before <= measured <= time.process_time_ns()


def test_process_clock_of_nobody() -> None:
    done = spawn(["true"])
    done.wait()
    with pytest.raises(WorkloadError, match="is gone"):
        process_cpu_ns(done.pid)
