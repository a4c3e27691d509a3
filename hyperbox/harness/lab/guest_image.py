"""The guest's file systems: one root for all kernels, and the project's own code apart.

Both are EROFS images (plain lz4: 5.10 and 6.1 know no zstd), padded to 2 MiB for nvdimm,
built reproducibly and cached by content. The root depends on the package list only; the
code travels in a small image of its own, so that a code change never rebuilds the root.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hyperbox.errors import HarnessError
from hyperbox.files import locked, read_sealed, replace_file, sha256_file, write_sealed
from hyperbox.harness.lab.debian_archive import debian_mirror
from hyperbox.harness.lab.guest_packages import FILE_NAME, guest_packages
from hyperbox.paths import cache_directory, project_directory
from hyperbox.processes import require, run

__all__ = ["GuestImage", "make_erofs", "package_list", "project_image", "root_image"]

ALIGNMENT = 2 << 20
_FORMAT = 3  # raise it when the way of building changes
_SUITE = "trixie"
_PROJECT_LIFETIME = 24 * 3600.0  # seconds
_ROOT_SPACE = 2 << 30  # bytes that building the root needs
_PROJECT_PARTS = ("hyperbox", "suites", "workloads")
_EXCLUDED = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")
# By content, not by date: the image's files have none. Without it every start of Python
# in a guest would compile what it imports.
_COMPILE = (
    'chroot "$1" python3 -m compileall -qf --invalidation-mode unchecked-hash '
    '-x "/(test|tests|idlelib)/" $(cd "$1" && ls -d usr/lib/python3*)'
)
_UUID = "68797065-7262-6f78-0000-00000000000"  # "hyperbox", and a digit that says which


@dataclass(frozen=True)
class GuestImage:
    """An EROFS file and its hash."""

    path: Path
    sha256: str


def package_list(text: str) -> tuple[str, ...]:
    """Return the package names of ``guest-packages.txt``: one a line, ``#`` for the reason."""
    names = (line.partition("#")[0].strip() for line in text.splitlines())
    return tuple(sorted(name for name in names if name))


def root_image(progress: Callable[[str, float], None] | None = None) -> GuestImage:
    """Return the root image, built with mmdebstrap if the cache has none.

    Parameters
    ----------
    progress
        Called with a text and the fraction done (0 to 1).

    Raises
    ------
    MissingDependency
        If mmdebstrap or mkfs.erofs is missing.
    HarnessError
        If the mirror does not answer or the disk is full.
    """
    packages = package_list((project_directory() / "vm-images/guest-packages.txt").read_text())
    mkfs = require("mkfs.erofs", "erofs-utils")
    inputs = [_FORMAT, _SUITE, packages, _EXCLUDED, sha256_file(Path(mkfs))]
    key = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]
    directory = cache_directory() / "guest"
    with locked(directory / f"root-{key}.lock"):
        cached = _cached(directory / f"root-{key}.erofs")
        if cached is not None:
            return cached
        report = progress or (lambda _text, _fraction: None)
        report("building the guest root", 0.0)
        image = _build_root(directory, f"root-{key}", packages)
        report("building the guest root", 1.0)
        return image


def project_image() -> GuestImage:
    """Return the image of the project's own code, keyed by its content."""
    root = project_directory()
    digest = hashlib.sha256(str(_FORMAT).encode())
    files = sorted(_project_files(root))
    for name, path in files:
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    directory = cache_directory() / "guest"
    name = f"project-{digest.hexdigest()[:16]}"
    with locked(directory / f"{name}.lock"):
        cached = _cached(directory / f"{name}.erofs")
        if cached is not None:
            return cached
        _forget_old_projects(directory)
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            tree = Path(scratch) / "tree"
            for relative, path in files:
                (tree / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, tree / relative)
            return _store(tree, directory / f"{name}.erofs", digit=2, facts={})


