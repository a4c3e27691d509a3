"""The tuner in a real guest: it acts, gives back, survives its own death, and stays alone."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hyperbox.harness.lab.kernel_kit import kernel_kit
from hyperbox.harness.lab.snapshot import PreparationStep, Snapshot
from hyperbox.harness.lab.vm import VirtualMachine
from tests.guests import kept_guest

pytestmark = pytest.mark.vm

PROGRAM = Path(__file__).with_name("guest_tuning.py")
PAGE_CLUSTER = "/proc/sys/vm/page-cluster"
ZSWAP = "/sys/module/zswap/parameters/enabled"


@pytest.fixture(scope="module")
def guest() -> Iterator[Snapshot]:
    # The newest: it has every actuator. What all scenarios import is compiled once.
    compiled = "import hyperbox.memory.tune, hyperbox.memory.audit, suites.squeeze"
    with contextlib.closing(kept_guest(kernel_kit("7.3"))) as kept:
        made = kept.derive(PreparationStep(("python3", "-c", compiled)))
    with contextlib.closing(made):
        yield made


def played(guest: Snapshot, *words: str) -> dict[str, Any]:
    with guest.clone() as machine:
        machine.put("/tmp/guest_tuning.py", PROGRAM.read_bytes())
        done = machine.execute(
            ["python3", "/tmp/guest_tuning.py", *words],
            timeout=400,
            environment={"PYTHONPATH": "/opt/hyperbox"},
        )
    assert done.status == 0, done.stderr.decode()[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_ramp_is_acted_on_kept_and_given_back(guest: Snapshot) -> None:
    found = played(guest, "ramp")
    assert found["before"][PAGE_CLUSTER] == "3"
    assert found["during"] == found["before"] | {PAGE_CLUSTER: "0"}
    assert found["paused"] == found["during"]  # no clock's jump is a reason to do anything
    assert found["calm"] == found["before"]
    assert found["status"] == 0
    actions = [one["action"] for one in found["decisions"] if one["action"] != "nothing"]
    assert actions[:3] == ["apply", "keep", "restore"]
    kept = next(one for one in found["decisions"] if one["action"] == "keep")
    assert "score" in kept["reason"]


def test_signal_takes_everything_back(guest: Snapshot) -> None:
    found = played(guest, "signalled", "calm")
    assert found["during"] != found["before"]
    assert "zram0" in found["during"]["swaps"]
    assert found["left"] == found["after"] == found["before"]
    assert (found["status"], found["repaired"], found["journal"]) == (0, [], 0)


def test_swap_is_never_stopped_under_pressure_and_repaired_later(guest: Snapshot) -> None:
    found = played(guest, "signalled", "pressure")
    swaps = {name: found["left"][name] for name in ("swaps", "zram")}
    assert found["left"] == found["before"] | swaps  # every setting is back
    assert "zram0" in swaps["swaps"]
    last = found["decisions"][-1]
    assert "stays (memory is short): hyperbox doctor --repair" in last["changes"][0]
    assert (found["status"], found["journal"]) == (0, 2)
    assert found["after"] == found["before"]


@pytest.mark.parametrize("moment", ["normal", "watch", "act", "trial", "hold", "relax"])
def test_killed_in_any_state_is_repaired(guest: Snapshot, moment: str) -> None:
    found = played(guest, "killed", moment)
    assert found["state"] == ("hold" if moment == "trial" else moment)
    assert found["left"] != found["before"]
    assert found["after"] == found["before"]
    assert found["repaired"]
    assert all(line.startswith("undone: ") for line in found["repaired"])
    if moment == "relax":  # one of two steps had been given back
        assert len(found["repaired"]) == 1
    if moment == "normal":
        assert found["left"][ZSWAP] == "Y"


def test_swap_that_goes_and_comes_is_noticed_and_a_killed_tuner_is_cleaned_up_after(
    guest: Snapshot,
) -> None:
    found = played(guest, "interrupted")
    assert found["during"][ZSWAP] == found["left"][ZSWAP] == "Y"
    assert found["during"][PAGE_CLUSTER] == found["left"][PAGE_CLUSTER] == "0"
    assert found["after"] == found["before"]
    assert found["repaired"] == []  # the next tuner had done it
    mark = f"left by killed process {found['pid']}: undone: "
    assert f"{mark}{ZSWAP} is Y, was N" in found["found"]
    assert f"{mark}vm.page-cluster is 0, was 3" in found["found"]
    shown = {(one["pid"], one["step"]): one for one in found["trail"]}
    assert shown[found["pid"], "fast-swap"]["changes"][-1] == "zswap enabled N -> Y"
    assert "shrinker" not in str(shown)  # it would write to the disk what the pool has room for


def test_triggers_are_for_everybody_in_windows_that_the_kernel_allows(guest: Snapshot) -> None:
    found = played(guest, "triggers")
    assert found["root"] == found["nobody"] == "fired"
    assert found["nobody in short"].endswith("in 500000 us: Invalid argument")


def test_on_the_oldest_kernel_triggers_are_for_root_alone() -> None:
    with contextlib.closing(kept_guest(kernel_kit("5.10"))) as made:
        found = played(made, "triggers")
    assert found["root"] == "fired"
    for asked in ("nobody", "nobody in short"):
        assert found[asked].startswith("/proc/pressure/memory: no trigger for ")
        assert found[asked].endswith(": Permission denied")


def test_second_tuner_is_refused_with_one_line(guest: Snapshot) -> None:
    found = played(guest, "second")
    assert found["status"] == 3
    assert found["said"].splitlines() == [
        f"hyperbox.memory.tune: a tuner runs already, as process {found['pid']}"
    ]
    assert (found["dry"], found["after"]) == (0, 0)


def test_page_cache_of_a_streaming_cgroup_is_given_up(guest: Snapshot) -> None:
    found = played(guest, "streaming")
    assert found["before"] > 20 << 20
    assert found["during"] < found["before"] // 4
    step = next(one for one in found["decisions"] if one["action"] == "apply")
    assert step["step"] == "page-cache"
    assert "of page cache reclaimed" in step["changes"][0]


def test_cgroup_that_vanishes_ends_the_tuner_cleanly(guest: Snapshot) -> None:
    found = played(guest, "vanished")
    assert found["during"] != found["before"]
    assert found["after"] == found["before"]
    assert found["status"] == 3
    assert "its cgroup is gone" in found["said"]


def test_what_cannot_be_changed_is_said_and_nothing_else_is(guest: Snapshot) -> None:
    found = played(guest, "refused")
    assert found["after"] == found["before"]
    assert found["status"] == 0
    assert any("no module zram" in change for change in found["found"])
    assert found["said"]["page-cluster"].endswith("page-cluster: Read-only file system")


def test_swap_that_is_taken_away_is_left_alone(guest: Snapshot) -> None:
    found = played(guest, "unplugged")
    assert found["status"] == 0
    assert found["after"]["swaps"] == found["before"]["swaps"]


def test_zswap_without_anything_to_swap_to_gives_way_to_zram(guest: Snapshot) -> None:
    found = played(guest, "idle_zswap")
    assert found["before"][ZSWAP] == "Y"
    assert found["before"]["swaps"] == ""
    assert (found["during"][ZSWAP], found["during"]["swaps"]) == ("N", "/dev/zram0")
    assert found["changes"][0].startswith("swapping to /dev/zram0, 4 MiB")
    assert found["changes"][1].startswith("zswap enabled Y -> N")
    assert found["changes"][2].endswith("on already, but does nothing: there is no swap area")
    assert (found["status"], found["after"]) == (0, found["before"])
    assert found["behind"].endswith("zram already, behind zswap: pages are compressed twice")
    assert found["beside"] == ["zswap is on: one compressed swap is enough", "zswap is on already"]
    first, zswap = found["alone"]
    assert first.startswith("/dev/first has the highest priority that there is (32767): ")
    assert zswap == ""


def test_swap_whose_device_node_was_removed_is_not_called_undone(guest: Snapshot) -> None:
    found = played(guest, "removed_node")
    assert found["left"]["swaps"] == "/dev/zram0"
    assert "somebody else" not in found["said"]
    assert found["status"] == 3
    assert "/dev/zram0 is still swapped to, but its device node has been removed" in found["said"]
    assert found["after"] == found["before"]
    assert all(line.startswith("undone: ") for line in found["repaired"])
    assert len(found["repaired"]) == 2


def test_setting_that_cannot_be_put_back_is_said_and_stays_on_record(guest: Snapshot) -> None:
    found = played(guest, "locked")
    assert found["during"] != found["before"]
    ours = {name: value for name, value in found["during"].items() if "zswap" in name}
    assert found["left"] == found["before"] | ours  # all that could be was put back
    assert found["status"] == 3
    assert found["said"].startswith("hyperbox.memory.tune: not put back: fast-swap: ")
    assert "Read-only file system" in found["said"]
    assert found["outstanding"] == len(found["repaired"]) > 0
    assert not any(line.startswith("undone: ") for line in found["still"])
    assert all(line.startswith("undone: ") for line in found["repaired"])
    assert found["after"] == found["before"]


def test_cgroup_that_vanishes_while_its_limit_is_lowered_is_nobodys(guest: Snapshot) -> None:
    found = played(guest, "orphaned")
    assert found["changes"][0].startswith("shortlived: memory.high max -> ")
    assert found["lost"] is True
    assert found["kept"] == str(64 << 20)  # another cgroup by now
    assert found["outstanding"] == 0


def test_kernel_booted_without_pressure_says_why() -> None:
    # The guest that the daemon's tests have, too.
    made = kept_guest(kernel_kit("7.3"), layers=["daemon"], commandline="psi=0")
    with contextlib.closing(made), made.clone() as machine:
        for module in ("hyperbox.memory.tune", "hyperbox.memory.monitor"):
            assert said(machine, module) == [
                f"{module}: pressure is unavailable: switched off by psi=0 on the kernel's "
                "command line"
            ]
        done = machine.execute(["test", "!", "-e", "/run/hyperbox/journal"], timeout=60)
        assert done.status == 0


def said(machine: VirtualMachine, module: str) -> list[str]:
    done = machine.execute(["python3", "-m", module, "--count", "1"], timeout=120)
    assert done.status == 3
    assert done.stdout == b""
    return done.stderr.decode().splitlines()
