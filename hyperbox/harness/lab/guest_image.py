"""The guest's file systems: one root for all kernels, the agent, and the project's own code.

They are EROFS images (see `erofs_image`), built reproducibly and cached by content. The root
depends on the package list only, the agent's image on the agent. What an experiment needs of
the project comes in an image of its own and of fixed size, so that a guest that was booted
without it can be given it: a change of code neither rebuilds the root nor boots a kernel.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hyperbox.errors import ConfigError, HarnessError
from hyperbox.files import has_sha256, locked, read_sealed, sha256_file, write_sealed
from hyperbox.harness.lab.debian_archive import debian_mirror
from hyperbox.harness.lab.erofs_image import make_erofs
from hyperbox.harness.lab.guest_packages import FILE_NAME, guest_packages
from hyperbox.harness.lab.import_closure import import_closure, named_in
from hyperbox.harness.model import Experiment
from hyperbox.paths import cache_directory, project_directory
from hyperbox.processes import require, run

__all__ = [
    "GuestImage",
    "agent_image",
    "no_project",
    "package_list",
    "project_image",
    "root_image",
]

_FORMAT = 4  # raise it when the way of building changes
_SUITE = "trixie"
_LIFETIME = 24 * 3600.0  # seconds that images of code are kept
_ROOT_SPACE = 2 << 30  # bytes that building the root needs
_PROJECT_PARTS = ("hyperbox", "suites", "workloads")
_PROJECT_SIZE = 8 << 20  # bytes of every project image: one can take another's place
_AGENT = (
    "hyperbox/harness/lab/agent.py",
    "hyperbox/harness/lab/repeatability_probe.py",
)
_EXCLUDED = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")
# By content, not by date: the image's files have none. Without it every start of Python
# in a guest would compile what it imports.
_COMPILE = (
    'chroot "$1" python3 -m compileall -qf --invalidation-mode unchecked-hash '
    '-x "/(test|tests|idlelib)/" $(cd "$1" && ls -d usr/lib/python3*)'
)


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


def agent_image() -> GuestImage:
    """Return the image of what every guest runs: the agent and the repeatability probe."""
    files = _project_files()
    return _packed("agent", {name: files[name] for name in import_closure(files, _AGENT)})


def project_image(experiment: Experiment | None = None) -> GuestImage:
    """Return the image of what an experiment needs of the project, or of the whole project.

    That is what its command lines name, what that imports (`import_closure`), and what it
    declares in ``uses``; so no other change of the project changes the image.

    Raises
    ------
    ConfigError
        If ``uses`` names nothing in the project.
    """
    files = _project_files()
    if experiment is not None:
        files = {name: files[name] for name in _needed_by(experiment, files)}
    return _packed("project", files, size=_PROJECT_SIZE)


def no_project() -> GuestImage:
    """Return an image that takes the place of a project's in a guest that has none yet."""
    return _packed("project", {}, size=_PROJECT_SIZE)


def _needed_by(experiment: Experiment, files: Mapping[str, Path]) -> tuple[str, ...]:
    modules = {name: path for name, path in files.items() if name.endswith(".py")}
    starts = [*_AGENT, *named_in([*experiment.prepare, *experiment.program], modules)]
    data = []
    for pattern in experiment.uses:
        found = named_in(["-m", pattern], modules) or tuple(fnmatch.filter(files, pattern))
        if not found:
            raise ConfigError(
                f"experiment {experiment.id}: uses {pattern!r}, which the project does not have",
                hint="name a module or a file below the project's directory; * is allowed",
            )
        starts += [name for name in found if name in modules]
        data += [name for name in found if name not in modules]
    return tuple(sorted({*import_closure(modules, starts), *data}))


def _packed(kind: str, files: Mapping[str, Path], *, size: int = 0) -> GuestImage:
    """Return the cached image of files, or make it; of `size` bytes if that is not 0."""
    digest = hashlib.sha256(f"{_FORMAT} {kind}".encode())
    for name, path in sorted(files.items()):
        digest.update(f"{name}\0{sha256_file(path)}\n".encode())
    directory = cache_directory() / "guest"
    stem = f"{kind}-{digest.hexdigest()[:16]}"
    with locked(directory / f"{stem}.lock"):
        cached = _cached(directory / f"{stem}.erofs")
        if cached is not None:
            return cached
        _forget_old(directory, kind)
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            tree = Path(scratch) / "tree"
            tree.mkdir()
            for name, path in files.items():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, tree / name)
            return _store(tree, directory / f"{stem}.erofs", kind, size=size)


def _project_files() -> dict[str, Path]:
    """Return every file that a guest may need, by its path below the project's directory."""
    root, package = project_directory(), Path(__file__).resolve().parents[2]
    files = {}
    for part in _PROJECT_PARTS:
        top = package if part == "hyperbox" else root / part
        for path in sorted(top.rglob("*")):
            if path.is_file() and path.suffix in (".py", ".toml"):
                files[f"{part}/{path.relative_to(top).as_posix()}"] = path
    packages = guest_packages()
    if packages is not None:
        files[FILE_NAME] = packages
    return files


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
        return _store(tree, directory / f"{name}.erofs", "root", facts=facts)


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


def _store(
    tree: Path, image: Path, kind: str, *, size: int = 0, facts: Mapping[str, object] | None = None
) -> GuestImage:
    """Pack a tree, and keep what is known of it beside the image."""
    make_erofs(tree, image, kind, size=size)
    digest = sha256_file(image)
    write_sealed(image.with_suffix(".json"), {**(facts or {}), "sha256": digest})
    return GuestImage(image, digest)


def _forget_old(directory: Path, kind: str) -> None:
    """Remove images that nothing asked for since a day."""
    for record in directory.glob(f"{kind}-*.json"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - record.stat().st_mtime > _LIFETIME:
                for path in (record, record.with_suffix(".erofs"), record.with_suffix(".lock")):
                    path.unlink(missing_ok=True)


def _cached(image: Path) -> GuestImage | None:
    """Return a cached image if it is whole; a damaged one is built anew."""
    record = image.with_suffix(".json")
    facts = read_sealed(record)
    if facts is None or not image.exists() or not has_sha256(image, facts["sha256"]):
        return None
    os.utime(record)  # the time of last use, see _forget_old
    return GuestImage(image, facts["sha256"])


def _need_space(directory: Path, wanted: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < wanted:
        raise HarnessError(
            f"{directory} has {free >> 20} MiB free, {wanted >> 20} MiB are needed",
            hint="free some space or set HYPERBOX_CACHE to another disk",
        )
