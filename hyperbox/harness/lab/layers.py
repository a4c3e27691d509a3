"""Layers: images of what more a guest can have, stacked on the root where they are asked for.

``vm-images/layers.toml`` declares them. An image holds what its packages add to the root's,
never another version of what the root has, so that layers can be stacked in any number and
order. Accounts that packages make are kept as lines that `vm-images/init.sh` appends.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperbox.errors import (
    ConfigError,
    ExitCode,
    HarnessError,
    HyperboxError,
    MissingDependency,
    near,
)
from hyperbox.files import sha256_file
from hyperbox.foreign import read_toml
from hyperbox.harness.lab.debian_tree import accounts, bootstrap, debian_key
from hyperbox.harness.lab.guest_image import root_image, root_packages
from hyperbox.harness.lab.guest_lock import ROOT, pinned
from hyperbox.harness.lab.image_cache import GuestImage, made_once
from hyperbox.harness.lab.user_namespace import run_as_root
from hyperbox.paths import project_directory
from hyperbox.printing import print_error

__all__ = [
    "PYTHON_DIRECTORY",
    "GuestLayer",
    "guest_parts",
    "layer_image",
    "layers_path",
    "named_layers",
    "parse_layers",
    "read_layers",
]

PYTHON_DIRECTORY = "usr/lib/hyperbox/python"
"""Where a layer's Python distributions lie in a guest; the warm-up compiles them."""
_FORMAT = 1  # raise it when the way of building changes
_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_REQUIREMENT = re.compile(r"\s*(?P<name>[\w.-]+)[^;]*(;(?P<marker>.*))?")
_SITE = "usr/lib/python3/dist-packages"
_UNWANTED = ("var/lib/dpkg", "var/lib/apt", "var/lib/ucf", "var/lib/systemd")
"""Books about the root as it would be with the layer alone."""


@dataclass(frozen=True)
class GuestLayer:
    """A declaration: names with their reasons, and texts by the files' paths."""

    id: str
    title: str
    packages: Mapping[str, str]
    python: Mapping[str, str]
    files: Mapping[str, str]


def layers_path() -> Path:
    """Return the file that declares the layers."""
    return project_directory() / "vm-images" / "layers.toml"


def read_layers() -> Mapping[str, GuestLayer]:
    """Return the declared layers by their ids; ConfigError if a declaration is wrong."""
    path = layers_path()
    return parse_layers(read_toml(path), path)


def named_layers(names: Iterable[str]) -> tuple[str, ...]:
    """Return names of layers, sorted and once each; ConfigError if one is not declared."""
    wanted = sorted(set(names))
    known = read_layers() if wanted else {}
    for name in wanted:
        if name not in known:
            raise ConfigError(f"no layer is called {name!r}", hint=near(name, known))
    return tuple(wanted)


def parse_layers(document: Mapping[str, Any], path: Path) -> Mapping[str, GuestLayer]:
    """Return the layers of parsed TOML; `path` is for the messages.

    Raises
    ------
    ConfigError
        If an entry is not a layer, or an id occurs twice.
    """
    found: dict[str, GuestLayer] = {}
    entries = document.get("layer")
    if set(document) != {"layer"} or not isinstance(entries, list):
        raise ConfigError(f"{path}: expected [[layer]] entries and nothing else")
    for number, entry in enumerate(entries, start=1):
        layer = _layer(entry, f"{path}: layer number {number}")
        if layer.id in found:
            raise ConfigError(f"{path}: layer {layer.id!r} is declared twice")
        found[layer.id] = layer
    return found


def layer_image(name: str, progress: Callable[[str, float], None] | None = None) -> GuestImage:
    """Return the image of a layer, made if the cache has none.

    Parameters
    ----------
    progress
        Called with a text and the fraction done (0 to 1).

    Raises
    ------
    ConfigError
        If no layer has the name.
    MissingDependency
        If a program or a Python distribution is missing.
    HarnessError
        If the mirror does not answer, or has other versions than the cached root.
    """
    named_layers([name])
    layer = read_layers()[name]
    report = progress or (lambda _text, _fraction: None)
    root = root_image(progress) if layer.packages else None
    distributions = _distributions(layer.python)
    modules = dict(item for one in distributions.values() for item in _modules(one))

    def fill(tree: Path) -> Mapping[str, object]:
        report(f"building the layer {name}", 0.0)
        facts = {} if root is None else _install(layer, tree, root.facts(), report)
        _copy(layer, tree, modules)
        report(f"building the layer {name}", 1.0)
        return {**facts, "python": {key: one.version for key, one in distributions.items()}}

    inputs = [_FORMAT, sorted(layer.packages), sorted(layer.files.items())]
    inputs += [[target, sha256_file(source)] for target, source in sorted(modules.items())]
    if root:
        locked = pinned(name, _installed_with(layer))
        inputs += [root.sha256, locked.key() if locked else "newest"]

    def as_root() -> None:
        report(f"building the layer {name}", 0.0)
        run_as_root("hyperbox.harness.lab.layers", name)
        report(f"building the layer {name}", 1.0)

    stem = f"layer-{name}-{debian_key(*inputs)}"
    return made_once(stem, f"layer-{name}", fill, as_root=as_root)


