"""Snapshots kept on disk, by everything that decides their content.

A directory per key holds memory, device state, console and what the repeatability probe
said, each with its digest. A kept snapshot is trusted if the digests are right (0.1 s for the
100 MB that a guest has touched, on a processor with SHA instructions) and it can be restored;
in the exact lane its probe must give the same numbers again. The ones used longest ago go
when all together take more than the cache may.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from hyperbox import files
from hyperbox.errors import HarnessError
from hyperbox.harness.lab.qemu import GuestHardware, Qemu
from hyperbox.harness.lab.snapshot import Repeatability, Snapshot, copy
from hyperbox.harness.model import Lane
from hyperbox.paths import cache_directory

__all__ = ["SnapshotCache", "snapshot_key", "snapshots_directory"]

_FORMAT = 3  # raise it when what is kept, or how guests are made, changes
_LIMIT_BYTES = 6 << 30
_MEMORY, _STATE, _FACTS = "memory", "state", "snapshot.json"
_BLOCK = 1 << 20


def snapshots_directory() -> Path:
    """Return where snapshots are kept."""
    return cache_directory() / "snapshots"


def snapshot_key(
    qemu: Qemu, hardware: GuestHardware, steps: tuple[tuple[str, ...], ...]
) -> dict[str, Any]:
    """Return everything that decides a snapshot's content: QEMU build, lane, images, steps."""
    return {
        "format": _FORMAT,
        "qemu": qemu.sha256,
        "lane": str(hardware.lane),
        "memory": hardware.memory,
        "processors": hardware.processors,
        "commandline": hardware.commandline,
        "kernel": files.sha256_file(hardware.vmlinuz),
        "initramfs": files.sha256_file(hardware.initramfs),
        "images": [files.sha256_file(image) for image in hardware.images],
        "steps": [list(step) for step in steps],
    }


class SnapshotCache:
    """Snapshots on disk.

    Parameters
    ----------
    directory
        Where; default: ``snapshots`` in the cache.
    limit
        Bytes on disk that all together may take.
    """

    def __init__(self, directory: Path | None = None, limit: int = _LIMIT_BYTES) -> None:
        self._directory = directory or snapshots_directory()
        self._limit = limit

    def get(
        self,
        qemu: Qemu,
        hardware: GuestHardware,
        steps: tuple[tuple[str, ...], ...],
        make: Callable[[], Snapshot],
    ) -> Snapshot:
        """Return the kept snapshot if it is whole and works, else a new one, which is kept.

        Its files stay until the snapshot is closed.
        """
        inputs = snapshot_key(qemu, hardware, steps)
        name = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
        with files.locked(self._directory / f"{name}.lock"):
            place = self._directory / name
            kept: Snapshot | None = _opened(place, inputs, qemu, hardware)
            if kept is None or not _works(kept):
                if kept is not None:
                    kept.close()
                self._remove(place)
                for leftover in self._directory.glob(f".{name}-*"):  # of a killed process
                    shutil.rmtree(leftover, ignore_errors=True)
                kept = self._keep(place, make(), inputs, qemu)
        self._make_room(name)
        return kept

    def _keep(self, place: Path, made: Snapshot, inputs: Mapping[str, Any], qemu: Qemu) -> Snapshot:
        """Move a new snapshot into the cache; without room on the disk it stays where it is."""
        if made.repeatability is None or (
            made.hardware.lane is Lane.EXACT and not made.repeatability.exact
        ):
            return made
        scratch = place.with_name(f".{place.name}-{os.getpid()}")
        try:
            scratch.mkdir(parents=True)
            _write(scratch, made, inputs)
            files.replace_file(scratch, place)
            kept = _opened(place, inputs, qemu, made.hardware)
        except (HarnessError, OSError):
            shutil.rmtree(scratch, ignore_errors=True)
            return made
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            made.close()
            raise
        if kept is None:  # what was written is not what was made
            return made
        made.close()
        return kept

    def _make_room(self, newest: str) -> None:
        """Remove what was used longest ago and is not in use, until the rest fits."""
        places = sorted(self._places(), key=_last_used, reverse=True)
        total = 0
        for place in places:
            total += _size(place)
            if total > self._limit and place.name != newest:
                self._remove(place)

    def _places(self) -> Iterator[Path]:
        with contextlib.suppress(OSError):
            yield from (path for path in self._directory.iterdir() if (path / _FACTS).exists())

    def _remove(self, place: Path) -> None:
        """Remove a directory unless a snapshot uses it."""
        with contextlib.suppress(OSError):
            handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(place)
            finally:
                os.close(handle)


