"""Removes what no image of the store is mounted from any more."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from hyperbox.errors import HarnessError
from hyperbox.files import locked
from hyperbox.linux.mounts import mounts
from hyperbox.storage.image_mounts import OVERLAY_SOURCE
from hyperbox.storage.layer import Added
from hyperbox.storage.layer_index import read_index
from hyperbox.storage.layer_reading import Layer, chain_ids
from hyperbox.storage.rung import Rung

__all__ = ["prune_converted"]


def prune_converted(root: Path, kept: Iterable[Sequence[Layer]]) -> tuple[int, int]:
    """Remove what was converted of other images than `kept`; return files and bytes.

    Unfinished conversions of killed processes go, too.

    Parameters
    ----------
    root
        Top of the store.

    Raises
    ------
    HarnessError
        If images are mounted, or the store cannot be written.
    """
    top = root / "converted"
    if not top.exists():
        return 0, 0
    if any(found.source == OVERLAY_SOURCE for found in mounts("overlay")):
        raise HarnessError("images are mounted", hint="'hyperbox images umount' them, then prune")
    with contextlib.ExitStack() as stack:
        for rung in Rung:  # no conversion runs meanwhile
            stack.enter_context(locked(top / f".{rung}.lock"))
        sizes = [size for path in _unneeded(top, kept) for size in _removed(path)]
    return len(sizes), sum(sizes)


def _unneeded(top: Path, kept: Iterable[Sequence[Layer]]) -> Iterator[Path]:
    keys: set[str] = set()
    chains = {"empty"}  # the directory that stacks of layers begin with
    for layers in kept:
        keys.update(layer.key for layer in layers)
        chains.update(chain_ids(layers))
    yield from top.glob(".new-*")
    yield from top.glob(".trial-*")
    places = {"blobs": chains, "object-layers": keys, "manifests": chains}
    places |= dict.fromkeys(Rung, chains)
    for name, wanted in places.items():
        for path in (top / name).glob("*"):
            lock = path.suffix == ".lock"
            if not lock and path.name.partition(".")[0] not in wanted:
                yield path
    objects = set(_objects(top, keys))
    yield from (path for path in (top / "objects").glob("*/*") if _digits(path) not in objects)
    yield from (top / "objects").glob(".new-*")


def _objects(top: Path, keys: Iterable[str]) -> Iterator[str]:
    for key in keys:
        index = top / "object-layers" / f"{key}.json"
        changes = read_index(index, key)[0] if index.exists() else ()
        yield from (one.inode.content.sha256 for one in changes if isinstance(one, Added))


def _digits(path: Path) -> str:
    return path.parent.name + path.name


def _removed(path: Path) -> list[int]:
    """Remove a file or a directory; return the size of each file."""
    whole = [path] if not path.is_dir() else [one for one in path.rglob("*") if not one.is_dir()]
    sizes = [one.lstat().st_size for one in whole]
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    return sizes
