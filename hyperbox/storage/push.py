"""An image of the store to a registry: blobs in parallel, then the manifest."""

from __future__ import annotations

import concurrent.futures
from dataclasses import dataclass

from hyperbox.storage.images import Image, ImageStore
from hyperbox.storage.oci import Descriptor
from hyperbox.storage.pull import JOBS, Progress, Silent
from hyperbox.storage.registry import Registry
from hyperbox.storage.upload import CHUNK, Upload

__all__ = ["Pushed", "push"]


@dataclass(frozen=True)
class Pushed:
    """What a push came to.

    Parameters
    ----------
    sent
        Bytes of blobs; those that the registry had are not sent.
    """

    name: str
    digest: str
    sent: int


def push(
    registry: Registry,
    store: ImageStore,
    image: Image,
    progress: Progress | None = None,
    *,
    jobs: int = JOBS,
    chunk: int = CHUNK,
    mount_from: str = "",
) -> Pushed:
    """Send an image of the store to the reference of a registry.

    Parameters
    ----------
    mount_from
        A repository of the same registry that may have the layers, so that none is sent.

    Raises
    ------
    ImageError
        If the registry refuses, or the image is damaged here.
    """
    shown = progress or Silent()
    upload = Upload(registry, chunk)

    def one(descriptor: Descriptor) -> int:
        store.blobs.verify(descriptor)
        path = store.blobs.path(descriptor.digest)
        sent = upload.blob(
            descriptor,
            path,
            mount_from=mount_from,
            progress=lambda size: shown.at(descriptor, size),
        )
        shown.at(descriptor, descriptor.size)
        return descriptor.size if sent else 0

    for descriptor in image.manifest.blobs:
        shown.begin(descriptor)
    with store.in_use(), concurrent.futures.ThreadPoolExecutor(jobs) as executor:
        waiting = [executor.submit(one, descriptor) for descriptor in image.manifest.blobs]
        try:
            sent = sum(done.result() for done in concurrent.futures.as_completed(waiting))
        except BaseException:
            registry.transport.stop()
            executor.shutdown(cancel_futures=True)
            raise
        data = store.blobs.read_document(image.descriptor)
        upload.manifest(data, image.descriptor.media_type, registry.reference.target)
    return Pushed(str(registry.reference), image.descriptor.digest, sent)
