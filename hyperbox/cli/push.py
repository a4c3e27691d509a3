"""``hyperbox push``: an image of the store to a registry."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from rich.filesize import decimal

from hyperbox.cli.transfers import shown_progress
from hyperbox.errors import ExitCode
from hyperbox.printing import legible
from hyperbox.settings import add_config
from hyperbox.storage.image_settings import IMAGES, LIMITS
from hyperbox.storage.images import ImageStore
from hyperbox.storage.lazy.lazy_artifact import attach_lazy
from hyperbox.storage.pull import connect
from hyperbox.storage.push import push
from hyperbox.storage.ready_image import LEVEL, attach
from hyperbox.storage.reference import parse_reference

__all__ = ["add_parser"]


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "push",
        help="send an image of the store to a registry",
        description="Sends what the registry lacks of an image, then its manifest. With --attach "
        "the image is converted, and pulls that can mount EROFS take that instead of the layers.",
        epilog="example: hyperbox push app:1.2 localhost:5000/app:1.2",
    )
    parser.add_argument("image", metavar="IMAGE", help="an image of the store")
    parser.add_argument(
        "target", nargs="?", metavar="TARGET", help="its name in the registry; default: its own"
    )
    parser.add_argument(
        "--mount-from",
        default="",
        metavar="REPOSITORY",
        help="a repository of the same registry that may have the layers",
    )
    parser.add_argument(
        "--attach",
        action="store_true",
        help="attach the image's layers as EROFS, ready to be mounted",
    )
    parser.add_argument(
        "--attach-lazy",
        action="store_true",
        help="attach the image as one EROFS image in chunks: hyperbox pull --lazy mounts it",
    )
    parser.add_argument(
        "--level",
        type=int,
        choices=range(1, 20),
        default=LEVEL,
        metavar="N",
        help="with --attach or --attach-lazy: zstd's, from 1 to 19 (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_config(parser)
    IMAGES.add_options(parser, ("root", "parallel", "plain-http", "ca-file", *LIMITS))
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    settings = IMAGES.resolve(arguments)
    store = ImageStore(settings.root)
    image = store.find(arguments.image)
    reference = parse_reference(arguments.target or image.name)
    registry = connect(reference, settings.options(), actions="pull,push")
    with shown_progress(quiet=arguments.json) as progress:
        pushed = push(
            registry,
            store,
            image,
            progress,
            jobs=settings.parallel,
            mount_from=arguments.mount_from,
        )
    facts = asdict(pushed)
    made = {"attached": attach} if arguments.attach else {}
    made |= {"attached_lazy": attach_lazy} if arguments.attach_lazy else {}
    attached = {
        name: act(registry, store, image, settings.limits, level=arguments.level).digest
        for name, act in made.items()
    }
    if arguments.json:
        print(json.dumps({**facts, **attached}))
    else:
        print(legible(f"{pushed.name}@{pushed.digest}: {decimal(pushed.sent)} sent"))
        for name, digest in attached.items():
            print(legible(f"{name.replace('_', ' ')}: {digest}"))
    return ExitCode.PASS
