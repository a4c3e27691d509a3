"""What a container is to be, and the ``config.json`` that an OCI runtime takes. Pure.

Follows the OCI runtime specification 1.0.2 (config.md, config-linux.md); mounts, masked paths and
capabilities are those of Docker (moby, oci/defaults.go).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hyperbox.isolation.default_profile import CAPABILITIES
from hyperbox.isolation.profile import Profile

__all__ = ["BindMount", "Container", "User", "config_json"]

_VERSION = "1.0.2"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_SAFE = ("nosuid", "noexec", "nodev")
_CPU_PERIOD_US = 100_000


@dataclass(frozen=True)
class BindMount:
    """A directory or file of the host that is bound into a container."""

    source: Path
    target: str
    writable: bool = True


@dataclass(frozen=True)
class User:
    """Who the command runs as, by number."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()


@dataclass(frozen=True)
class Container:
    """A command in a root file system, and how it is confined.

    Parameters
    ----------
    memory
        Bytes at most; None for no limit.
    cpus
        Processors at most, for example 0.5; None for no limit.
    seccomp
        None for no filter.
    host_network
        Share the host's network; otherwise there is a loopback device only.
    """

    rootfs: Path
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: str = "/"
    user: User = User()
    hostname: str = "hyperbox"
    writable: bool = True
    mounts: tuple[BindMount, ...] = ()
    memory: int | None = None
    cpus: float | None = None
    capabilities: frozenset[str] = CAPABILITIES
    no_new_privileges: bool = False
    terminal: bool = False
    host_network: bool = False
    seccomp: Profile | None = None


def config_json(container: Container, cgroups_path: str) -> dict[str, object]:
    """Return the ``config.json`` of a bundle.

    Parameters
    ----------
    cgroups_path
        The container's cgroup below the root of each hierarchy.
    """
    root = {"path": str(container.rootfs), "readonly": not container.writable}
    return {
        "ociVersion": _VERSION,
        "process": _process(container),
        "root": root,
        "hostname": container.hostname,
        "mounts": [*_system_mounts(), *map(_bind, container.mounts)],
        "linux": _linux(container, cgroups_path),
    }


def _process(container: Container) -> dict[str, object]:
    capabilities = sorted(container.capabilities)
    sets = ("bounding", "effective", "permitted")
    environment = {"PATH": _PATH, **container.environment}
    if container.terminal:
        environment = {"TERM": "xterm", **environment}
    return {
        "terminal": container.terminal,
        "user": {
            "uid": container.user.uid,
            "gid": container.user.gid,
            "additionalGids": list(container.user.groups),
        },
        "args": list(container.command),
        "env": [f"{name}={value}" for name, value in environment.items()],
        "cwd": container.directory,
        "capabilities": dict.fromkeys(sets, capabilities),
        "noNewPrivileges": container.no_new_privileges,
    }


def _linux(container: Container, cgroups_path: str) -> dict[str, object]:
    kinds = ["pid", "ipc", "uts", "mount"]
    if not container.host_network:
        kinds.append("network")
    document: dict[str, object] = {
        "cgroupsPath": cgroups_path,
        "resources": _resources(container),
        "namespaces": [{"type": kind} for kind in kinds],
        "maskedPaths": list(_MASKED),
        "readonlyPaths": list(_READ_ONLY),
    }
    if container.seccomp is not None:
        document["seccomp"] = container.seccomp.as_json()
    return document


def _resources(container: Container) -> dict[str, object]:
    limits: dict[str, object] = {"devices": [{"allow": False, "access": "rwm"}]}
    if container.memory is not None:
        limits["memory"] = {"limit": container.memory}
    if container.cpus is not None:
        quota = max(1000, round(container.cpus * _CPU_PERIOD_US))  # the kernel's least is 1 ms
        limits["cpu"] = {"quota": quota, "period": _CPU_PERIOD_US}
    return limits


def _bind(mount: BindMount) -> dict[str, object]:
    options = ["rbind", "rprivate", "rw" if mount.writable else "ro"]
    source = str(mount.source)
    return {"destination": mount.target, "type": "bind", "source": source, "options": options}


def _system_mounts() -> list[dict[str, object]]:
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
    return [
        _mounted("/proc", "proc", *_SAFE),
        _mounted("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mounted("/dev/pts", "devpts", *pts),
        _mounted("/dev/shm", "tmpfs", *_SAFE, "mode=1777", "size=65536k", source="shm"),  # noqa: S108
        _mounted("/dev/mqueue", "mqueue", *_SAFE),
        _mounted("/sys", "sysfs", *_SAFE, "ro"),
        _mounted("/sys/fs/cgroup", "cgroup", *_SAFE, "relatime", "ro"),
    ]


def _mounted(target: str, kind: str, *options: str, source: str = "") -> dict[str, object]:
    return {
        "destination": target,
        "type": kind,
        "source": source or kind,
        "options": list(options),
    }
