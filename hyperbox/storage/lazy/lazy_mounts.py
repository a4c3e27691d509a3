"""Lazy mounts of this machine: made, served, found again after a death, completed, taken away.

Each step is on record before it is done. The descriptor through which the kernel asks is left
with a supervisor before anything is mounted from it; the next process gets it back and goes on.
What has lost its descriptor is taken out of the tree at once: fanotify would let readers see holes.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hyperbox.errors import ConfigError, HyperboxError, ImageError, WorkloadError
from hyperbox.linux.exclusive_lock import exclusive_lock
from hyperbox.linux.loop import attach_loop, change_loop_file
from hyperbox.linux.modules import load_module
from hyperbox.linux.mounts import mount, mounted_elsewhere, mounts, unmount
from hyperbox.storage.erofs_format import BLOCK_BITS, check_super_block
from hyperbox.storage.lazy.chunk_index import BadIndex, parse_chunk_index
from hyperbox.storage.lazy.chunk_source import ChunkSource
from hyperbox.storage.lazy.completion import Completion
from hyperbox.storage.lazy.content_cache import ContentCache
from hyperbox.storage.lazy.fanotify_adapter import FanotifyAdapter
from hyperbox.storage.lazy.fscache_adapter import FscacheAdapter
from hyperbox.storage.lazy.fuse_adapter import FuseAdapter
from hyperbox.storage.lazy.lazy_image import LazyImage
from hyperbox.storage.lazy.mechanism import Adapter, Mechanism, Server
from hyperbox.storage.lazy.mount_record import LayerRecord, MountRecord, Phase, read_records

__all__ = ["ADAPTERS", "Keeping", "LazyMounts"]

ADAPTERS: Mapping[Mechanism, Callable[[], Adapter]] = {
    Mechanism.FSCACHE: FscacheAdapter,
    Mechanism.FILE: FuseAdapter,
    Mechanism.FANOTIFY: FanotifyAdapter,
    Mechanism.LOOP: FuseAdapter,
}
_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")
_READ_ONLY = 1  # MS_RDONLY


@dataclass(frozen=True)
class Keeping:
    """Who keeps descriptors over a death: `hyperbox.daemon.descriptor_store`, or nobody."""

    keep: Callable[[str, int], bool] = lambda name, descriptor: False
    forget: Callable[[str], bool] = lambda name: False
    inherited: Mapping[str, int] = field(default_factory=dict)


@dataclass
class _Live:
    """A mount that this process serves; without a descriptor it needs no process."""

    record: MountRecord
    image: LazyImage
    adapter: Adapter
    descriptor: int | None = None
    server: Server | None = None
    completion: Completion | None = None

    def stop(self) -> None:
        """End what runs for it; the mount stays."""
        self.image.give_up()
        if self.completion is not None:
            self.completion.stop()
        if self.server is not None:
            self.server.stop()
        self.image.close()

    def let_go(self) -> None:
        """Close the descriptor; what asks through it asks nobody then."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


