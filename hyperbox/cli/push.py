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
from hyperbox.storage.image_settings import IMAGES
from hyperbox.storage.images import ImageStore
from hyperbox.storage.pull import connect
from hyperbox.storage.push import push
from hyperbox.storage.reference import parse_reference

__all__ = ["add_parser"]


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "push",
        help="send an image of the store to a registry",
        description="Sends what the registry lacks of an image, then its manifest.",
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
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_config(parser)
    IMAGES.add_options(parser, ("root", "parallel", "plain-http", "ca-file"))
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
    if arguments.json:
        print(json.dumps(asdict(pushed)))
    else:
        print(legible(f"{pushed.name}@{pushed.digest}: {decimal(pushed.sent)} sent"))
    return ExitCode.PASS