def main(names: Sequence[str]) -> int:
    """Make the root, or the named layers, as `run_as_root` does; return the exit code."""
    try:
        for name in names:
            layer_image(name)
        if not names:
            root_image()
    except HyperboxError as error:
        print_error(error)
        return error.exit_code
    return ExitCode.PASS


def _layer(entry: object, where: str) -> GuestLayer:
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: not a table")
    tables = {key: entry.get(key, {}) for key in ("packages", "python", "files")}
    name, title = entry.get("id"), entry.get("title")
    if not isinstance(name, str) or not _ID.fullmatch(name):
        raise ConfigError(f"{where}: id {name!r} is not small letters, digits and single '-'")
    if not isinstance(title, str) or not title.strip():
        raise ConfigError(f"{where}: {name!r} has no title")
    unknown = set(entry) - {"id", "title", *tables}
    if unknown:
        raise ConfigError(f"{where}: unknown key {min(unknown)!r}", hint=near(min(unknown), tables))
    for key, table in tables.items():
        if not isinstance(table, dict) or not all(
            isinstance(text, str) and text.strip() for text in table.values()
        ):
            raise ConfigError(f"{where}: {key} must be names with texts, such as name = 'reason'")
    if not tables["packages"] and not tables["python"]:
        raise ConfigError(f"{where}: {name!r} has neither packages nor python")
    return GuestLayer(name, title, **tables)


def guest_parts() -> dict[str, tuple[str, ...]]:
    """Return the packages that are declared for the root and for each layer that has any."""
    layers = {one.id: _installed_with(one) for one in read_layers().values() if one.packages}
    return {ROOT: root_packages(), **layers}


def _installed_with(layer: GuestLayer) -> tuple[str, ...]:
    return (*root_packages(), *layer.packages)


def _install(
    layer: GuestLayer, tree: Path, root: Mapping[str, Any], report: Callable[[str, float], None]
) -> Mapping[str, object]:
    """Install the packages beside the root's, and leave what the root does not have."""
    facts = bootstrap(tree, layer.id, _installed_with(layer), report, layer.files)
    versions: Any = facts["packages"]
    ours: Mapping[str, str] = root["packages"]
    moved = sorted(one for one in ours if versions.get(one) != ours[one])
    if moved:
        raise HarnessError(
            f"layer {layer.id}: the mirror has other versions than the guests' root was made of: "
            f"{moved[0]} {versions.get(moved[0])}, not {ours[moved[0]]}, and {len(moved) - 1} more",
            hint="hyperbox guests update locks what the mirror has: root and layer are made anew",
        )
    mine = accounts(tree)
    for path in (tree / name for name in _UNWANTED):
        shutil.rmtree(path, ignore_errors=True)
    _subtract(tree, frozenset(root["paths"]))
    for kind, lines in mine.items():
        new = [line for line in lines if line not in root["accounts"][kind]]
        if new:
            (tree / f".hyperbox-{kind}").write_text("".join(f"{line}\n" for line in new))
    added = {one: version for one, version in versions.items() if one not in ours}
    return {**facts, "packages": added}


def _subtract(tree: Path, paths: frozenset[str]) -> None:
    """Remove what the root has; directories of it stay where something new is below them."""
    for directory, names, files in os.walk(tree, topdown=False):
        for name in (*names, *files):
            path = Path(directory, name)
            if path.relative_to(tree).as_posix() not in paths:
                continue
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
            else:
                path.unlink()


def _copy(layer: GuestLayer, tree: Path, modules: Mapping[str, Path]) -> None:
    """Copy Python modules into a directory of the layer's own, and let Python look there."""
    place = Path("/", PYTHON_DIRECTORY, layer.id)
    for target, source in modules.items():
        path = tree / place.relative_to("/") / target
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, path)
    if modules:
        (tree / _SITE).mkdir(parents=True, exist_ok=True)
        (tree / _SITE / f"hyperbox-{layer.id}.pth").write_text(f"{place}\n")


def _distributions(wanted: Iterable[str]) -> dict[str, importlib.metadata.Distribution]:
    """Return the installed distributions that the wanted ones need, by their names."""
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = [(name, True) for name in wanted]
    while waiting:
        name, needed = waiting.pop()
        name = name.lower().replace("_", "-")
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            if needed:
                raise MissingDependency(
                    f"a layer needs the Python distribution {name}, which is not installed",
                    hint=f"pip install {name}",
                ) from None
            continue
        waiting += _requirements(found[name])
    return dict(sorted(found.items()))


def _requirements(distribution: importlib.metadata.Distribution) -> Iterator[tuple[str, bool]]:
    """Return what a distribution needs, and whether on every machine."""
    for text in distribution.requires or ():
        match = _REQUIREMENT.match(text)
        if match and "extra" not in (match["marker"] or ""):
            yield match["name"], match["marker"] is None


def _modules(distribution: importlib.metadata.Distribution) -> Iterator[tuple[str, Path]]:
    """Return a distribution's modules by their paths; compiled ones are for another Python."""
    for entry in distribution.files or ():
        if entry.suffix in (".so", ".pyd"):
            raise HarnessError(
                f"{distribution.name} has compiled code ({entry.name}): guests have another Python",
                hint="name a Debian package in vm-images/layers.toml instead",
            )
        if entry.suffix == ".py" and ".." not in entry.parts:
            yield entry.as_posix(), Path(str(distribution.locate_file(entry)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
