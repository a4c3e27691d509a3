"""``hyperbox images`` for images that are not here yet: mounts, complete, prefetch, cache."""

from __future__ import annotations

import argparse
import json
import os
import urllib.parse
from collections.abc import Callable
from pathlib import Path

from rich.filesize import decimal
from rich.table import Table

from hyperbox.cli.images_client import ask_images
from hyperbox.console import TerminalConsole
from hyperbox.daemon.options import IMAGES_SOCKET
from hyperbox.errors import ConfigError, ExitCode
from hyperbox.foreign import read_json
from hyperbox.printing import complain, legible
from hyperbox.settings import add_config
from hyperbox.storage.erofs import lazy_point
from hyperbox.storage.image_settings import IMAGES, ImageSettings
from hyperbox.storage.images import Image, ImageStore
from hyperbox.storage.lazy.lazy_artifact import LazyImages, lazy_layer
from hyperbox.storage.lazy.mechanism import Mechanism
from hyperbox.storage.lazy.mount_record import Phase
from hyperbox.storage.lazy.registry_source import RegistrySource
from hyperbox.storage.oci import Descriptor
from hyperbox.storage.platforms import machine_platform
from hyperbox.storage.pull import Progress, connect, pull, resolve
from hyperbox.storage.ready_image import TakeReady
from hyperbox.storage.reference import Reference, parse_reference

__all__ = ["add_lazy_verbs", "add_service_option", "pull_lazily"]


