"""The guests' images in the cache: made once, whole or absent, checked whenever they are used."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperbox.errors import HarnessError
from hyperbox.files import has_sha256, locked, read_sealed, sha256_file, write_sealed
from hyperbox.harness.lab.erofs_image import make_erofs
from hyperbox.paths import cache_directory

__all__ = ["GuestImage", "forget_old_images", "made_once"]

_LIFETIME = 24 * 3600.0  # seconds that an image which changes with the code is kept


@dataclass(frozen=True)
class GuestImage:
    """An EROFS file and its hash."""

    path: Path
    sha256: str

    def facts(self) -> Mapping[str, Any]:
        """Return what is known of its content; empty if that was removed meanwhile."""
        return read_sealed(self.path.with_suffix(".json")) or {}


def made_once(
    stem: str,
    label: str,
    fill: Callable[[Path], Mapping[str, object]],
    *,
    size: int = 0,
    root_owned: bool = False,
    as_root: Callable[[], None] | None = None,
) -> GuestImage:
    """Return a cached image, or make it; a damaged one is made again.

    Parameters
    ----------
    stem
        Its name in the cache, which says everything that decides its content.
    label, size, root_owned
        As of `make_erofs`.
    fill
        Makes a directory of the image's files and returns what is worth knowing of them.
    as_root
        Makes the image in another process, as root of a user namespace: for users who are not
        root, where the files have several owners.
    """
    directory = cache_directory() / "guest"
    image = directory / f"{stem}.erofs"
    if as_root is not None and os.geteuid() != 0:
        return _made_as_root(image, as_root)
    with locked(image.with_suffix(".lock")):
        cached = _cached(image)
        if cached is not None:
            return cached
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            tree = Path(scratch) / "tree"
            facts = fill(tree)
            make_erofs(tree, image, label, size=size, root_owned=root_owned)
        digest = sha256_file(image)
        write_sealed(image.with_suffix(".json"), {**facts, "sha256": digest})
        return GuestImage(image, digest)


def _made_as_root(image: Path, make: Callable[[], None]) -> GuestImage:
    for last in (False, True):
        with locked(image.with_suffix(".lock")):
            cached = _cached(image)
        if cached is not None:
            return cached
        if not last:
            make()
    raise HarnessError(f"{image} is gone or damaged as soon as it was made")


def forget_old_images(kind: str) -> None:
    """Remove images whose names begin so and that nothing asked for since a day."""
    for record in (cache_directory() / "guest").glob(f"{kind}-*.json"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - record.stat().st_mtime > _LIFETIME:
                for path in (record, record.with_suffix(".erofs"), record.with_suffix(".lock")):
                    path.unlink(missing_ok=True)


def _cached(image: Path) -> GuestImage | None:
    record = image.with_suffix(".json")
    facts = read_sealed(record)
    if facts is None or not image.exists() or not has_sha256(image, facts["sha256"]):
        return None
    os.utime(record)  # the time of last use
    return GuestImage(image, facts["sha256"])
