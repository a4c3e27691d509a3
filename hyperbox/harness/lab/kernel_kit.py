"""Everything a guest needs of one kernel, built once and cached by content.

The cache below ``kernels/`` of the cache directory: ``debs/`` (fetched packages by hash),
``kits/`` (image, initramfs, modules image, configuration, and a manifest with the hash of
each), ``apt/`` (the private apt root). A kit is built under a temporary name and renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hyperbox.errors import ConfigError, HarnessError, MissingDependency
from hyperbox.files import (
    has_sha256,
    locked,
    read_sealed,
    replace_file,
    sha256_file,
    write_bytes,
    write_sealed,
)
from hyperbox.harness.lab.custom_kernel import custom_kernel
from hyperbox.harness.lab.debian_archive import DebianArchive, MirrorSilent, PackageGone
from hyperbox.harness.lab.erofs_image import make_erofs
from hyperbox.harness.lab.host_kernel import RUNNING, running_kernel
from hyperbox.harness.lab.initramfs import initramfs, load_order
from hyperbox.harness.lab.kernel_lock import hash_pool_packages, read_lock, read_matrix
from hyperbox.harness.lab.kernel_matrix import KernelRelease, Matrix, Package, newest, releases
from hyperbox.harness.lab.kernel_tree import (
    KernelTree,
    build_id,
    digests,
    stage_modules,
    unpack_debs,
)
from hyperbox.harness.lab.point_releases import find_release, is_point_release, point_releases
from hyperbox.paths import cache_directory, project_directory

__all__ = [
    "KernelKit",
    "cached_kits",
    "kernel_kit",
    "kernel_kits",
    "kernels_directory",
    "packaged_kernels",
]

_FORMAT = 4  # raise it when the way of building changes
_BUSYBOX = Path("/bin/busybox")
_LISTS_FRESH_S = 3600.0
_MANIFEST = "manifest.json"
_BUILDING = ".building-"
_SPACE = 512 << 20  # bytes free to build a kit: unpacked, uncompressed, and the image
_FILES = frozenset(("vmlinuz", "initramfs.cpio", "config"))
_KIT_LIFETIME_S = 7 * 24 * 3600.0

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class KernelKit:
    """A kernel ready to boot.

    `label` is the series ("6.12"), the version of a point release, or a custom kernel's
    release; `package` and `version` are Debian's, empty for a custom kernel; `sha256` is that
    of the deb with the kernel image, or of the bzImage; `build` distinguishes what else differs,
    see `build_id`. `modules_image` is an EROFS file of a multiple of 2 MiB whose root is the
    content of ``/usr/lib/modules``; None if the kernel has no modules. `unsigned` names the
    packages that no signed list vouches for, `withheld` the modules that a variant lacks.
    """

    label: str
    release: str
    package: str
    version: str
    sha256: str
    build: str
    vmlinuz: Path
    initramfs: Path
    modules_image: Path | None
    config: Path
    remarks: tuple[str, ...]
    unsigned: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Recipe:
    """What goes into every initramfs: the init script and busybox."""

    init: bytes
    busybox: bytes

    def key(self, *inputs: str) -> str:
        """Return the cache key of a kit made with this recipe from `inputs`."""
        hashes = [hashlib.sha256(part).hexdigest() for part in (self.init, self.busybox)]
        return hashlib.sha256(json.dumps([_FORMAT, *hashes, *inputs]).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Identity:
    """What a kit is of."""

    label: str
    release: str
    package: str
    version: str
    sha256: str
    unsigned: tuple[str, ...] = ()


def kernels_directory() -> Path:
    """Return the directory of all cached kernels."""
    return cache_directory() / "kernels"


def kernel_kit(
    label_or_path: str,
    *,
    modules: Path | None = None,
    mirror: str | None = None,
    progress: Progress | None = None,
) -> KernelKit:
    """Return a kernel ready to boot, fetched and built if the cache has none.

    Parameters
    ----------
    label_or_path
        A series of the matrix ("6.12"), one packaged kernel ("6.12.90", see `find_release`),
        the path of a bzImage, or "host": the kernel that this machine runs.
    modules
        Modules of the bzImage; see `custom_kernel`.
    mirror
        URL of a Debian mirror; see `debian_mirror`.
    progress
        Called with a text and the fraction done (0 to 1).

    Raises
    ------
    ConfigError
        If there is no such series, or the file is not a kernel.
    MissingDependency
        If a program is missing.
    HarnessError
        If the mirror does not answer and the cache has no kernel of the series, or the
        mirror's file has another hash than the locked one.
    """
    report = progress or (lambda _text, _fraction: None)
    try:
        if label_or_path == RUNNING:
            return _custom_kit(*running_kernel(), report)
        if os.sep in label_or_path:
            return _custom_kit(Path(label_or_path), modules, report)
        if modules is not None:
            raise ConfigError("a modules directory needs the path of a bzImage, not a series")
        if is_point_release(label_or_path):
            return _point_kit(label_or_path, mirror, report)
        return _debian_kit(label_or_path, mirror, report)
    except OSError as error:
        raise HarnessError(
            f"cannot prepare kernel {label_or_path}: {error.strerror or error}",
            hint=f"check the space and the permissions of {kernels_directory()}",
        ) from error


def kernel_kits(
    labels: Sequence[str],
    *,
    mirror: str | None = None,
    progress: Callable[[str, str, float], None] | None = None,
) -> tuple[KernelKit, ...]:
    """Return the kits of several series, one after the other.

    `progress` is called with the label, a text and the fraction of that kernel done.
    """
    report = progress or (lambda _label, _text, _fraction: None)
    kits = []
    for label in labels:

        def one(text: str, fraction: float, label: str = label) -> None:
            report(label, text, fraction)

        kits.append(kernel_kit(label, mirror=mirror, progress=one))
        report(label, "ready", 1.0)
    return tuple(kits)


def cached_kits(label: str) -> tuple[KernelKit, ...]:
    """Return the whole kits of a label in the cache that today's recipe would make."""
    recipe = _recipe()
    found = []
    for manifest in sorted((kernels_directory() / "kits").glob(f"{label}-*/{_MANIFEST}")):
        kit, document = _load(manifest.parent)
        if kit and kit.label == label and recipe.key(*document["inputs"]) == document["key"]:
            found.append(kit)
    return tuple(found)


