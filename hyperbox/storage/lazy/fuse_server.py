"""Serves an image as one file by FUSE: what is missing of it is fetched when it is read.

It fails closed. Without a process that answers, readers wait or get an error; there is no file
with holes that they could read.
"""

from __future__ import annotations

import errno
import os
import select
import threading

from hyperbox.errors import WorkloadError
from hyperbox.linux.fuse_device import FuseRequest, clone_device, read_request
from hyperbox.storage.lazy.lazy_image import LazyImage

__all__ = ["FuseServer"]

_THREADS = 8  # as many readers wait for sources at a time


class FuseServer:
    """Answers the requests of one mount, in threads, until it is unmounted or stopped.

    Parameters
    ----------
    device
        The mount's descriptor of ``/dev/fuse``; it stays open.
    """

    def __init__(self, image: LazyImage, device: int, *, threads: int = _THREADS) -> None:
        self._image = image
        self._clone = clone_device(device)
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC)
        self._threads = [
            threading.Thread(target=self._serve, name=f"fuse-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End; requests that were not taken wait for another server."""
        os.close(self._waker)
        for thread in self._threads:
            thread.join()
        os.close(self._clone)
        os.close(self._wake)

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(self._clone, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if self._wake in ready:
                return
            try:
                request = read_request(self._clone)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                raise
            if request is not None and not request.answer_about(self._image.index.size):
                self._answer(request)

    def _answer(self, request: FuseRequest) -> None:
        try:
            data = self._image.read(*request.asked)
        except (WorkloadError, OSError):
            request.fail(errno.EIO)
        else:
            request.answer(data)