class LazyMounts:
    """All lazy mounts that are on record in a directory; used by several threads.

    Parameters
    ----------
    state
        Directory of the records, of one process at a time.
    source
        Makes a source of what a record names one by.
    limit_s
        Seconds after which a read fails.

    Raises
    ------
    HarnessError
        If another process serves the directory's mounts, with its number.
    """

    def __init__(
        self,
        state: Path,
        cache: ContentCache,
        source: Callable[[str], ChunkSource],
        *,
        keeping: Keeping | None = None,
        limit_s: float = 30.0,
    ) -> None:
        self._state = state
        self._cache = cache
        self._source = source
        self._keeping = keeping or Keeping()
        self._limit_s = limit_s
        self._guard = threading.RLock()
        self._live: dict[str, _Live] = {}
        self._broken: dict[str, MountRecord] = {}
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._alone = contextlib.ExitStack()
        lock = exclusive_lock(state / "lock", "the service of lazy images")
        self._alone.enter_context(lock)

    def resume(self) -> None:
        """Serve what an earlier process of this machine has mounted, and clear up after it."""
        with self._guard:
            for record in read_records(self._state):
                begun_or_broken = record.phase in (Phase.BEGUN, Phase.BROKEN)
                if begun_or_broken or not (_is_mounted(record) or _user(record)):
                    self._clear(record)
                else:
                    try:
                        self._take_over(record)
                    except (HyperboxError, OSError) as error:  # the others go on
                        self._give_up(record, str(error))

    def mount(
        self, name: str, point: Path, layer: LayerRecord, payload: bytes, mechanism: Mechanism
    ) -> None:
        """Mount a layer's image; it is served from now on.

        Parameters
        ----------
        name
            Of the mount: letters, digits and hyphens.
        payload
            The layer's chunk index.

        Raises
        ------
        ConfigError
            If there is such a mount already, or the name is none.
        KernelFeatureMissing, WorkloadError
            If the kernel cannot, or refuses; nothing is left then.
        """
        with self._guard:
            if _NAME.fullmatch(name) is None or name in self._live or name in self._broken:
                raise ConfigError(f"{name[:80]!r} is mounted already, or no name for a mount")
            record = MountRecord(name, os.fspath(point), mechanism, layer, Phase.BEGUN)
            record.write(self._state)
            live: _Live | None = None
            try:
                live = self._opened(record, payload)
                _check_whole(live.image)
                if live.image.cached.absent() or mechanism is Mechanism.FSCACHE:
                    self._begin(live)
                self._attach(live)
                self._live[name] = live
            except BaseException:
                self._live.pop(name, None)
                self._clear(record)
                if live is not None:
                    live.stop()
                    live.let_go()
                raise
            served = live.descriptor is not None
            found = record.at(Phase.SERVED if served else Phase.COMPLETE)
            live.record = replace(found, device=_device(record))
            live.record.write(self._state)

    def unmount(self, name: str) -> None:
        """Take a mount away.

        Raises
        ------
        ConfigError
            If there is none of that name.
        WorkloadError
            If it is busy, in a container as well.
        """
        with self._guard:
            if name in self._broken:
                self._clear(self._broken.pop(name))
                return
            live = self._named(name)
            _refuse_use(live.record)
            if _is_mounted(live.record):  # else somebody has done so by hand
                unmount(Path(live.record.point))
            self._take_away(live)

    def complete(self, name: str, *, rate: int = 0) -> None:
        """Fetch the rest of an image in the background; ConfigError if there is none.

        Parameters
        ----------
        rate
            Stored bytes a second at most; 0 for as fast as it goes.
        """
        with self._guard:
            live = self._named(name)
            if live.completion is None:
                done = Completion(live.image, rate=rate, then=lambda: self._completed(name))
                live.completion = done
                done.start()

    def prefetch(self, name: str, numbers: Sequence[int]) -> None:
        """Fetch chunks by number, after what readers wait for; ConfigError if there is none."""
        with self._guard:
            self._named(name).image.prefetch(numbers)

    def order(self, name: str) -> Sequence[int]:
        """Return the chunks that readers of a mount have missed, in order."""
        with self._guard:
            return self._named(name).image.order

    def state(self) -> Sequence[Mapping[str, object]]:
        """Return all mounts for people and programs: how each is served, what is here of it."""
        with self._guard:
            broken = [_words(record) for record in self._broken.values()]
            return [*(self._said(live) for live in self._live.values()), *broken]

    def stop(self) -> None:
        """End this process's part; the mounts stay and wait for the next one."""
        with self._guard:
            live, self._live = list(self._live.values()), {}
        for one in live:
            one.stop()
        self._alone.close()

    def _named(self, name: str) -> _Live:
        if name not in self._live:
            raise ConfigError(f"there is no lazy mount {name[:80]!r}")
        return self._live[name]

    def _said(self, live: _Live) -> Mapping[str, object]:
        absent = live.image.cached.absent()
        return {
            **_words(live.record),
            "bytes": live.image.index.size,
            "missing_bytes": sum(chunk.length for chunk in absent),
            "missing_chunks": len(absent),
            "served_by_a_process": live.descriptor is not None,
            **vars(live.image.counts),
        }

    def _opened(self, record: MountRecord, payload: bytes | None = None) -> _Live:
        layer, adapter = record.layer, ADAPTERS[record.mechanism]()
        known = payload or self._cache.index_payload(layer.key)
        if known is None:
            raise WorkloadError(f"mount {record.name}: its chunk index is gone")
        index = parse_chunk_index(known, stored=layer.stored)
        cached = self._cache.open(layer.key, index, known)
        sources = [self._source(name) for name in layer.sources]
        image = LazyImage(cached, sources, limit_s=self._limit_s)
        return _Live(record, image, adapter)

    def _begin(self, live: _Live) -> None:
        """Make the descriptor, leave it with the supervisor, and serve it."""
        name = live.record.name
        live.descriptor = live.adapter.begin(live.image, self._place(live.record))
        self._live[name] = live
        self._keeping.keep(name, live.descriptor)
        live.server = live.adapter.serve(live.image, live.descriptor, self._place(live.record))

    def _attach(self, live: _Live) -> None:
        load_module("erofs")
        point = Path(live.record.point)
        source = live.image.cached.data  # of a complete image: without any process
        if live.descriptor is not None:
            source = live.adapter.source(live.image, self._place(live.record))
        if live.record.mechanism is not Mechanism.LOOP:
            mount("erofs", point, source=os.fspath(source), flags=_READ_ONLY)
            return
        backing = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fstat(backing)  # FUSE knows a file's size once it was asked for
            device, held = attach_loop(backing, live.record.name)
        finally:
            os.close(backing)
        try:
            mount("erofs", point, source=os.fspath(device), flags=_READ_ONLY)
        finally:
            os.close(held)

    def _take_over(self, record: MountRecord) -> None:
        live = self._opened(record)
        absent = live.image.cached.absent()
        descriptor = self._keeping.inherited.get(record.name)
        fuse = any(one.point == self._place(record) for one in mounts("fuse"))
        alone = record.phase is Phase.COMPLETE and not fuse
        if descriptor is not None:
            live.descriptor = descriptor
            live.server = live.adapter.serve(live.image, descriptor, self._place(record))
        elif absent or not alone:
            live.stop()
            why = "the descriptor that the kernel asks through ended with its processes"
            self._give_up(record, why)
            return
        self._live[record.name] = live

    def _give_up(self, record: MountRecord, why: str) -> None:
        """Take a mount out of the tree that nobody can serve; it stays on record."""
        if _is_mounted(record):
            unmount(Path(record.point), detach=True)
        self._broken[record.name] = record.at(Phase.BROKEN, why)
        self._broken[record.name].write(self._state)

    def _completed(self, name: str) -> None:
        """Let a complete image go on without this process, where that is possible."""
        with self._guard:
            live = self._live.get(name)
            if live is None or live.descriptor is None:
                return
            live.record = live.record.at(Phase.COMPLETE)
            if self._released(live):
                server, live.server = live.server, None
                if server is not None:
                    server.stop()
                self._keeping.forget(name)
                if live.record.mechanism is Mechanism.LOOP:
                    live.adapter.end(live.image, live.descriptor, self._place(live.record))
                    live.descriptor = None
                live.let_go()
            live.record.write(self._state)

    def _released(self, live: _Live) -> bool:
        """Let the kernel read the cache's file itself; whether it does from now on."""
        assert live.descriptor is not None
        if live.record.mechanism is not Mechanism.LOOP:
            return live.adapter.releases(live.image, live.descriptor, self._place(live.record))
        point = Path(live.record.point)
        found = [Path(one.source) for one in mounts("erofs") if one.point == point]
        if not found:  # unmounted by hand
            return False
        handle = os.open(live.image.cached.data, os.O_RDONLY | os.O_CLOEXEC)
        try:
            change_loop_file(found[-1], handle)
        finally:
            os.close(handle)
        return True

    def _take_away(self, live: _Live) -> None:
        """Undo what is left of a mount that nothing is mounted from any more."""
        name = live.record.name
        del self._live[name]
        descriptor, live.descriptor = live.descriptor, None
        live.stop()
        if descriptor is not None:
            live.adapter.end(live.image, descriptor, self._place(live.record))
            self._keeping.forget(name)
        live.record.remove(self._state)

    def _clear(self, record: MountRecord) -> None:
        """Remove whatever is there of a mount that nobody serves."""
        for point in (Path(record.point), self._place(record)):
            while any(one.point == point for kind in ("erofs", "fuse") for one in mounts(kind)):
                unmount(point, detach=True)
        self._keeping.forget(record.name)
        for suffix in (".image", ".guard"):
            self._place(record).with_suffix(suffix).unlink(missing_ok=True)
        record.remove(self._state)

    def _place(self, record: MountRecord) -> Path:
        return self._state / f"{record.name}.image"