def _debian_kit(label: str, mirror: str | None, report: Progress) -> KernelKit:
    matrix = read_matrix()
    if label not in matrix.labels():
        members = matrix.expand([label])
        raise ConfigError(f"{label!r} is a set of kernels: {', '.join(members)}")
    pinned = read_lock().get(label)
    try:
        if pinned is None:
            return _newest_kit(label, matrix, "the series is not locked", mirror, report)
        try:
            return _kit_of(pinned, mirror, report)
        except PackageGone as gone:
            return _newest_kit(label, matrix, gone.message, mirror, report)
    except MirrorSilent as silent:
        kits = cached_kits(label)
        if not kits:
            raise
        remark = f"{silent.message}; cached {kits[-1].version} used"
        return replace(kits[-1], remarks=(*kits[-1].remarks, remark))


def packaged_kernels(
    mirror: str | None = None, progress: Progress | None = None, *, refresh: bool = True
) -> tuple[KernelRelease, ...]:
    """Return every kernel that the mirror has, oldest version first; see `point_releases`.

    Lists older than an hour are fetched again, unless `refresh` is false and there are any.

    Raises
    ------
    MirrorSilent, UntrustedLists, MissingDependency
        As of `DebianArchive.refresh`.
    """
    archive, matrix = _archive(mirror), read_matrix()
    packages = archive.known() if archive.age() < _LISTS_FRESH_S or not refresh else None
    if packages is None:
        packages = archive.refresh(matrix.suites, matrix.flavour, progress)
    return point_releases(packages, matrix.flavour, read_lock().values())


def _point_kit(name: str, mirror: str | None, report: Progress) -> KernelKit:
    """Return one packaged kernel; its label is the package version."""
    cached = cached_kits(name)
    if cached:
        return cached[-1]
    release = _point_release(name, mirror, report)
    if release in read_lock().values():
        return replace(_kit_of(release, mirror, report), label=release.version)
    whole = hash_pool_packages(release, _archive(mirror), kernels_directory())
    return _kit_of(replace(whole, series=release.version), mirror, report)


def _point_release(name: str, mirror: str | None, report: Progress) -> KernelRelease:
    """Look in the lock, in the lists that are there, and in fresh ones."""
    sources: tuple[Callable[[], Sequence[KernelRelease]], ...] = (
        lambda: tuple(read_lock().values()),
        lambda: packaged_kernels(mirror, report, refresh=False),
    )
    for source in sources:
        with contextlib.suppress(ConfigError):
            return find_release(name, source(), {})
    return find_release(name, packaged_kernels(mirror, report), {})


