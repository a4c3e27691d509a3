"""The guest's file systems: one root for all kernels, the agent, and the project's own code.

They are EROFS images (see `erofs_image`), built reproducibly and cached by content. The root
depends on the package list only, the agent's image on the agent. What an experiment needs of
the project comes in an image of its own and of fixed size, so that a guest that was booted
without it can be given it: a change of code neither rebuilds the root nor boots a kernel.
"""

from __future__ import annotations

import fnmatch
import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from hyperbox.errors import ConfigError
from hyperbox.files import sha256_file
from hyperbox.harness.lab.debian_tree import accounts, bootstrap, debian_key
from hyperbox.harness.lab.guest_lock import ROOT, pinned
from hyperbox.harness.lab.image_cache import GuestImage, forget_old_images, made_once
from hyperbox.harness.lab.import_closure import import_closure, named_in
from hyperbox.harness.lab.user_namespace import run_as_root
from hyperbox.harness.model import Experiment
from hyperbox.paths import project_directory

__all__ = [
    "agent_image",
    "no_project",
    "package_list",
    "project_image",
    "root_image",
    "root_packages",
]

_FORMAT = 5  # raise it when the way of building changes
_PROJECT_PARTS = ("hyperbox", "suites", "workloads")
_PROJECT_SIZE = 8 << 20  # bytes of every project image: one can take another's place
_AGENT = (
    "hyperbox/harness/lab/agent.py",
    "hyperbox/harness/lab/repeatability_probe.py",
)


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
    packages = root_packages()
    locked = pinned(ROOT, packages)
    report = progress or (lambda _text, _fraction: None)

    def fill(tree: Path) -> Mapping[str, object]:
        report("building the guest root", 0.0)
        facts = bootstrap(tree, ROOT, packages, report)
        paths = sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*"))
        report("building the guest root", 1.0)
        return {**facts, "paths": paths, "accounts": accounts(tree)}

    def as_root() -> None:
        report("building the guest root", 0.0)
        run_as_root("hyperbox.harness.lab.layers")
        report("building the guest root", 1.0)

    key = debian_key(locked.key() if locked else packages)
    return made_once(f"root-{key}", "root", fill, as_root=as_root)


def root_packages() -> tuple[str, ...]:
    """Return the names of the packages that are in every guest."""
    return package_list((project_directory() / "vm-images/guest-packages.txt").read_text())


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
        stem = pattern.replace(".", "/")
        places = (f"{stem}.py", f"{stem}/__init__.py", f"{stem}/__main__.py")
        found = [name for name in places if name in modules] or fnmatch.filter(files, pattern)
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

    def fill(tree: Path) -> Mapping[str, object]:
        forget_old_images(kind)
        tree.mkdir()
        for name, path in files.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, tree / name)
        for path in (tree, *tree.rglob("*")):  # whatever the user's umask
            path.chmod(0o755 if path.is_dir() else 0o644)
        return {}

    stem = f"{kind}-{digest.hexdigest()[:16]}"
    return made_once(stem, kind, fill, size=size, root_owned=True)


def _project_files() -> dict[str, Path]:
    """Return every file that a guest may need, by its path below the project's directory."""
    root, package = project_directory(), Path(__file__).resolve().parents[2]
    files = {}
    for part in _PROJECT_PARTS:
        top = package if part == "hyperbox" else root / part
        for path in sorted(top.rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                files[f"{part}/{path.relative_to(top).as_posix()}"] = path
    return files
