"""``hyperbox run``: a command in a container, optionally learning or enforcing its profile."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from hyperbox.cli.container_options import add_container_options, container_of
from hyperbox.cli.seccomp_output import print_learned, read_profile
from hyperbox.isolation.default_profile import default_profile
from hyperbox.isolation.learning import learn
from hyperbox.isolation.profile import Profile
from hyperbox.isolation.store import ProfileStore
from hyperbox.printing import complain, one_line
from hyperbox.runtime.background import in_background
from hyperbox.runtime.bundle import Container
from hyperbox.runtime.containers import Ended, RunningContainer, prepared
from hyperbox.runtime.options import CONTAINERS, ContainerSettings
from hyperbox.runtime.recording import recorded_run
from hyperbox.runtime.registry import ContainerRegistry, new_name
from hyperbox.settings import add_config

__all__ = ["add_parser"]


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "run",
        help="run a command in a container, learning or enforcing its seccomp profile",
        description="Runs COMMAND in a container on the root file system DIR, or on an image of "
        "the store, in the foreground, "
        "with crun or runc. Its exit code is the command's (128+n for signal n); 125 if the "
        "runtime failed, 126 if the command cannot be executed, 127 if there is none.",
        epilog="example: hyperbox run --rootfs ./rootfs --learn-seccomp=web -- /usr/bin/web --test",
    )
    profile = parser.add_mutually_exclusive_group()
    profile.add_argument(
        "--learn-seccomp",
        nargs="?",
        const="",
        metavar="NAME",
        help="record the system calls of the run and add them to profile NAME "
        "(default: the command's name)",
    )
    profile.add_argument(
        "--seccomp",
        default="default",
        metavar="PROFILE",
        help="default, unconfined, a name of the store, or a file (default: default)",
    )
    parser.add_argument("--name", metavar="NAME", help="of the container (default: a random one)")
    parser.add_argument(
        "--detach",
        "-d",
        action="store_true",
        help="run it in the background and print its name; see hyperbox ps, logs, stop and rm",
    )
    add_container_options(parser, images=True)
    CONTAINERS.add_options(parser)
    add_config(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    settings = CONTAINERS.resolve(arguments)
    store = ProfileStore(settings.store)
    learning = arguments.learn_seccomp
    name = arguments.name or new_name()
    ContainerRegistry().check_new(name)

    def run() -> Ended:
        with _container(arguments) as described:
            learned = "" if learning is None else learning or _name_of(described.command[0])
            if learned:
                store.check_name(learned)
            profile = None if learned else _profile(arguments.seccomp, store, settings)
            container = replace(described, seccomp=profile)
            with prepared(container, runtime=settings.runtime, name=name) as running:
                return _learned(running, store, learned, settings) if learned else running.run()

    detach = arguments.detach
    ended = in_background(name, container_of(arguments), run) if detach else run()
    if ended.reason:
        complain(f"hyperbox: the command was not started: {ended.reason}")
    elif arguments.detach:
        print(one_line(name))
    return ended.status


@contextlib.contextmanager
def _container(arguments: argparse.Namespace) -> Iterator[Container]:
    """Yield the container that the options describe, its image mounted if it has one."""
    described = container_of(arguments)
    if arguments.image is None:
        yield described
        return
    # What the extra `storage` brings is needed for images only.
    from hyperbox.runtime.image_root import image_root, with_image  # noqa: PLC0415
    from hyperbox.storage.image_settings import IMAGES  # noqa: PLC0415
    from hyperbox.storage.images import ImageStore  # noqa: PLC0415
    from hyperbox.storage.ladder import Enabled  # noqa: PLC0415

    images = IMAGES.resolve(argparse.Namespace(config=arguments.config))
    store = ImageStore(images.root)
    image = store.find(arguments.image)
    enabled = Enabled(images.erofs_enabled)
    with image_root(store, image.name, enabled, images.limits) as root:
        whole = with_image(described, image.config, own_user=arguments.user is not None)
        yield replace(whole, rootfs=root)


def _learned(
    running: RunningContainer, store: ProfileStore, name: str, settings: ContainerSettings
) -> Ended:
    default = default_profile(settings.default_profile)
    found = recorded_run(running, default, settings.back_ends)
    if found.ended.reason:
        return found.ended
    for reason in found.passed_over:
        complain(f"hyperbox: not recorded by {reason}")
    print_learned(learn(store, name, found.recording, settings.default_profile), sys.stderr)
    return found.ended


def _profile(chosen: str, store: ProfileStore, settings: ContainerSettings) -> Profile | None:
    if chosen == "unconfined":
        return None
    if chosen == "default":
        return default_profile(settings.default_profile)
    if "/" in chosen or chosen.endswith(".json"):
        return read_profile(Path(chosen))
    return store.load(chosen).profile


def _name_of(command: str) -> str:
    name = re.sub(r"[^a-z0-9._-]", "-", os.path.basename(command).lower())[:63]  # noqa: PTH119
    return name.lstrip("._-") or "container"
