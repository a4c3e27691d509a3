"""A kernel unpacked on disk: image, configuration, modules."""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperbox.errors import HarnessError
from hyperbox.files import sha256_file
from hyperbox.processes import require, run

__all__ = ["KernelTree", "build_id", "digests", "index_modules", "stage_modules", "unpack_debs"]

_INDEX_INPUTS = ("modules.order", "modules.builtin", "modules.builtin.modinfo")


@dataclass(frozen=True)
class KernelTree:
    """A kernel's parts: ``uname -r``, image, configuration, ``lib/modules/<release>``."""

    release: str
    vmlinuz: Path
    config: Path | None
    modules: Path | None


def digests(tree: KernelTree) -> list[str]:
    """Return the SHA-256 of image, modules and configuration; "" for a part that is absent."""
    modules = hashlib.sha256()
    for path in sorted(tree.modules.rglob("*")) if tree.modules else ():
        if path.is_file() and not path.is_symlink():
            name = path.relative_to(tree.modules or path)
            modules.update(f"{name}\0{sha256_file(path)}\n".encode())
    config = sha256_file(tree.config) if tree.config else ""
    return [sha256_file(tree.vmlinuz), modules.hexdigest(), config]


def build_id(parts: Sequence[str]) -> str:
    """Return what distinguishes builds that call themselves by one release: the hash of `parts`.

    `parts` are the hashes of all that the kernel is made of: its packages, or `digests`.
    """
    return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()


def unpack_debs(debs: Sequence[Path], release: str, directory: Path) -> KernelTree:
    """Unpack the debs of a kernel (not install them) into `directory`.

    Raises
    ------
    HarnessError
        If a deb is broken or the image or the modules are not in them.
    """
    tool = require("dpkg-deb", "dpkg")
    for deb in debs:
        run([tool, "-x", deb, directory], timeout=300)
        _remove_links_out(directory)  # before the next deb is unpacked through one of them
    # Split packages (7.1 and later) have all beside the modules; before, it was /boot.
    homes = [directory / f"usr/lib/modules/{release}", directory / f"lib/modules/{release}"]
    boot = directory / "boot"
    modules = next(filter(Path.is_dir, homes), None)
    vmlinuz = _first_file(homes[0] / "vmlinuz", boot / f"vmlinuz-{release}")
    config = _first_file(homes[0] / "config", boot / f"config-{release}")
    if vmlinuz is None or modules is None:
        lacking = "image" if vmlinuz is None else "modules"
        raise HarnessError(f"the packages of {release} hold no kernel {lacking}")
    return KernelTree(release, vmlinuz, config, modules)


def stage_modules(source: Path, release: str, staging: Path) -> Path:
    """Copy modules to `staging`, uncompressed, and index them with depmod(8).

    Links are followed within `source` only: a package's might lead to any file of this machine.

    Returns
    -------
    Path
        The directory that guests see as ``/usr/lib/modules``; its only entry is `release`.
    """
    top = staging / "usr/lib/modules"
    target = top / release
    target.mkdir(parents=True)
    for directory, names, files in os.walk(source):
        names[:] = sorted(name for name in names if not Path(directory, name).is_symlink())
        for name in sorted(files):
            path = Path(directory, name)
            relative = path.relative_to(source)
            wanted = ".ko" in path.suffixes or relative.as_posix() in _INDEX_INPUTS
            if wanted and path.is_file() and _lies_in(path, source):
                (target / relative).parent.mkdir(parents=True, exist_ok=True)
                _copy_uncompressed(path, target / relative)
    if any(target.rglob("*.ko.zst")):
        run([require("zstd", "zstd"), "-d", "-q", "--rm", "-r", target], timeout=300)
    index_modules(staging, release)
    return top


def index_modules(staging: Path, release: str) -> None:
    """Index the modules in ``usr/lib/modules/<release>`` of a directory with depmod(8)."""
    (staging / "lib").symlink_to("usr/lib")  # depmod -b looks in lib/modules
    run([require("depmod", "kmod"), "-b", staging, release], timeout=300)
    # The umask of the day must not get into the image.
    top = staging / "usr/lib/modules"
    for path in (top, *top.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _copy_uncompressed(path: Path, target: Path) -> None:
    if path.suffix == ".xz":
        target.with_suffix("").write_bytes(lzma.decompress(path.read_bytes()))
    elif path.suffix == ".gz":
        target.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    else:
        shutil.copyfile(path, target)


def _remove_links_out(top: Path) -> None:
    """Remove the links that lead out of a directory, such as to headers in /usr/src."""
    for directory, names, files in os.walk(top):
        for path in (Path(directory, name) for name in (*names, *files)):
            if path.is_symlink() and not _lies_in(path, top):
                path.unlink()


def _lies_in(path: Path, top: Path) -> bool:
    try:
        return path.resolve().is_relative_to(top.resolve())
    except (OSError, RuntimeError):  # a link to itself, in Python before 3.13 a RuntimeError
        return False


def _first_file(*paths: Path) -> Path | None:
    return next(filter(Path.is_file, paths), None)