class _KeptSnapshot(Snapshot):
    """A snapshot whose files belong to the cache: a shared lock keeps them there."""

    def __init__(
        self, qemu: Qemu, hardware: GuestHardware, place: Path, *, console: str, config: str
    ) -> None:
        super().__init__(
            qemu,
            hardware,
            ram=FileIO(place / _MEMORY),
            state=FileIO(place / _STATE),
            kernel_config=config,
            console=console,
        )
        self._lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        if not place.exists() or not os.path.samestat(os.fstat(self._lock), place.stat()):
            self.close()
            raise FileNotFoundError(f"{place} was removed meanwhile")

    def close(self) -> None:
        """Let the cache have the files again; harmless when repeated."""
        super().close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _write(scratch: Path, made: Snapshot, inputs: Mapping[str, Any]) -> None:
    """Write a snapshot into a directory, with the digests of what it was made of."""
    parts = {_MEMORY: made.ram, _STATE: made.state}
    for name, part in parts.items():
        with FileIO(scratch / name, "w") as file:
            copy(part, file)
            os.fsync(file.fileno())
    assert made.repeatability is not None
    facts = {
        "inputs": inputs,
        "made": time.time(),
        "parts": {name: _digest(part) for name, part in parts.items()},
        "repeatability": dataclasses.asdict(made.repeatability),
        "console": made.console,
        "kernel_config": made.kernel_config,
    }
    files.write_sealed(scratch / _FACTS, facts)


def _opened(
    place: Path, inputs: Mapping[str, Any], qemu: Qemu, hardware: GuestHardware
) -> _KeptSnapshot | None:
    """Return the snapshot of a directory, unless it is absent or not what was written."""
    facts = files.read_sealed(place / _FACTS)
    if facts is None or facts["inputs"] != inputs:
        return None
    console, config = facts["console"], facts["kernel_config"]
    try:
        snapshot = _KeptSnapshot(qemu, hardware, place, console=console, config=config)
    except OSError:
        return None
    if {_MEMORY: _digest(snapshot.ram), _STATE: _digest(snapshot.state)} != facts["parts"]:
        snapshot.close()
        return None
    snapshot.repeatability = Repeatability(**facts["repeatability"])
    with contextlib.suppress(OSError):
        os.utime(place)
    return snapshot


def _digest(file: FileIO) -> str:
    """Return a SHA-256 of a file's size and blocks; zeros count as holes, wherever they lie."""
    handle, size = file.fileno(), os.fstat(file.fileno()).st_size
    digest, zeros = hashlib.sha256(f"{size}\n".encode()), bytes(_BLOCK)
    offset = 0
    while (offset := _data_from(handle, offset)) < size:
        offset -= offset % _BLOCK
        block = os.pread(handle, _BLOCK, offset)
        if block != zeros[: len(block)]:
            digest.update(offset.to_bytes(8, "little") + block)
        offset += _BLOCK
    return digest.hexdigest()


def _data_from(handle: int, offset: int) -> int:
    """Return where data begins at or after an offset (lseek(2)); the file's end if none does."""
    try:
        return os.lseek(handle, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return os.fstat(handle).st_size


def _works(snapshot: Snapshot) -> bool:
    """Whether a whole snapshot can be restored here, and in the exact lane gives its numbers.

    One for KVM may not: it is a processor's that this machine no longer has.
    """
    try:
        if snapshot.hardware.lane is not Lane.EXACT:
            with snapshot.clone() as machine:
                machine.ping()
            return True
        found = snapshot.repeatability
        return found is not None and snapshot.probe()[0] == found.probe
    except HarnessError:
        return False


def _last_used(place: Path) -> float:
    with contextlib.suppress(OSError):
        return place.stat().st_mtime
    return 0.0


def _size(place: Path) -> int:
    with contextlib.suppress(OSError):
        return sum(path.stat().st_blocks * 512 for path in place.iterdir())
    return 0