def make_erofs(tree: Path, image: Path, *, uuid: str) -> None:
    """Pack a directory: same tree, same bytes. Padded to 2 MiB for nvdimm.

    The file is written under a temporary name, synced and renamed.
    """
    temporary = image.with_name(f".{image.name}.{os.getpid()}")
    mkfs = require("mkfs.erofs", "erofs-utils")
    try:
        run([mkfs, "-zlz4", "--quiet", "-T0", f"-U{uuid}", temporary, tree], timeout=600)
        size = temporary.stat().st_size
        with temporary.open("r+b") as stream:
            stream.truncate(-(-size // ALIGNMENT) * ALIGNMENT)
        replace_file(temporary, image)
    finally:
        temporary.unlink(missing_ok=True)


def _project_files(root: Path) -> Iterator[tuple[str, Path]]:
    package = Path(__file__).resolve().parents[2]
    for part in _PROJECT_PARTS:
        top = package if part == "hyperbox" else root / part
        for path in top.rglob("*"):
            if path.is_file() and path.suffix in (".py", ".toml"):
                yield f"{part}/{path.relative_to(top).as_posix()}", path
    packages = guest_packages()
    if packages is not None:
        yield FILE_NAME, packages


def _build_root(directory: Path, name: str, packages: tuple[str, ...]) -> GuestImage:
    mmdebstrap = require("mmdebstrap", "mmdebstrap")
    _need_space(directory, _ROOT_SPACE)
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        tree = Path(scratch) / "tree"
        command = [mmdebstrap, "--variant=minbase", "--quiet"]
        command += ["--mode=root" if os.geteuid() == 0 else "--mode=unshare"]
        command += ['--aptopt=APT::Install-Recommends "false"']
        command += [f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED]
        command += [f"--customize-hook={_COMPILE}"]
        command += [f"--include={','.join(packages)}", _SUITE, str(tree), debian_mirror()]
        # Dates in the tree must not depend on the day of the build.
        run(command, timeout=1200, environment={"SOURCE_DATE_EPOCH": "0", "TMPDIR": scratch})
        versions = _installed_versions(tree)
        _remove_traces(tree)
        facts = {"packages": versions, "suite": _SUITE, "built": int(time.time())}
        return _store(tree, directory / f"{name}.erofs", digit=1, facts=facts)


def _installed_versions(tree: Path) -> dict[str, str]:
    form = "--showformat=${Package} ${Version}\\n"
    listing = run(["dpkg-query", f"--admindir={tree}/var/lib/dpkg", "-W", form], timeout=60)
    return dict(line.split(" ", 1) for line in listing.text().splitlines())


def _remove_traces(tree: Path) -> None:
    """Remove what differs between two builds of the same packages."""
    for pattern in ("var/log/**/*", "var/cache/**/*", "etc/machine-id", "etc/hostname"):
        for path in tree.glob(pattern):
            if path.is_file() or path.is_symlink():
                path.unlink()
    for pattern in ("etc/resolv.conf", "var/lib/systemd/random-seed"):
        for path in tree.glob(pattern):
            path.unlink()
    (tree / "etc/machine-id").touch()


def _store(tree: Path, image: Path, *, digit: int, facts: dict[str, object]) -> GuestImage:
    make_erofs(tree, image, uuid=f"{_UUID}{digit}")
    digest = sha256_file(image)
    write_sealed(image.with_suffix(".json"), {**facts, "sha256": digest})
    return GuestImage(image, digest)


def _forget_old_projects(directory: Path) -> None:
    """Remove project images of earlier days; a run that uses one today keeps it."""
    for path in directory.glob("project-*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _PROJECT_LIFETIME:
                path.unlink()


def _cached(image: Path) -> GuestImage | None:
    """Return a cached image if it is whole; a damaged one is built anew."""
    facts = read_sealed(image.with_suffix(".json"))
    if facts is None or not image.exists() or sha256_file(image) != facts["sha256"]:
        return None
    return GuestImage(image, facts["sha256"])


def _need_space(directory: Path, wanted: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < wanted:
        raise HarnessError(
            f"{directory} has {free >> 20} MiB free, {wanted >> 20} MiB are needed",
            hint="free some space or set HYPERBOX_CACHE to another disk",
        )
