"""``hyperbox images convert``, ``mount``, ``umount`` and ``diff``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hyperbox.errors import ConfigError, ExitCode
from hyperbox.printing import legible, one_line
from hyperbox.storage.erofs import (
    convert,
    converter_of,
    layers_of,
    mount_image,
    rung_for,
    umount,
)
from hyperbox.storage.image_settings import IMAGES, LIMITS
from hyperbox.storage.images import ImageStore
from hyperbox.storage.ladder import Enabled
from hyperbox.storage.listing import ListedEntry, differences, list_directory, list_tree
from hyperbox.storage.rung import Rung

__all__ = [
    "SETTINGS",
    "add_convert_arguments",
    "add_diff_arguments",
    "add_mount_arguments",
    "add_umount_arguments",
    "run_convert",
    "run_diff",
    "run_mount",
    "run_umount",
]

SETTINGS = ("erofs-enabled", *LIMITS)
"""The settings of these verbs, beside the store's."""


def add_convert_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``convert`` takes."""
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument(
        "--plain",
        type=Path,
        metavar="FILE",
        help="write one EROFS image with all data in it, which any kernel since 5.4 mounts",
    )
    parser.add_argument(
        "--compress",
        metavar="ALGORITHM",
        help="with --plain: compress it, as mkfs.erofs -z takes it (lz4, or zstd from 6.10 on)",
    )
    _add_rung(parser)


def add_mount_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``mount`` takes."""
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument("point", type=Path, metavar="DIR")
    _add_rung(parser)


def add_umount_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``umount`` takes."""
    parser.add_argument("point", type=Path, metavar="DIR")


def add_diff_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``diff`` takes."""
    parser.add_argument("old", metavar="IMAGE")
    parser.add_argument("new", metavar="IMAGE|DIR", help="an image, or a directory (with a /)")


def run_convert(arguments: argparse.Namespace) -> int:
    """Convert an image; print what it became."""
    settings = IMAGES.resolve(arguments)
    store = ImageStore(settings.root)
    if arguments.compress is not None and arguments.plain is None:
        raise ConfigError("--compress is for --plain", hint="add --plain FILE")
    if arguments.plain is not None:
        layers = layers_of(store, store.find(arguments.image))
        converter = converter_of(store, settings.limits)
        if arguments.compress is None:
            converter.write_plain(layers, arguments.plain)
        else:
            converter.write_compressed(layers, arguments.plain, arguments.compress)
        facts: dict[str, object] = {"path": str(arguments.plain)}
    else:
        enabled = Enabled(settings.erofs_enabled)
        choice = rung_for(store, enabled, _rung(arguments), arguments.image)
        image = convert(store, arguments.image, choice, settings.limits)
        parts = [str(part) for part in image.parts]
        facts = {**choice.as_json(), "path": str(image.path), "parts": parts}
    return _print(arguments, facts)


def run_mount(arguments: argparse.Namespace) -> int:
    """Mount an image until it is unmounted."""
    settings = IMAGES.resolve(arguments)
    choice = mount_image(
        ImageStore(settings.root),
        arguments.image,
        arguments.point,
        Enabled(settings.erofs_enabled),
        rung=_rung(arguments),
        limits=settings.limits,
    )
    return _print(arguments, {**choice.as_json(), "path": str(arguments.point)})


def run_umount(arguments: argparse.Namespace) -> int:
    """Unmount an image."""
    umount(arguments.point)
    return _print(arguments, {"path": str(arguments.point)})


def run_diff(arguments: argparse.Namespace) -> int:
    """Print in what two images differ; the status is 1 if they do."""
    settings = IMAGES.resolve(arguments)
    store = ImageStore(settings.root)
    converter = converter_of(store, settings.limits)

    def listed(name: str) -> dict[bytes, ListedEntry]:
        return list_tree(converter.tree(layers_of(store, store.find(name))))

    old = listed(arguments.old)
    directory = "/" in arguments.new and Path(arguments.new).is_dir()
    new = list_directory(Path(arguments.new)) if directory else listed(arguments.new)
    found = list(differences(old, new))
    if arguments.json:
        print(json.dumps(found))
    else:
        print(legible("\n".join(found)), end="\n" if found else "")
    return ExitCode.GATE_FAILED if found else ExitCode.PASS


def _add_rung(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rung",
        choices=tuple(Rung),
        help="erofs: one image over a blob for each layer; layers: an EROFS image for each layer; "
        "composefs; overlay: unpacked layers (default: the first that works, without layers)",
    )


def _rung(arguments: argparse.Namespace) -> Rung | None:
    return None if arguments.rung is None else Rung(arguments.rung)


def _print(arguments: argparse.Namespace, facts: dict[str, object]) -> int:
    if arguments.json:
        print(json.dumps(facts))
    elif "rung" in facts:
        print(one_line(f"{facts['path']}: {facts['rung']} ({facts['reason']})"))
    else:
        print(one_line(str(facts["path"])))
    return ExitCode.PASS
