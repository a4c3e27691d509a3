"""``hyperbox pull``: an image into the store."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from hyperbox.cli.images_lazy import add_service_option, pull_lazily
from hyperbox.cli.transfers import shown_progress
from hyperbox.errors import ConfigError, ExitCode
from hyperbox.printing import complain, legible
from hyperbox.settings import add_config
from hyperbox.storage.erofs import is_ready
from hyperbox.storage.image_settings import IMAGES, ImageSettings
from hyperbox.storage.images import Image, ImageStore
from hyperbox.storage.ladder import Enabled
from hyperbox.storage.layouts import import_docker_archive, import_layout
from hyperbox.storage.pull import Progress, PullOptions, connect, pull
from hyperbox.storage.ready_image import ReadyImages, TakeReady
from hyperbox.storage.reference import parse_reference

__all__ = ["add_parser", "image_facts"]


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "pull",
        help="get an image from a registry, a layout or an archive",
        description="Brings an image into the store: what is there already is not fetched, and "
        "an interrupted pull goes on where it was. Everything is verified by its digest.",
        epilog="example: hyperbox pull localhost:5000/app:1.2",
    )
    parser.add_argument(
        "source",
        metavar="IMAGE",
        help="[REGISTRY[:PORT]/]NAME[:TAG][@DIGEST], oci:DIR|TAR[:NAME] or "
        "docker-archive:FILE[:NAME]",
    )
    parser.add_argument(
        "--lazy",
        action="store_true",
        help="mount it before it is here; its files are fetched when they are read "
        "(hyperbox daemon --lazy-images)",
    )
    add_service_option(parser)
    parser.add_argument("--name", default="", help="what the store calls it; default: its own name")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_config(parser)
    IMAGES.add_options(parser)
    parser.set_defaults(run=_run)


def _pulled(
    source: str,
    store: ImageStore,
    options: PullOptions,
    name: str,
    progress: Progress,
    ready: ReadyImages,
) -> Image:
    kind, _, rest = source.partition(":")
    path, _, wanted = rest.partition(":")
    if kind == "oci" and path:
        return import_layout(
            Path(path),
            store,
            wanted=wanted,
            name=name,
            platform=options.platform,
            progress=progress,
        )
    if kind == "docker-archive" and path:
        return import_docker_archive(Path(path), store, wanted=wanted, name=name, progress=progress)
    image = pull(connect(parse_reference(source), options), store, options, progress, ready)
    if not name:
        return image
    reference = parse_reference(name)
    store.tag(reference, image.descriptor)
    return replace(image, name=str(reference))


def image_facts(image: Image) -> dict[str, object]:
    """Return what ``--json`` says of an image."""
    return {
        "name": image.name,
        "digest": image.descriptor.digest,
        "platform": str(image.config.platform),
        "size": image.size,
        "layers": [one.as_json() for one in image.manifest.layers],
    }


def _run(arguments: argparse.Namespace) -> int:
    settings = IMAGES.resolve(arguments)
    if arguments.lazy:
        return _run_lazily(arguments, settings)
    options = settings.options()
    store = ImageStore(settings.root)
    off = Enabled(settings.erofs_enabled) is Enabled.OFF
    take = TakeReady.OFF if off else TakeReady(settings.ready_images)
    ready = ReadyImages(store, take, settings.limits)
    with shown_progress(quiet=arguments.json) as progress:
        image = _pulled(arguments.source, store, options, arguments.name, progress, ready)
    for line in ready.refused:
        complain(line)
    as_ready = is_ready(store, image)
    if arguments.json:
        print(json.dumps({**image_facts(image), "ready": as_ready}))
    else:
        said = " (its ready image)" if as_ready else ""
        print(legible(f"{image.name}@{image.descriptor.digest}{said}"))
    return ExitCode.PASS


def _run_lazily(arguments: argparse.Namespace, settings: ImageSettings) -> int:
    if arguments.name:
        raise ConfigError("--lazy keeps an image's own name", hint="leave --name out")
    with shown_progress(quiet=arguments.json) as progress:
        image, point = pull_lazily(arguments, settings, progress)
    if arguments.json:
        print(json.dumps({**image_facts(image), "lazy": None if point is None else str(point)}))
    else:
        said = "" if point is None else f" (loaded lazily at {point})"
        print(legible(f"{image.name}@{image.descriptor.digest}{said}"))
    return ExitCode.PASS
