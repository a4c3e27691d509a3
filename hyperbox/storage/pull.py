"""An image from a registry into the store: layers in parallel, each fetched once."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hyperbox.errors import ImageError
from hyperbox.storage.blobs import Incoming
from hyperbox.storage.credentials import Credentials
from hyperbox.storage.images import Image, ImageStore
from hyperbox.storage.oci import (
    INDEXES,
    MANIFESTS,
    Descriptor,
    Index,
    Manifest,
    parse_config,
    parse_manifest_or_index,
)
from hyperbox.storage.platforms import Platform, machine_platform
from hyperbox.storage.reference import Reference
from hyperbox.storage.registry import Registry
from hyperbox.storage.transport import Fault, Options, Transport

__all__ = [
    "JOBS",
    "Fetch",
    "Instead",
    "Progress",
    "PullOptions",
    "Silent",
    "connect",
    "pull",
    "resolve",
]

JOBS = 4
_MOST_NESTED = 3  # indexes in each other


class Progress(Protocol):
    """Who is shown how far a pull or push is; called from several threads."""

    def begin(self, descriptor: Descriptor) -> None:
        """Begin with a blob."""

    def at(self, descriptor: Descriptor, size: int) -> None:
        """Note that a blob has come to `size` bytes."""


Fetch = Callable[[Sequence[Descriptor]], None]
"""Brings blobs into the store, several at once; the first failure ends it."""


class Instead(Protocol):
    """What may bring an image otherwise than by its layers."""

    def look(self, registry: Registry, manifest: Descriptor) -> None:
        """Ask the registry, in a thread of its own, while the configuration comes."""

    def take(self, registry: Registry, image: Image, fetch: Fetch) -> bool:
        """Return whether it has brought the image; else the layers are fetched."""


class Silent:
    """Progress that nobody sees."""

    def begin(self, descriptor: Descriptor) -> None:
        """Show nothing."""

    def at(self, descriptor: Descriptor, size: int) -> None:
        """Show nothing."""


@dataclass(frozen=True)
class PullOptions:
    """How to pull.

    Parameters
    ----------
    platform
        None for this machine's.
    jobs
        Blobs at once.
    """

    platform: Platform | None = None
    jobs: int = JOBS
    transport: Options = field(default_factory=Options)


def connect(
    reference: Reference,
    options: PullOptions,
    credentials: Credentials | None = None,
    *,
    actions: str = "pull",
) -> Registry:
    """Return the registry of an image, with the credentials that the user has for it."""
    credential = (credentials or Credentials()).find(reference)
    transport = Transport(options.transport, connections=options.jobs)
    return Registry(reference, transport, credential, actions=actions)


def pull(
    registry: Registry,
    store: ImageStore,
    options: PullOptions | None = None,
    progress: Progress | None = None,
    instead: Instead | None = None,
) -> Image:
    """Bring the image of a registry's reference into the store and name it.

    Blobs that the store has are not fetched, and those that another process fetches are waited
    for. What has arrived when it fails is kept for the next attempt.

    Parameters
    ----------
    instead
        Asked before the layers are fetched, such as `hyperbox.storage.ready_image`.

    Raises
    ------
    ImageError
        If it cannot be had, is damaged, or is not for the platform.
    HarnessError
        If the store cannot be written.
    """
    options = options or PullOptions()
    wanted = options.platform or machine_platform()
    with store.in_use():
        descriptor, data, manifest = resolve(registry, wanted)
        fetch = _Fetch(registry, store, progress or Silent())
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            looking = instead and executor.submit(instead.look, registry, descriptor)
            fetch.all((manifest.config,), 1)
            if looking:
                looking.result()
        config = parse_config(
            store.blobs.read_document(manifest.config), f"configuration {manifest.config.digest}"
        )
        if not config.platform.rank(wanted):
            raise ImageError(f"{registry.reference} is for {config.platform}, not for {wanted}")
        if len(config.diff_ids) != len(manifest.layers):
            raise ImageError(
                f"{registry.reference} has {len(manifest.layers)} layers, and its configuration "
                f"says {len(config.diff_ids)}"
            )
        image = Image(str(registry.reference), descriptor, manifest, config)
        if instead is None or not instead.take(
            registry, image, lambda wanted: fetch.all(wanted, options.jobs)
        ):
            fetch.all(manifest.blobs, options.jobs)
        store.blobs.put(descriptor, data)
        store.tag(registry.reference, descriptor)
    return image


def resolve(registry: Registry, wanted: Platform) -> tuple[Descriptor, bytes, Manifest]:
    """Return the manifest for a platform, through the indexes that lead to it.

    Raises
    ------
    ImageError
        If it cannot be had, or there is none for the platform.
    """
    target = ""
    for _ in range(_MOST_NESTED):
        descriptor, data = registry.manifest(target)
        known = descriptor.media_type in (*MANIFESTS, *INDEXES)
        kind = descriptor.media_type if known else ""
        found = parse_manifest_or_index(data, f"manifest {descriptor.digest}", kind)
        if isinstance(found, Manifest):
            if found.artifact_type:
                raise ImageError(f"{registry.reference} is an artifact, not an image to run")
            return Descriptor(found.media_type, descriptor.digest, descriptor.size), data, found
        target = _selected(found, wanted, registry.reference).digest
    raise ImageError(f"{registry.reference}: more than {_MOST_NESTED} indexes in each other")


def _selected(index: Index, wanted: Platform, reference: Reference) -> Descriptor:
    try:
        return index.select(wanted)
    except ImageError as error:
        raise ImageError(f"{reference}: {error.message}", hint=error.hint) from None


class _Fetch:
    """Fetches blobs of one registry into one store."""

    def __init__(self, registry: Registry, store: ImageStore, progress: Progress) -> None:
        self._registry = registry
        self._store = store
        self._progress = progress

    def all(self, descriptors: Sequence[Descriptor], jobs: int) -> None:
        """Fetch them, `jobs` at once; the first failure ends the others."""
        for descriptor in descriptors:
            self._progress.begin(descriptor)
        with concurrent.futures.ThreadPoolExecutor(jobs) as executor:
            waiting = [executor.submit(self._one, descriptor) for descriptor in descriptors]
            try:
                for done in concurrent.futures.as_completed(waiting):
                    done.result()
            except BaseException:
                self._registry.transport.stop()
                executor.shutdown(cancel_futures=True)
                raise

    def _one(self, descriptor: Descriptor) -> None:
        with self._store.blobs.incoming(descriptor, self._registry.transport.pause) as sink:
            if sink is not None:
                self._into(sink)
        self._progress.at(descriptor, descriptor.size)

    def _into(self, sink: Incoming) -> None:
        """Fetch what a blob lacks; if the whole is wrong, once more from its start."""
        taken_up = sink.size > 0
        self._complete(sink)
        if taken_up and not sink.is_right:  # what an earlier attempt left may be what is wrong
            sink.restart()
            self._complete(sink)

    def _complete(self, sink: Incoming) -> None:
        whole = False

        def once() -> None:
            nonlocal whole
            if sink.size == sink.descriptor.size:
                return
            if whole:
                sink.restart()
            try:
                with self._registry.blob(sink.descriptor, sink.size) as chunks:
                    for chunk in chunks:
                        sink.append(chunk)
                        self._progress.at(sink.descriptor, sink.size)
                        self._registry.transport.check()
            except Fault as fault:
                if sink.size == 0 or whole or fault.is_transient:
                    raise
                whole = True  # a server that cannot do Range may still send all
                sink.restart()
                once()

        self._registry.transport.persist(once, lambda: sink.size)
