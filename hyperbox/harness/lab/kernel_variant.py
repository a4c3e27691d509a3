"""Variants of a kernel: modules withheld or replaced before the root is mounted.

What a program does where a kernel lacks something is tested so, and modules that were built
anew. A variant is made from a kernel's kit and kept beside the kits by content.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hyperbox.errors import ConfigError, near
from hyperbox.files import (
    has_sha256,
    locked,
    read_sealed,
    replace_file,
    sha256_file,
    write_bytes,
    write_sealed,
)
from hyperbox.harness.lab.erofs_image import make_erofs
from hyperbox.harness.lab.initramfs import load_order, module_name, supplement
from hyperbox.harness.lab.kernel_kit import KernelKit, kernels_directory
from hyperbox.harness.lab.kernel_tree import build_id, index_modules
from hyperbox.paths import project_directory
from hyperbox.processes import require, run

__all__ = ["kernel_variant"]

_FORMAT = 1  # raise it when the way of building changes
_MODULES, _INITRAMFS, _FACTS = "modules.erofs", "initramfs.cpio", "variant.json"
_BUSYBOX = b"B=/bin/busybox\n"  # in init.sh
_LIFETIME_S = 7 * 24 * 3600.0


def kernel_variant(
    kit: KernelKit, without: Sequence[str] = (), replaced: Path | None = None
) -> KernelKit:
    """Return the kernel without some modules, and with others in place of its own.

    Parameters
    ----------
    without
        Names of modules, as lsmod(8) writes them. Without ``overlay`` a guest's root is a copy
        in memory.
    replaced
        Directory with ``.ko`` files; one that the kernel does not have is added.

    Raises
    ------
    ConfigError
        If the kernel has no such module, guests cannot do without it, or a file was built for
        another release.
    """
    names = tuple(sorted({module_name(name) for name in without}))
    files = _replacements(kit, replaced)
    if not names and not files:
        return kit
    if kit.modules_image is None:
        raise ConfigError(f"kernel {kit.label} has no modules to withhold or replace")
    digests = {name: sha256_file(path) for name, path in files.items()}
    base = [sha256_file(kit.modules_image), sha256_file(kit.initramfs)]
    programs = _without_overlay() if "overlay" in names else {}
    base += [hashlib.sha256(data).hexdigest() for data in programs.values()]
    inputs = json.dumps([_FORMAT, base, names, sorted(digests.items())])
    key = hashlib.sha256(inputs.encode()).hexdigest()[:16]
    place = kernels_directory() / "variants" / f"{kit.label}-{key}"
    with locked(place.with_name(f"{place.name}.lock")):
        if not _whole(place):
            _forget_old(place.parent)
            _build(kit, names, files, programs, place)
    os.utime(place)
    remarks = [f"without the module {name}" for name in names]
    remarks += [f"module {name} replaced: {digest}" for name, digest in sorted(digests.items())]
    return replace(
        kit,
        build=build_id([kit.build, inputs]),
        initramfs=place / _INITRAMFS,
        modules_image=place / _MODULES,
        remarks=(*kit.remarks, *remarks),
        withheld=names,
    )


def _replacements(kit: KernelKit, directory: Path | None) -> Mapping[str, Path]:
    """Return the files of a directory by module name, each built for the kernel's release."""
    if directory is None:
        return {}
    files = {module_name(path.name): path for path in sorted(directory.rglob("*.ko"))}
    if not files:
        raise ConfigError(f"{directory} has no .ko files")
    for path in files.values():
        # modinfo(8): NUL-terminated "vermagic=<release> <options>" in section .modinfo
        magic = path.read_bytes().partition(b"vermagic=")[2].split(b"\0", 1)[0].split()
        release = magic[0].decode(errors="replace") if magic else "no kernel"
        if release != kit.release:
            raise ConfigError(f"{path} was built for {release}, not for {kit.release}")
    return files


def _whole(place: Path) -> bool:
    facts = read_sealed(place / _FACTS)
    if facts is None:
        return False
    return all(
        (place / name).exists() and has_sha256(place / name, facts[name])
        for name in (_MODULES, _INITRAMFS)
    )


def _without_overlay() -> Mapping[str, bytes]:
    """Return what makes `init` copy in memory what it would stack by overlay."""
    directory = project_directory() / "vm-images"
    init = (directory / "init.sh").read_bytes()
    assert init.count(_BUSYBOX) == 1
    return {
        "init": init.replace(_BUSYBOX, b"B=/bin/without-overlay\n"),
        "bin/without-overlay": (directory / "without-overlay.sh").read_bytes(),
    }


def _build(
    kit: KernelKit,
    without: Sequence[str],
    files: Mapping[str, Path],
    programs: Mapping[str, bytes],
    place: Path,
) -> None:
    assert kit.modules_image is not None
    shutil.rmtree(place, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".building-") as name:
        staging, built = Path(name, "staging"), Path(name, "variant")
        top = staging / "usr/lib/modules"
        top.parent.mkdir(parents=True)
        built.mkdir()
        fsck = require("fsck.erofs", "erofs-utils")
        run([fsck, f"--extract={top}", "--no-preserve", kit.modules_image], timeout=300)
        own = top / kit.release
        _check(kit, own, without)
        have = {module_name(path.name): path for path in own.rglob("*.ko")}
        for module in without:
            have[module].unlink()
        for module, file in files.items():
            target = have.get(module, own / "updates" / file.name)
            write_bytes(target, file.read_bytes())
        index_modules(staging, kit.release)
        order, _ = _order(own)
        early = [(Path(path).name, (own / path).read_bytes()) for path in order]
        write_bytes(built / _INITRAMFS, kit.initramfs.read_bytes() + supplement(early, programs))
        make_erofs(top, built / _MODULES, "modules", root_owned=True)
        parts = {part: sha256_file(built / part) for part in (_MODULES, _INITRAMFS)}
        write_sealed(built / _FACTS, parts)
        replace_file(built, place)


def _check(kit: KernelKit, own: Path, without: Sequence[str]) -> None:
    """Refuse to withhold what is not there, or what guests need to come up."""
    have = {module_name(path.name) for path in own.rglob("*.ko")}
    needed = {module_name(Path(path).name) for path in _order(own)[0]} - {"overlay"}
    builtin = {module_name(Path(line).name) for line in _builtin(own).split()}
    for name in without:
        if name in needed:
            raise ConfigError(f"guests do not come up without {name}: it cannot be withheld")
        if name in builtin:
            raise ConfigError(f"{name} is built into kernel {kit.label}: it cannot be withheld")
        if name not in have:
            raise ConfigError(f"kernel {kit.label} has no module {name}", hint=near(name, have))


def _order(own: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return load_order((own / "modules.dep").read_text(), _builtin(own))


def _builtin(own: Path) -> str:
    path = own / "modules.builtin"
    return path.read_text() if path.exists() else ""


def _forget_old(directory: Path) -> None:
    """Remove variants that nothing used for a week, and what killed builds left."""
    for path in directory.iterdir():
        if path.is_dir() and path.stat().st_mtime < time.time() - _LIFETIME_S:
            shutil.rmtree(path, ignore_errors=True)
