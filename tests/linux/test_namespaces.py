"""Namespaces and the random pool, on this machine."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import pytest

from hyperbox.processes import run

ROOT = Path(__file__).parents[2]


def said(program: str) -> str:
    """What a Python program prints; it runs in a process of its own."""
    return run(
        [sys.executable, "-c", program], timeout=60, environment={"PYTHONPATH": str(ROOT)}
    ).text()


@pytest.mark.root
def test_mounts_of_its_own_do_not_show_outside(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from hyperbox.linux.mounts import mount\n"
        "from hyperbox.linux.namespaces import own_mounts\n"
        f"place = Path({str(tmp_path)!r})\n"
        "own_mounts(); mount('tmpfs', place); (place / 'inside').touch()\n"
        "print((place / 'inside').exists())"
    )
    assert said(program) == "True"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.root
def test_network_of_its_own_has_a_loopback_only() -> None:
    program = (
        "import os, socket; from hyperbox.linux.namespaces import own_network\n"
        "before = os.readlink('/proc/self/ns/net'); own_network()\n"
        "print(os.readlink('/proc/self/ns/net') != before, socket.if_nameindex()[0][1])\n"
        "print(socket.socket(type=socket.SOCK_DGRAM).connect_ex(('127.0.0.1', 9)))"
    )
    names, reached = said(program).splitlines()
    assert names == "True lo"
    assert int(reached) == errno.ENETUNREACH, "the loopback is down, and nothing else leads there"


@pytest.mark.root
def test_stirring_needs_no_rights() -> None:
    program = (
        "import os; from hyperbox.linux.random_pool import reseed_crng\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "reseed_crng(b'anything at all'); print(os.getuid())"
    )
    assert said(program) == "65534"