def _newest_kit(
    label: str, matrix: Matrix, why: str, mirror: str | None, report: Progress
) -> KernelKit:
    archive = _archive(mirror)
    packages = archive.known() if archive.age() < _LISTS_FRESH_S else None
    if packages is None:
        packages = archive.refresh(matrix.suites, matrix.flavour, report)
    release = newest(label, releases(packages, matrix.flavour))
    if release is None:
        raise HarnessError(
            f"no kernel of the series {label} on {archive.mirror}; {why}",
            hint="choose another series, or set HYPERBOX_DEBIAN_MIRROR to another mirror",
        )
    kit = _kit_of(release, mirror, report)
    lacking = ", ".join(archive.left_out)
    older = f", which may be old: the mirror has no {lacking}" if lacking else ""
    return replace(kit, remarks=(*kit.remarks, f"{why}; newest {release.version} used{older}"))


def _kit_of(release: KernelRelease, mirror: str | None, report: Progress) -> KernelKit:
    main = release.kernel_package
    unsigned = tuple(part.name for part in release.packages if not part.listed)
    identity = _Identity(
        release.series, release.release, main.name, release.version, main.sha256, unsigned
    )
    inputs = [package.sha256 for package in release.packages]

    def unpack(scratch: Path, remarks: list[str]) -> KernelTree:
        debs = [_deb(package, mirror, remarks, report) for package in release.packages]
        report(f"unpacking {release.release}", 0.7)
        return unpack_debs(debs, release.release, scratch)

    return _cached_or_built(identity, inputs, unpack, report)


def _custom_kit(path: Path, modules: Path | None, report: Progress) -> KernelKit:
    tree = custom_kernel(path, modules)
    inputs = digests(tree)
    identity = _Identity(tree.release, tree.release, "", "", inputs[0])
    return _cached_or_built(identity, inputs, lambda _scratch, _remarks: tree, report)


def _cached_or_built(
    identity: _Identity,
    inputs: Sequence[str],
    unpack: Callable[[Path, list[str]], KernelTree],
    report: Progress,
) -> KernelKit:
    recipe = _recipe()
    key = recipe.key(*inputs)
    directory = kernels_directory() / "kits" / f"{identity.label}-{key}"
    remarks: list[str] = []
    with locked(directory.with_name(f".{directory.name}.lock")):
        if directory.exists():
            kit, _ = _load(directory)
            if kit is not None:
                return kit
            remarks.append("the cached kit was corrupted; built again")
        _forget_old_kits(identity.label)
        _need_space(directory.parent)
        with _Scratch(dir=directory.parent, prefix=_BUILDING) as name:
            scratch = Path(name)
            tree = unpack(scratch / "unpacked", remarks)
            report(f"building the kit of {identity.release}", 0.8)
            built = scratch / "kit"
            missing = _build(tree, recipe, scratch, built)
            _write_manifest(built, identity, key, inputs, missing)
            if directory.exists():
                directory.rename(scratch / "corrupted")
            replace_file(built, directory)
    report(f"kernel {identity.release} is ready", 1.0)
    kit, _ = _load(directory)
    if kit is None:
        raise HarnessError(f"{directory} changed while it was read")
    return replace(kit, remarks=(*remarks, *kit.remarks))


class _Scratch(tempfile.TemporaryDirectory[str]):
    """A scratch directory whose removal an interrupt delays and does not cut short."""

    def cleanup(self) -> None:
        """Remove it."""
        try:
            super().cleanup()
        except KeyboardInterrupt:
            shutil.rmtree(self.name, ignore_errors=True)
            raise


def _forget_old_kits(label: str) -> None:
    """Remove kits that nothing used for a week, of this label or of point releases.

    What killed builds left goes too.
    """
    root = kernels_directory()
    old = time.time() - _KIT_LIFETIME_S
    points = "kits/*.*.*-*"  # dozens of them: each is seldom asked for again
    patterns = (f"kits/{label}-*", points, f"kits/{_BUILDING}*", "debs/.fetching-*")
    for path in (path for pattern in patterns for path in root.glob(pattern)):
        manifest = path / _MANIFEST
        used = manifest if manifest.exists() else path
        with contextlib.suppress(FileNotFoundError):
            if used.stat().st_mtime < old:
                shutil.rmtree(path)


