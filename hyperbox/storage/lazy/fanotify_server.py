"""Fills a sparse file before its bytes are read, asked by fanotify's pre-content events.

The file is the cache's own, and the kernel reads it directly: with the mark removed, once all is
there, nothing stands between a reader and its bytes. Until then no event may go unanswered, since
what nobody denies is allowed (see `hyperbox.linux.fanotify`).
"""

from __future__ import annotations

import fcntl
import os
import select
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hyperbox.errors import WorkloadError
from hyperbox.linux.fanotify import AccessEvent, deny_lost, read_events
from hyperbox.storage.lazy.lazy_image import LazyImage

__all__ = ["FanotifyServer"]

_THREADS = 16


class FanotifyServer:
    """Answers the events of one image's file, until it is stopped.

    Parameters
    ----------
    group
        Descriptor of the group that the image's file is marked in; it stays open.
    guarded
        Locked while this serves, see `hyperbox.storage.lazy.fanotify_guard`.
    """

    def __init__(
        self, image: LazyImage, group: int, guarded: Path, *, threads: int = _THREADS
    ) -> None:
        self._image = image
        self._lock = os.open(guarded, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)  # the guard has it for a moment at most
        self._group = group
        self.denied = deny_lost(group)
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC)
        self._pool = ThreadPoolExecutor(threads, "fanotify")
        self._adopting = False
        self._thread = threading.Thread(target=self._serve, name="fanotify-events", daemon=True)
        self._thread.start()
        # A descriptor that was opened before the mark raises no events, and neither does that of an
        # event. One opened later does: what is fetched could not be written through it.
        self._adopting = True
        image.cached.read(0, 1)
        self._adopting = False

    def stop(self) -> None:
        """End; events that were not taken wait for another server."""
        os.close(self._waker)
        self._thread.join()
        self._pool.shutdown()
        os.close(self._wake)
        os.close(self._lock)

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(self._group, select.POLLIN)
        while True:
            if self._wake in dict(poll.poll()):
                return
            for event in read_events(self._group):
                if self._adopting and event.pid == os.getpid():
                    self._image.cached.adopt(event.handle)
                    event.allow(self._group)
                    os.close(event.handle)
                else:
                    self._pool.submit(self._answer, event)

    def _answer(self, event: AccessEvent) -> None:
        try:
            self._image.ensure(event.offset, event.length)
        except (WorkloadError, OSError):
            event.deny(self._group)
        else:
            event.allow(self._group)
        finally:
            os.close(event.handle)
