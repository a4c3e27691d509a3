"""The guests' first file system: a newc cpio archive (kernel: driver-api/early-userspace).

Pure functions. The same entries give the same bytes: sorted, dated 0, owned by root.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

__all__ = [
    "EARLY_MODULES",
    "CpioEntry",
    "initramfs",
    "load_order",
    "module_name",
    "newc",
    "supplement",
]

EARLY_MODULES = (
    "virtio_pci",
    "virtio_console",
    "virtio_rng",
    "virtio_blk",
    "nfit",
    "nd_pmem",
    "erofs",
    "overlay",
    "pvpanic",  # the whole driver in 5.10, the common part of the next one later
    "pvpanic_mmio",
)
"""Drivers that must work before the root file system is there, in order of loading."""

ORDER_FILE = "modules.order-to-load"
_DIRECTORIES = ("bin", "dev", "modules", "newroot", "proc", "rw", "sys")


@dataclass(frozen=True)
class CpioEntry:
    """A file (with `data`) or directory (`data` None) of an archive, permission bits."""

    name: str
    data: bytes | None
    mode: int


def newc(entries: Iterable[CpioEntry]) -> bytes:
    """Encode an archive in the "newc" format, padded to 512 bytes.

    Raises
    ------
    ValueError
        If a name is empty or occurs twice, or a file is 4 GiB or larger.
    """
    ordered = sorted(entries, key=lambda entry: entry.name)
    if len({entry.name for entry in ordered}) != len(ordered):
        raise ValueError("a name occurs twice")
    archive = bytearray()
    for number, entry in enumerate(ordered, start=1):
        if not entry.name or "\0" in entry.name:
            raise ValueError(f"{entry.name!r} is not a file name")
        kind = stat.S_IFDIR if entry.data is None else stat.S_IFREG
        _append(archive, entry.name, number, kind | entry.mode, entry.data or b"")
    _append(archive, "TRAILER!!!", 0, 0, b"")
    archive += bytes(-len(archive) % 512)
    return bytes(archive)


def initramfs(init: bytes, busybox: bytes, modules: Sequence[tuple[str, bytes]]) -> bytes:
    """Encode the guests' initramfs.

    Parameters
    ----------
    init
        The script that the kernel starts.
    busybox
        A static busybox(1).
    modules
        File names and contents, in the order in which `init` loads them.
    """
    entries = [CpioEntry(name, None, 0o755) for name in _DIRECTORIES]
    entries += [CpioEntry("init", init, 0o755), CpioEntry("bin/busybox", busybox, 0o755)]
    return newc([*entries, *_loaded(modules)])


def supplement(
    modules: Sequence[tuple[str, bytes]], programs: Mapping[str, bytes] = MappingProxyType({})
) -> bytes:
    """Encode an archive that, behind `initramfs`, lets `init` load these modules instead.

    The kernel unpacks one after the other, and files of the later one replace earlier ones
    (kernel: driver-api/early-userspace/buffer-format). `programs` by their paths do so, too.
    """
    files = [CpioEntry(name, data, 0o755) for name, data in programs.items()]
    return newc([*files, *_loaded(modules)])


def _loaded(modules: Sequence[tuple[str, bytes]]) -> Iterator[CpioEntry]:
    order = "".join(f"{name}\n" for name, _ in modules)
    yield CpioEntry(ORDER_FILE, order.encode(), 0o644)
    yield from (CpioEntry(f"modules/{name}", data, 0o644) for name, data in modules)


def load_order(
    modules_dep: str, builtin: str, wanted: Iterable[str] = EARLY_MODULES
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Order modules so that each comes after all it depends on.

    Parameters
    ----------
    modules_dep, builtin
        Contents of depmod's ``modules.dep`` and the kernel's ``modules.builtin``.

    Returns
    -------
    tuple
        Paths as ``modules.dep`` writes them, and the wanted modules that the kernel has
        neither as a module nor built in.
    """
    chains: dict[str, list[str]] = {}
    for line in modules_dep.splitlines():
        path, colon, needs = line.partition(":")
        if colon:
            chains[module_name(path)] = [path, *needs.split()]
    inside = {module_name(path) for path in builtin.split()}
    order: dict[str, None] = {}
    missing = []
    for name in wanted:
        # depmod lists the direct dependency first, the deepest last.
        order.update(dict.fromkeys(reversed(chains.get(name, []))))
        if name not in chains and name not in inside:
            missing.append(name)
    return tuple(order), tuple(missing)


def module_name(path: str) -> str:
    """Return a module's name, as lsmod(8) writes it, from its file's."""
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def _append(archive: bytearray, name: str, inode: int, mode: int, data: bytes) -> None:
    if len(data) >= 1 << 32:
        raise ValueError(f"{name} is too large for the format")
    encoded = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (inode, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    archive += b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    archive += bytes(-len(archive) % 4) + data
    archive += bytes(-len(archive) % 4)