def _need_space(directory: Path) -> None:
    free = shutil.disk_usage(directory).free
    if free < _SPACE:
        raise HarnessError(
            f"no space to build a kernel's kit: {free >> 20} MiB free, {_SPACE >> 20} needed",
            hint=f"free some space below {directory}, or set HYPERBOX_CACHE to another directory",
        )


def _build(tree: KernelTree, recipe: _Recipe, scratch: Path, kit: Path) -> tuple[str, ...]:
    """Fill the directory `kit`; return the early drivers that the kernel lacks."""
    kit.mkdir()
    early: list[tuple[str, bytes]] = []
    missing: tuple[str, ...] = ()
    if tree.modules is not None:
        top = stage_modules(tree.modules, tree.release, scratch / "staging")
        own = top / tree.release
        builtin = own / "modules.builtin"
        order, missing = load_order(
            (own / "modules.dep").read_text(), builtin.read_text() if builtin.exists() else ""
        )
        early = [(Path(path).name, (own / path).read_bytes()) for path in order]
        make_erofs(top, kit / "modules.erofs", "modules", root_owned=True)
    shutil.copyfile(tree.vmlinuz, kit / "vmlinuz")
    write_bytes(kit / "initramfs.cpio", initramfs(recipe.init, recipe.busybox, early))
    unknown = b"# no configuration was found with this kernel\n"
    write_bytes(kit / "config", tree.config.read_bytes() if tree.config else unknown)
    return missing


def _write_manifest(
    kit: Path, identity: _Identity, key: str, inputs: Sequence[str], missing: Iterable[str]
) -> None:
    files = {}
    for path in sorted(kit.iterdir()):
        with path.open("rb+") as stream:
            os.fsync(stream.fileno())
        files[path.name] = {"size": path.stat().st_size, "sha256": sha256_file(path)}
    document = {
        **vars(identity),
        "files": files,
        "inputs": list(inputs),
        "key": key,
        "missing": list(missing),
    }
    write_sealed(kit / _MANIFEST, document)


def _load(directory: Path) -> tuple[KernelKit | None, dict[str, list[str] | str]]:
    """Read a kit and its manifest; no kit if a file is not what the manifest says."""
    document = read_sealed(directory / _MANIFEST)
    if document is None:
        return None, {}
    try:
        if not document["files"].keys() >= _FILES:
            return None, {}
        for name, facts in document["files"].items():
            path = directory / name
            if path.stat().st_size != facts["size"] or not has_sha256(path, facts["sha256"]):
                return None, {}
        kit = KernelKit(
            label=document["label"],
            release=document["release"],
            package=document["package"],
            version=document["version"],
            sha256=document["sha256"],
            build=build_id(document["inputs"]),
            vmlinuz=directory / "vmlinuz",
            initramfs=directory / "initramfs.cpio",
            modules_image=(
                directory / "modules.erofs" if "modules.erofs" in document["files"] else None
            ),
            config=directory / "config",
            unsigned=tuple(document["unsigned"]),
            remarks=tuple(_standing_remarks(document)),
        )
        os.utime(directory / _MANIFEST)  # the time of last use, see _forget_old_kits
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None, {}
    return kit, document


def _standing_remarks(document: Mapping[str, Any]) -> Iterator[str]:
    if document["missing"]:
        yield f"kernel lacks drivers: {', '.join(document['missing'])}"
    if document["unsigned"]:
        yield f"no signed list names {', '.join(document['unsigned'])}"


def _deb(package: Package, mirror: str | None, remarks: list[str], report: Progress) -> Path:
    path = kernels_directory() / "debs" / f"{package.sha256}.deb"
    with locked(path.with_suffix(".lock")):
        if path.exists():
            if sha256_file(path) == package.sha256:
                return path
            remarks.append(f"the cached {package.name} was corrupted; fetched again")
            path.unlink()
        _archive(mirror).download(
            package, path, lambda text, done: report(f"fetching {text}", 0.7 * done)
        )
    return path


def _recipe() -> _Recipe:
    init = project_directory() / "vm-images" / "init.sh"
    try:
        busybox = _BUSYBOX.read_bytes()
    except FileNotFoundError:
        busybox = b""
    # A dynamic busybox finds no libc in the initramfs.
    if not busybox or b"ld-linux" in busybox[:4096]:
        raise MissingDependency(
            f"no static {_BUSYBOX}", hint="apt-get install --no-install-recommends busybox-static"
        )
    return _Recipe(init.read_bytes(), busybox)


def _archive(mirror: str | None) -> DebianArchive:
    return DebianArchive(kernels_directory() / "apt", mirror=mirror)
