"""The unit files under a real systemd: started, killed, stopped, and what they may write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.daemon.conftest import PATIENCE_S, PROJECT, has_pressure
from tests.daemon.systemd_manager import CannotRun, Manager, managed

UNIT = PROJECT / "packaging" / "hyperbox.service"
TUNE = UNIT.with_name("tune.conf")
SOCKET = "run/hyperbox-daemon/hyperbox.sock"
# What a process of root can write where nothing stops it.
PLACES = (
    "/proc/sys/vm/swappiness",
    "/proc/sys/kernel/core_pattern",
    "/proc/sysrq-trigger",
    "/sys/kernel/mm",
    "/sys/devices",
    "/sys/devices/virtual/block",
    "/sys/fs/cgroup/cgroup.procs",
    "/run",
    "/run/units",  # a unit put there is root's command
    "/run/hyperbox",
    "/run/hyperbox-daemon",
    "/etc",
    "/var/lib",
    "/var/log/hyperbox",
    "/usr/bin",
    "/root",
    "/home",
)
# test(1) asks access(2), which knows of read-only mounts and changes nothing.
PROBE = f"""
[Service]
Type=oneshot
Restart=no
ExecStart=
ExecStart=/bin/sh -c 'for place in {" ".join(PLACES)}; do test -w $place && echo $place; done; true'
StandardOutput=truncate:/tmp/writable
"""


def units(**drop_ins: str) -> dict[str, str]:
    """Return the unit with drop-ins, by file name."""
    files = {f"{UNIT.name}.d/{name}.conf": text for name, text in drop_ins.items()}
    return {UNIT.name: UNIT.read_text(), **files}


@pytest.fixture
def manager(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Manager]:
    try:
        with managed(tmp_path, request.param) as running:
            yield running
    except CannotRun as reason:
        pytest.skip(str(reason))


def asked(manager: Manager) -> httpx.Response:
    """Ask the daemon how it is."""
    transport = httpx.HTTPTransport(uds=str(manager.root / SOCKET), verify=False)
    with httpx.Client(transport=transport, timeout=PATIENCE_S) as client:
        return client.get("http://localhost/healthz")


@has_pressure
@pytest.mark.root
@pytest.mark.parametrize("manager", [units(quick="[Service]\nRestartSec=0\n")], indirect=True)
def test_unit_serves_comes_back_when_killed_and_ends(manager: Manager) -> None:
    manager.systemctl("start", UNIT.name)
    health = asked(manager).json()
    assert health["ready"] is True
    pid = manager.shown(UNIT.name, "MainPID")
    assert health["pid"] == int(pid)
    status = dict(
        line.split(":\t", 1)
        for line in (manager.root / "proc" / pid / "status").read_text().splitlines()
        if ":\t" in line
    )
    assert "0" not in status["Uid"].split()
    assert (int(status["CapEff"], 16), status["NoNewPrivs"], status["Seccomp"]) == (0, "1", "2")
    manager.systemctl("kill", "--signal=SIGKILL", UNIT.name)
    manager.until(UNIT.name, "NRestarts", "1")
    manager.until(UNIT.name, "ActiveState", "active")
    assert asked(manager).json()["pid"] != int(pid)
    manager.systemctl("stop", UNIT.name)
    assert manager.shown(UNIT.name, "Result") == "success"
    assert manager.shown(UNIT.name, "ExecMainStatus") == "0"
    assert not (manager.root / SOCKET).parent.exists()


@pytest.mark.root
@pytest.mark.parametrize(
    "manager",
    [units(wrong="[Service]\nEnvironment=HYPERBOX_DAEMON_OPTIONS=--bogus\n")],
    indirect=True,
)
def test_bad_option_is_not_tried_again(manager: Manager) -> None:
    manager.systemctl("start", UNIT.name, check=False)
    manager.until(UNIT.name, "ActiveState", "failed")
    assert manager.shown(UNIT.name, "ExecMainStatus") == "64"
    assert manager.shown(UNIT.name, "NRestarts") == "0"


@pytest.mark.root
@pytest.mark.parametrize(
    ("manager", "wanted"),
    [
        (units(probe=PROBE), ["/run/hyperbox-daemon"]),
        (
            units(a_tune=TUNE.read_text(), probe=PROBE),
            [
                "/proc/sys/vm/swappiness",
                "/sys/devices/virtual/block",
                "/sys/fs/cgroup/cgroup.procs",
                "/run/hyperbox",
                "/run/hyperbox-daemon",
                "/var/log/hyperbox",
            ],
        ),
    ],
    indirect=["manager"],
)
def test_unit_can_write_what_it_says_and_nothing_else(manager: Manager, wanted: list[str]) -> None:
    manager.systemctl("start", UNIT.name)
    assert (manager.root / "tmp" / "writable").read_text().split() == wanted
