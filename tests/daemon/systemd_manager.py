"""A real systemd that manages a real unit, as the first process of namespaces of its own.

The machine's own systemd is run, on an overlay of the machine's root: what it or a unit writes
to files is gone with it. It sees no unit but those that a test gives it. The kernel is the
machine's: nothing of it may be changed by a test.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from hyperbox.linux.cgroup import cgroup
from hyperbox.processes import spawn, stop

__all__ = ["CannotRun", "Manager", "managed"]

SYSTEMD = Path("/usr/lib/systemd/systemd")
PATIENCE_S = 60.0
PROJECT = Path(__file__).resolve().parents[2]
UNITS = "/run/units"
TARGETS = ("idle.target", "sysinit.target", "basic.target", "shutdown.target")  # wanted by others
NO_UNIT = "[Unit]\nDefaultDependencies=no\n"
START = """
set -e
echo $$ > {group}/cgroup.procs
exec unshare --pid --mount --cgroup --ipc --uts --net --fork --kill-child=KILL sh -e -c '{inner}'
"""
INNER = """
mount --make-rprivate /
mount -t tmpfs tmpfs {place}
mkdir {place}/upper {place}/work {root}
mount -t overlay -o lowerdir={lower},upperdir={place}/upper,workdir={place}/work overlay {root}
mount -t proc proc {root}/proc
mount -t sysfs sysfs {root}/sys
mount -t cgroup2 cgroup2 {root}/sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs {root}/run
mount --rbind /dev {root}/dev
mkdir -p {root}/opt/python {root}/opt/packages {root}/opt/hyperbox
mount --bind {python} {root}/opt/python
mount --bind {packages} {root}/opt/packages
mount --bind {project} {root}/opt/hyperbox
cp -r {units} {root}/run/units
cp {program} {root}/usr/bin/hyperbox
pivot_root {root} {root}/mnt
cd /
umount -l /mnt
exec env -i container=hyperbox PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_UNIT_PATH=/run/units \
    SYSTEMD_LOG_TARGET=console {systemd} --system --unit=idle.target --show-status=no
"""
# ProtectHome= hides /root and /home, where Python and the project may lie.
PROGRAM = """#!/bin/sh
PYTHONHOME=/opt/python PYTHONPATH=/opt/hyperbox:/opt/packages PYTHONDONTWRITEBYTECODE=1 \\
LD_LIBRARY_PATH=/opt/python/lib exec /opt/python/bin/{name} -m hyperbox "$@"
"""


class CannotRun(Exception):
    """Why there can be no systemd here."""


class Manager:
    """A systemd that runs: `root` is its root directory, seen from here."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid = pid
        self.log = log
        self.root = Path(f"/proc/{pid}/root")

    def systemctl(self, *words: str, check: bool = True) -> str:
        """Run its ``systemctl``; return what that printed."""
        argv = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "systemctl"]
        done = subprocess.run(
            [*argv, *words], capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )
        assert done.returncode == 0 or not check, done.stderr + self.log.read_text()[-3000:]
        return done.stdout.strip()

    def shown(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.systemctl("show", "-P", name, unit)

    def until(self, unit: str, name: str, value: str) -> None:
        """Wait until a property has a value."""
        deadline = time.monotonic() + PATIENCE_S
        while (now := self.shown(unit, name)) != value:
            assert time.monotonic() < deadline, f"{name} is {now}: {self.log.read_text()[-3000:]}"
            time.sleep(0.05)


@contextlib.contextmanager
def managed(place: Path, units: Mapping[str, str], lower: Path = Path("/")) -> Iterator[Manager]:
    """Return a systemd of the root `lower` that knows `units`, by file name; CannotRun if none can.

    `place` is an empty directory.
    """
    if not SYSTEMD.exists():
        raise CannotRun("needs systemd")
    (place / "units").mkdir()
    for name, text in {**dict.fromkeys(TARGETS, NO_UNIT), **units}.items():
        file = place / "units" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    program = place / "hyperbox"
    program.write_text(PROGRAM.format(name=f"python{sysconfig.get_python_version()}"))
    program.chmod(0o755)
    (place / "m").mkdir()
    inner = INNER.format(
        place=place / "m",
        root=place / "m" / "root",
        lower=lower,
        python=sys.base_prefix,
        packages=sysconfig.get_path("purelib"),
        project=PROJECT,
        units=place / "units",
        program=program,
        systemd=SYSTEMD,
    )
    log = place / "log"
    with cgroup(f"hyperbox-systemd-{os.getpid()}") as group, log.open("wb") as stream:
        script = START.format(group=shlex.quote(os.fspath(group.directory)), inner=inner)
        process = spawn(["sh", "-c", script], stdout=stream, stderr=stream)
        try:
            yield _started(process, log)
        finally:
            stop(process)


def _started(process: subprocess.Popen[bytes], log: Path) -> Manager:
    """Wait for systemd; it is the only child of `process`."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            manager = Manager(int(children.read_text()), log)
            if manager.systemctl("is-system-running", check=False) in ("running", "degraded"):
                return manager
        time.sleep(0.05)
    raise CannotRun(f"systemd does not start here: {log.read_text()[-300:]}")
