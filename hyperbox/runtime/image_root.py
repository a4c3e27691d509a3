"""The root file system of a container from an image of the store: read-only below, memory above."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from hyperbox.errors import ConfigError
from hyperbox.linux.mounts import mount, unmount
from hyperbox.linux.namespaces import own_mounts
from hyperbox.runtime.bundle import Container, User
from hyperbox.storage.erofs import mounted
from hyperbox.storage.images import ImageStore
from hyperbox.storage.ladder import Enabled
from hyperbox.storage.limits import Limits
from hyperbox.storage.oci import ImageConfig

__all__ = ["image_root", "with_image"]


@contextlib.contextmanager
def image_root(
    store: ImageStore, name: str, enabled: Enabled, limits: Limits | None = None
) -> Iterator[Path]:
    """Mount an image for the block; what is written to it is in memory and lost after it.

    The process gets a mount namespace of its own: the kernel unmounts all with its last process,
    however that ends.

    Raises
    ------
    HyperboxError
        As `hyperbox.storage.erofs.mounted`, and if the kernel refuses.
    """
    own_mounts()
    with tempfile.TemporaryDirectory(prefix="hyperbox-") as made:
        scratch = Path(made)
        mount("tmpfs", scratch, source="hyperbox")
        try:
            lower, upper, work, root = (
                scratch / part for part in ("lower", "upper", "work", "root")
            )
            for place in (lower, upper, work, root):
                place.mkdir(mode=0o755)
            with mounted(store, name, lower, enabled, limits=limits):
                options = f"lowerdir={lower},upperdir={upper},workdir={work}"
                mount("overlay", root, source="hyperbox", options=options)
                try:
                    yield root
                finally:
                    unmount(root)
        finally:
            unmount(scratch)


def with_image(container: Container, config: ImageConfig, *, own_user: bool) -> Container:
    """Return a container with what its image says where the user said nothing. Pure.

    Parameters
    ----------
    own_user
        Whether the container's user is to stay.

    Raises
    ------
    ConfigError
        If nobody names a command, or the image's user is a name: only numbers are taken.
    """
    command = container.command or config.arguments
    if not command:
        raise ConfigError(
            "the image names no command", hint="add one: run --image IMAGE -- COMMAND"
        )
    pairs = (text.partition("=") for text in config.environment)
    environment = {name: value for name, _, value in pairs} | dict(container.environment)
    user = container.user
    if config.user and not own_user:
        uid, _, gid = config.user.partition(":")
        if not uid.isdecimal() or not (gid or "0").isdecimal():
            raise ConfigError(
                f"the image's user {config.user[:80]!r} is a name", hint="--user UID:GID"
            )
        user = User(int(uid), int(gid or 0))
    directory = container.directory or config.directory or "/"
    return replace(
        container, command=command, environment=environment, user=user, directory=directory
    )