def add_lazy_verbs(below: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verbs below ``images``."""
    lazy = _verb(below, "mount-lazy", "mount an image of a registry before it is here", _mount)
    lazy.add_argument("image", metavar="IMAGE", help="[REGISTRY[:PORT]/]NAME[:TAG][@DIGEST]")
    lazy.add_argument("point", metavar="DIR", type=Path)
    lazy.add_argument(
        "--mechanism",
        choices=[str(one) for one in Mechanism],
        help="how the kernel asks for what is missing (default: the first that works)",
    )
    _verb(below, "mounts", "lazy mounts: how each is served, what is here of it", _mounts)
    done = _verb(below, "complete", "fetch the rest of a lazy mount in the background", _complete)
    done.add_argument("name", metavar="NAME", help="as 'images mounts' has it")
    done.add_argument("--rate", type=int, default=0, metavar="BYTES", help="a second, at most")
    ahead = _verb(below, "prefetch", "fetch what an earlier start has read", _prefetch)
    ahead.add_argument("name", metavar="NAME")
    ahead.add_argument("trace", metavar="FILE", type=Path, help="what 'images trace' printed")
    trace = _verb(below, "trace", "print which chunks readers have missed, in order", _trace)
    trace.add_argument("name", metavar="NAME")
    gone = _verb(below, "umount-lazy", "take a lazy mount away", _unmount)
    gone.add_argument("name", metavar="NAME")
    kept = _verb(below, "cache", "what is cached of lazy images, and whether it is in use", _cache)
    kept.add_argument(
        "--keep",
        type=int,
        metavar="BYTES",
        help="take what nobody uses, the longest unused first, until the rest has so many bytes",
    )


def add_service_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--service``."""
    parser.add_argument(
        "--service",
        type=Path,
        default=IMAGES_SOCKET,
        metavar="PATH",
        help=f"unix socket of the images service (default: {IMAGES_SOCKET})",
    )


def _verb(
    below: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    parser = below.add_parser(name, help=summary, description=summary[0].upper() + summary[1:])
    IMAGES.add_options(parser)
    add_config(parser)
    add_service_option(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    return parser


def pull_lazily(
    arguments: argparse.Namespace, settings: ImageSettings, progress: Progress
) -> tuple[Image, Path | None]:
    """Name an image in the store and mount it lazily there; return it and where.

    Where the kernel has no mechanism, that is said and the image is brought whole: None.

    Raises
    ------
    ImageError
        If there is no lazy image of it.
    WorkloadError
        If the images service does not answer.
    """
    store, reference = ImageStore(settings.root), parse_reference(arguments.source)

    def mount(image: Image, layer: Descriptor) -> None:
        point = lazy_point(store, image).absolute()
        for one in ask_images(arguments.service, "GET", "/images/mounts"):
            if one["point"] == os.fspath(point):
                if one["phase"] != Phase.BROKEN:
                    return
                ask_images(arguments.service, "DELETE", f"/images/mounts/{one['name']}")
        point.mkdir(parents=True, exist_ok=True)
        wanted = _wanted(settings, reference, layer, point, image.descriptor.digest)
        ask_images(arguments.service, "POST", "/images/mounts", wanted)

    lazy = LazyImages(mount, pinned=_takes_pinned(settings))
    options = settings.options()
    image = pull(connect(reference, options), store, options, progress, lazy)
    if lazy.refused:
        complain(f"{image.name} was pulled whole: {lazy.refused}")
        return image, None
    return image, lazy_point(store, image)


def _wanted(
    settings: ImageSettings, reference: Reference, layer: Descriptor, point: Path, digest: str
) -> dict[str, object]:
    """Return what the images service is asked to mount."""
    return {
        "name": digest.partition(":")[2][:12],
        "point": os.fspath(point),
        "media_type": layer.media_type,
        "size": layer.size,
        "annotations": dict(layer.annotations),
        "sources": [RegistrySource.name_of(reference, layer, plain_http=settings.plain_http)],
    }


def _takes_pinned(settings: ImageSettings) -> bool:
    return TakeReady(settings.ready_images) is TakeReady.ON


def _mount(arguments: argparse.Namespace) -> int:
    settings = IMAGES.resolve(arguments)
    reference = parse_reference(arguments.image)
    registry = connect(reference, settings.options())
    image, _, manifest = resolve(registry, machine_platform())
    layer = lazy_layer(registry, image, manifest, pinned=_takes_pinned(settings))
    wanted = _wanted(settings, reference, layer, arguments.point.absolute(), layer.digest)
    if arguments.mechanism:
        wanted["mechanism"] = arguments.mechanism
    made = ask_images(arguments.service, "POST", "/images/mounts", wanted)
    if arguments.json:
        print(json.dumps(made))
    else:
        print(legible(f"{made['name']}: {made['reason']}"))
    return ExitCode.PASS


def _mounts(arguments: argparse.Namespace) -> int:
    found = ask_images(arguments.service, "GET", "/images/mounts")
    if arguments.json:
        print(json.dumps(found))
        return ExitCode.PASS
    table = Table("Name", "At", "Served by", "Phase", "Missing", "Fetched", "Hits", "Misses")
    for one in found:
        sizes = [decimal(int(one.get(name, 0))) for name in ("missing_bytes", "fetched")]
        counts = [str(one.get(name, 0)) for name in ("hits", "misses")]
        table.add_row(one["name"], one["point"], one["mechanism"], one["phase"], *sizes, *counts)
    TerminalConsole().print(table if found else "no lazy mounts")
    return ExitCode.PASS


def _complete(arguments: argparse.Namespace) -> int:
    ask_images(
        arguments.service,
        "POST",
        f"/images/mounts/{_quoted(arguments)}/complete",
        {"rate": arguments.rate},
    )
    return ExitCode.PASS


def _prefetch(arguments: argparse.Namespace) -> int:
    wanted = {"chunks": read_json(arguments.trace, refusal=ConfigError)}
    ask_images(arguments.service, "POST", f"/images/mounts/{_quoted(arguments)}/prefetch", wanted)
    return ExitCode.PASS


def _trace(arguments: argparse.Namespace) -> int:
    print(
        json.dumps(
            ask_images(arguments.service, "GET", f"/images/mounts/{_quoted(arguments)}/order")
        )
    )
    return ExitCode.PASS


def _unmount(arguments: argparse.Namespace) -> int:
    ask_images(arguments.service, "DELETE", f"/images/mounts/{_quoted(arguments)}")
    return ExitCode.PASS


def _cache(arguments: argparse.Namespace) -> int:
    if arguments.keep is not None:
        if arguments.keep < 0:
            raise ConfigError(f"--keep {arguments.keep}: bytes are 0 or more")
        gone = ask_images(arguments.service, "DELETE", f"/images/cache?keep={arguments.keep}")
        freed = f"{len(gone['keys'])} images gone, {decimal(gone['bytes_freed'])} freed"
        if arguments.json:
            print(json.dumps(gone))
        else:
            print(legible(freed))
        return ExitCode.PASS
    found = ask_images(arguments.service, "GET", "/images/cache")
    if arguments.json:
        print(json.dumps(found))
        return ExitCode.PASS
    table = Table("Image", "Size", "On disk", "Chunks", "In use")
    for one in found:
        chunks = f"{one['present']} of {one['chunks']}"
        used = "yes" if one["in_use"] else "no"
        table.add_row(one["key"][:12], decimal(one["size"]), decimal(one["on_disk"]), chunks, used)
    TerminalConsole().print(table if found else "nothing is cached")
    return ExitCode.PASS


def _quoted(arguments: argparse.Namespace) -> str:
    return urllib.parse.quote(arguments.name, safe="")