def _check_whole(image: LazyImage) -> None:
    """Refuse an index that covers less than the image says it has.

    The kernel reads zeros behind the end of a file (erofs_fileio_ki_complete(), Linux 6.12).
    """
    try:
        check_super_block(image.read(0, 1 << BLOCK_BITS), image.index.size)
    except ImageError as error:
        raise BadIndex(f"the chunk index contradicts the image: {error.message}") from error


def _is_mounted(record: MountRecord) -> bool:
    return any(os.fspath(one.point) == record.point for one in mounts("erofs"))


def _device(record: MountRecord) -> str:
    found = [one.device for one in mounts("erofs") if os.fspath(one.point) == record.point]
    return found[-1] if found else ""


def _user(record: MountRecord) -> tuple[int, Path] | None:
    """Return a process that has the image at another place, such as a container's, and where."""
    return mounted_elsewhere("erofs", record.device, Path(record.point))


def _refuse_use(record: MountRecord) -> None:
    """Raise WorkloadError if another mount shows the image: it would lose who serves it."""
    found = _user(record)
    if found is not None:
        process, place = found
        raise WorkloadError(
            f"lazy mount {record.name} is in use: process {process} has it at {place}",
            hint="end the container, or unmount it there, first",
        )


def _words(record: MountRecord) -> Mapping[str, object]:
    said: dict[str, object] = {
        "name": record.name,
        "point": record.point,
        "mechanism": str(record.mechanism),
        "phase": str(record.phase),
    }
    return said | ({"reason": record.reason} if record.reason else {})
