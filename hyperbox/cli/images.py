"""``hyperbox images``: the store of images."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from rich.filesize import decimal
from rich.table import Table

from hyperbox.cli.image_mounting import (
    SETTINGS,
    add_convert_arguments,
    add_diff_arguments,
    add_mount_arguments,
    add_umount_arguments,
    run_convert,
    run_diff,
    run_mount,
    run_umount,
)
from hyperbox.cli.images_lazy import add_lazy_verbs
from hyperbox.cli.pull import image_facts
from hyperbox.console import TerminalConsole
from hyperbox.errors import ExitCode, ImageError
from hyperbox.printing import complain, legible
from hyperbox.settings import add_config
from hyperbox.storage.artifacts import verify
from hyperbox.storage.erofs import converter_of, is_ready, layers_of, prune_conversions
from hyperbox.storage.image_settings import IMAGES
from hyperbox.storage.images import Image, ImageStore
from hyperbox.storage.layouts import FORMATS, export_image
from hyperbox.storage.reference import parse_reference
from hyperbox.storage.rung import Rung

__all__ = ["add_images_verb", "add_parser", "store_of"]


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "images",
        help="list, inspect, verify, export and prune the images of the store",
        description="Works on the images that 'hyperbox pull' has brought.",
    )
    below = parser.add_subparsers(dest="images_verb", required=True, metavar="VERB")
    add_images_verb(below, "list", "every image with its size", _list)
    shown = add_images_verb(below, "inspect", "one image: what it runs, its layers", _inspect)
    shown.add_argument("image", metavar="IMAGE")
    proved = add_images_verb(below, "verify", "read images and compare every digest", _verify)
    proved.add_argument("images", nargs="*", metavar="IMAGE", help="default: all")
    out = add_images_verb(below, "export", "write an image for another tool", _export)
    out.add_argument("image", metavar="IMAGE")
    out.add_argument("--output", type=Path, required=True, metavar="PATH")
    out.add_argument(
        "--format", choices=FORMATS, default="oci-archive", help="default: %(default)s"
    )
    gone = add_images_verb(
        below, "remove", "forget names of images; prune frees the space", _remove
    )
    gone.add_argument("images", nargs="+", metavar="IMAGE")
    made = add_images_verb(below, "convert", "make what this kernel mounts", run_convert)
    add_convert_arguments(made)
    shown = add_images_verb(below, "mount", "mount an image read-only", run_mount)
    add_mount_arguments(shown)
    add_umount_arguments(add_images_verb(below, "umount", "unmount an image", run_umount))
    compared = add_images_verb(below, "diff", "in what two images differ, name by name", run_diff)
    add_diff_arguments(compared)
    for parser_of_layers in (made, shown, compared):
        IMAGES.add_options(parser_of_layers, SETTINGS)
    add_images_verb(below, "prune", "remove what no image of the store needs", _prune)
    add_lazy_verbs(below)


def add_images_verb(
    below: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    """Add a verb below ``images``, with ``--root``, ``--config`` and ``--json``."""
    parser = below.add_parser(name, help=summary, description=summary[0].upper() + summary[1:])
    IMAGES.add_options(parser, ("root",))
    add_config(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    return parser


def store_of(arguments: argparse.Namespace) -> ImageStore:
    """Return the store that the settings name."""
    return ImageStore(IMAGES.resolve(arguments).root)


def _list(arguments: argparse.Namespace) -> int:
    store = store_of(arguments)
    images = list(store.images())
    if arguments.json:
        print(json.dumps([image_facts(one) for one in images]))
        return ExitCode.PASS
    table = Table("Name", "Digest", "Layers", "Size")
    for one in images:
        name = parse_reference(one.name).familiar
        digits = one.descriptor.digest.partition(":")[2][:12]
        table.add_row(name, digits, str(len(one.manifest.layers)), decimal(one.size))
    TerminalConsole().print(table if images else f"no images in {store.root}")
    return ExitCode.PASS


def _inspect(arguments: argparse.Namespace) -> int:
    image = store_of(arguments).find(arguments.image)
    if arguments.json:
        print(json.dumps(image_facts(image) | _run_facts(image)))
        return ExitCode.PASS
    lines = [
        f"{image.name}@{image.descriptor.digest}",
        f"platform: {image.config.platform}; created: {image.config.created or 'not said'}",
        *(f"{name}: {value}" for name, value in _run_facts(image).items() if value),
        *(
            f"layer {one.digest} {decimal(one.size)} {one.media_type}"
            for one in image.manifest.layers
        ),
    ]
    for line in lines:
        print(legible(line))
    return ExitCode.PASS


def _run_facts(image: Image) -> dict[str, object]:
    config = image.config
    return {
        "arguments": list(config.arguments),
        "environment": list(config.environment),
        "directory": config.directory,
        "user": config.user,
        "labels": dict(config.labels),
    }


def _verify(arguments: argparse.Namespace) -> int:
    store = store_of(arguments)
    names = arguments.images or list(store.names())
    results = {name: _fault(store, name) for name in names}
    if arguments.json:
        print(json.dumps([{"name": name, "error": fault} for name, fault in results.items()]))
    for name, fault in results.items():
        if fault:
            complain(f"{name}: {fault}")
        elif not arguments.json:
            print(legible(f"{name}: right"))
    return ExitCode.GATE_FAILED if any(results.values()) else ExitCode.PASS


def _fault(store: ImageStore, name: str) -> str:
    """Return what is wrong with an image; empty if nothing is."""
    try:
        image = store.find(name)
        if is_ready(store, image):
            layers = layers_of(store, image)
            verify(converter_of(store).image(layers, Rung.LAYERS).manifest)
            return ""
        for descriptor in image.manifest.blobs:
            store.blobs.verify(descriptor)
    except ImageError as error:
        return error.message
    return ""


def _export(arguments: argparse.Namespace) -> int:
    store = store_of(arguments)
    image = store.find(arguments.image)
    export_image(image, store, arguments.output, arguments.format)
    if arguments.json:
        print(json.dumps(image_facts(image)))
    return ExitCode.PASS


def _remove(arguments: argparse.Namespace) -> int:
    store = store_of(arguments)
    names = [store.named(text) for text in arguments.images]
    for name in names:
        store.untag(name)
    if arguments.json:
        print(json.dumps(names))
    return ExitCode.PASS


def _prune(arguments: argparse.Namespace) -> int:
    store = store_of(arguments)
    pruned = store.prune()
    files, size = prune_conversions(store)
    files, size = files + pruned.files, size + pruned.size
    if arguments.json:
        print(json.dumps({"files": files, "size": size}))
    else:
        print(legible(f"{files} files removed, {decimal(size)}"))
    return ExitCode.PASS
