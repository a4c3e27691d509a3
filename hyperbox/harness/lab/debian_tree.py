"""Directories of installed Debian packages, made by mmdebstrap: what guests' images come from."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from hyperbox.errors import HarnessError
from hyperbox.files import sha256_file, write_text
from hyperbox.harness.lab.debian_archive import Progress
from hyperbox.harness.lab.guest_lock import GUEST_SUITE, fetched, packages_directory
from hyperbox.harness.lab.kernel_matrix import Package
from hyperbox.paths import cache_directory
from hyperbox.processes import require, run

__all__ = ["accounts", "bootstrap", "debian_key"]

_FORMAT = 3  # raise it when the way of building changes
_SPACE = 2 << 30  # bytes that building takes
_EXCLUDED = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")
# By content, not by date: the image's files have none. Without it every start of Python
# in a guest would compile what it imports.
_COMPILE = (
    'chroot "$1" python3 -m compileall -qf --invalidation-mode unchecked-hash '
    '-x "/(test|tests|idlelib)/" $(cd "$1" && ls -d usr/lib/python3*)'
)
# What differs between two builds of the same packages: logs, caches, names, keys.
_TRACES = (
    "var/log/**/*",
    "var/cache/**/*",
    "var/lib/systemd/random-seed",
    "etc/apt/sources.list",
    "etc/hostname",
    "etc/machine-id",
    "etc/resolv.conf",
    "etc/ssl/private/ssl-cert-snakeoil.key",
    "etc/ssl/certs/ssl-cert-snakeoil.pem",
)


def debian_key(*inputs: object) -> str:
    """Return what a tree's image is cached by: the inputs, and how it is made."""
    tool = sha256_file(Path(require("mkfs.erofs", "erofs-utils")))
    parts = [_FORMAT, GUEST_SUITE, _EXCLUDED, _TRACES, tool, *inputs]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def bootstrap(
    tree: Path,
    part: str,
    names: Sequence[str],
    progress: Progress,
    files: Mapping[str, str] | None = None,
) -> Mapping[str, object]:
    """Install the packages of a part of the guest, as locked, into a new directory.

    Parameters
    ----------
    tree
        The directory; it does not exist yet.
    part, names
        As of `fetched`, which says what is taken where the lock cannot be followed.
    files
        Files that are there before packages are configured: paths from the root, contents.

    Who calls it is root, of the machine or of a user namespace (`run_as_root`).

    Returns
    -------
    Mapping
        ``packages``: versions by name; ``remarks``: where they are not the locked ones;
        ``suite``; ``built``: seconds since 1970.

    Raises
    ------
    MissingDependency
        If mmdebstrap is missing.
    HarnessError
        If the mirror does not answer, they cannot be installed together, or the disk is full.
    """
    _need_space()
    found = fetched(part, names, progress)
    archive = tree.with_name("archive")
    _make_archive(archive, found.packages)
    command = [require("mmdebstrap", "mmdebstrap"), "--variant=minbase", "--quiet"]
    # sysfs cannot be mounted in a user namespace without a network namespace of its own.
    command += ["--mode=root", "--skip=chroot/mount/sys"]
    command += ['--aptopt=APT::Install-Recommends "false"']
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED]
    for path, text in sorted((files or {}).items()):
        source = tree.with_name("file-" + hashlib.sha256(path.encode()).hexdigest()[:8])
        source.write_text(text)
        source.chmod(0o644)
        command += [f'--essential-hook=mkdir -p "$1/{Path(path).parent}"']
        command += [f"--essential-hook=upload {shlex.quote(str(source))} /{path}"]
    command += [f"--customize-hook={_COMPILE}"]
    everything = ",".join(sorted(package.name for package in found.packages))
    origin = f"deb [trusted=yes] copy:{quote(os.fspath(archive))} ./"  # hashes were checked
    command += [f"--include={everything}", GUEST_SUITE, str(tree), origin]
    # Dates in the tree must not depend on the day of the build.
    scratch = os.fspath(tree.parent)
    run(command, timeout=1200, environment={"SOURCE_DATE_EPOCH": "0", "TMPDIR": scratch})
    versions = _installed_versions(tree)
    _remove_traces(tree)
    facts = {"packages": versions, "remarks": found.remarks, "suite": GUEST_SUITE}
    return {**facts, "built": int(time.time())}


def accounts(tree: Path) -> dict[str, list[str]]:
    """Return the lines of ``/etc/passwd`` and ``/etc/group``."""
    return {name: (tree / "etc" / name).read_text().splitlines() for name in ("passwd", "group")}


def _make_archive(directory: Path, packages: Sequence[Package]) -> None:
    """Make a flat archive of packages (Debian's repository format) that apt takes for the suite."""
    directory.mkdir()
    stanzas = []
    for package in packages:
        file = packages_directory() / f"{package.sha256}.deb"
        (directory / file.name).symlink_to(file)
        control = run([require("dpkg-deb", "dpkg"), "--field", file], timeout=60).text()
        facts = f"Filename: ./{file.name}\nSize: {package.size}\nSHA256: {package.sha256}"
        stanzas.append(f"{control}\n{facts}\n")
    listing = "\n".join(stanzas)
    digest, size = hashlib.sha256(listing.encode()).hexdigest(), len(listing.encode())
    write_text(directory / "Packages", listing)
    write_text(
        directory / "Release",
        f"Suite: {GUEST_SUITE}\nCodename: {GUEST_SUITE}\nArchitectures: amd64\n"
        f"Date: Thu, 01 Jan 1970 00:00:00 UTC\nSHA256:\n {digest} {size} Packages\n",
    )


def _installed_versions(tree: Path) -> dict[str, str]:
    form = "--showformat=${Package} ${Version}\\n"
    listing = run(["dpkg-query", f"--admindir={tree}/var/lib/dpkg", "-W", form], timeout=60)
    return dict(line.split(" ", 1) for line in listing.text().splitlines())


def _remove_traces(tree: Path) -> None:
    for pattern in _TRACES:
        for path in tree.glob(pattern):
            if path.is_file() or path.is_symlink():
                path.unlink()
    for path in (tree / "etc/ssl/certs").glob("*"):  # links by hash to what went
        if path.is_symlink() and path.readlink().name == "ssl-cert-snakeoil.pem":
            path.unlink()
    (tree / "etc/machine-id").touch()
    # Root of a user namespace cannot make device nodes; guests have a devtmpfs.
    shutil.rmtree(tree / "dev")
    (tree / "dev").mkdir(mode=0o755)


def _need_space() -> None:
    directory = cache_directory()
    directory.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(directory).free
    if free < _SPACE:
        raise HarnessError(
            f"{directory} has {free >> 20} MiB free, {_SPACE >> 20} MiB are needed",
            hint="free some space or set HYPERBOX_CACHE to another disk",
        )
