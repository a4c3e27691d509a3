"""What the experiments on lazy mounts share: an image of known files, its layer, and the service.

The service is the product's: a worker below its supervisor, asked over its socket. The blob is
served by `suites.erofs.blob_server`, which can lie.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import random
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hyperbox
from hyperbox.errors import KernelFeatureMissing, WorkloadError
from hyperbox.files import write_bytes
from hyperbox.processes import spawn, stop
from hyperbox.storage.conversion import Converter
from hyperbox.storage.digests import digest_of
from hyperbox.storage.layer_reading import Layer as TarLayer
from hyperbox.storage.lazy.content_cache import ContentCache
from hyperbox.storage.lazy.layer_writer import WrittenLayer, write_layer
from hyperbox.storage.lazy.mechanism import Mechanism
from suites.erofs.blob_server import BlobServer, serving
from suites.erofs.ext4_disk import ext4_disk

__all__ = ["FILES", "ImagesProcess", "LazyLab", "lazy_lab"]

_PROJECT = Path(hyperbox.__file__).resolve().parent.parent
_SUPERVISOR, _WORKER = "hyperbox.daemon.supervisor", "hyperbox.daemon.worker"
_SERVICE = "hyperbox.daemon.services.images:ImagesService"
_PATIENCE_S = 120.0
_LIMIT_S = 3.0  # after which a read fails
_CHUNK = 1 << 16
_DISK_MIB = 96
FILES = 48
"""Files of the image."""


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_PATIENCE_S)
        self.sock.connect(os.fspath(self._path))


@dataclass
class ImagesProcess:
    """The images service with its supervisor."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    path: Path
    supervisor: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the supervisor, and wait until its worker answers."""
        self.supervisor = spawn(self.argv, environment=self.environment, stderr=2)
        self.worker()

    def kill(self) -> None:
        """Kill the supervisor; the worker dies with it."""
        if self.supervisor is not None:
            stop(self.supervisor)

    def ask(self, method: str, target: str, body: object = None) -> Any:
        """Return the answer's JSON value, None without one.

        Raises
        ------
        KernelFeatureMissing
            If the service says that the kernel cannot.
        WorkloadError
            On any other refusal, or no answer.
        """
        connection = _Connection(self.path)
        try:
            data = None if body is None else json.dumps(body)
            kind = {"Content-Type": "application/json"}
            connection.request(method, target, data, kind if data else {})
            answer = connection.getresponse()
            text = answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise WorkloadError(f"the images service did not answer: {error}") from error
        finally:
            connection.close()
        if answer.status == 501:
            raise KernelFeatureMissing(json.loads(text)["detail"])
        if answer.status >= 300:
            raise WorkloadError(f"the images service: {answer.status} {text}")
        return json.loads(text) if text else None

    def worker(self) -> int:
        """Return the number of the worker's process, once it answers."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            with contextlib.suppress(WorkloadError):
                return int(self.ask("GET", "/healthz")["pid"])
            if time.monotonic() > deadline or self.supervisor is None:
                raise WorkloadError("the images service does not come back")
            time.sleep(0.05)


@dataclass
class LazyLab:
    """An image whose files are known, as a layer behind a server, and the service."""

    directory: Path
    disk: Path
    """A file system of its own, with the cache."""
    contents: Mapping[str, bytes]
    layer: WrittenLayer
    server: BlobServer
    service: ImagesProcess
    cache: ContentCache

    @property
    def point(self) -> Path:
        """Return where the image is mounted."""
        return self.directory / "mount"

    @property
    def image(self) -> Path:
        """Return the image as one file."""
        return self.directory / "image.erofs"

    @property
    def tar(self) -> Path:
        """Return the layer that it was made of."""
        return self.directory / "layer.tar"

    def mount(self, name: str, mechanism: Mechanism | None) -> Mapping[str, Any]:
        """Mount the image, by the first mechanism that works where None is asked for.

        Return what the service says of it; raises as `ImagesProcess.ask`.
        """
        self.point.mkdir(exist_ok=True)
        wanted = {
            "name": name,
            "point": os.fspath(self.point),
            **({} if mechanism is None else {"mechanism": str(mechanism)}),
            "media_type": self.layer.media_type,
            "size": self.layer.size,
            "annotations": dict(self.layer.annotations),
            "sources": [f"{self.server.url}/layer"],
        }
        made: Mapping[str, Any] = self.service.ask("POST", "/images/mounts", wanted)
        return made

    def unmount(self, name: str) -> None:
        """Unmount it."""
        self.service.ask("DELETE", f"/images/mounts/{name}")

    def forget(self) -> None:
        """Take everything from the cache that is not in use."""
        self.cache.evict(0)

    def states(self) -> Sequence[Mapping[str, Any]]:
        """Return what the service says of its mounts."""
        found: Sequence[Mapping[str, Any]] = self.service.ask("GET", "/images/mounts")
        return found

    def state(self) -> Mapping[str, Any]:
        """Return what it says of its one mount."""
        return self.states()[0]


@contextlib.contextmanager
def lazy_lab(seed: int) -> Iterator[LazyLab]:
    """Make a disk with the image's cache, and start service and server for the block.

    Raises
    ------
    WorkloadError
        If something does not start.
    """
    with contextlib.ExitStack() as stack:
        place = tempfile.TemporaryDirectory(prefix="hyperbox-", ignore_cleanup_errors=True)
        top = Path(stack.enter_context(place))
        disk = stack.enter_context(ext4_disk(top, _DISK_MIB))
        contents = _contents(random.Random(seed))  # noqa: S311 - repeatable
        layer = _layer(top, contents)
        server = stack.enter_context(serving(top / "blobs"))
        service = stack.enter_context(_service(top, disk))
        cache = ContentCache(disk / "lazy" / "cache")
        yield LazyLab(top, disk, contents, layer, server, service, cache)


def _contents(seeded: random.Random) -> Mapping[str, bytes]:
    """Return files of many sizes, half of each compressible, none with a page of zeros."""
    found = {}
    for number in range(FILES):
        size = seeded.choice((700, 5000, 70_001, 250_000))
        half = seeded.randbytes(size // 2)
        found[f"dir{number % 5}/file{number}"] = half + (b"%d text " % number) * (size // 14)
    return found


def _layer(top: Path, contents: Mapping[str, bytes]) -> WrittenLayer:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    data = stream.getvalue()
    write_bytes(top / "layer.tar", data)
    layers = [TarLayer(top / "layer.tar", "", digest_of(data))]
    Converter(top / "store").write_plain(layers, top / "image.erofs")
    return write_layer(top / "image.erofs", top / "blobs" / "layer", chunk_size=_CHUNK)


@contextlib.contextmanager
def _service(top: Path, disk: Path) -> Iterator[ImagesProcess]:
    path = top / "socket"
    environment = {
        "PYTHONPATH": os.fspath(_PROJECT),
        "HYPERBOX_LAZY": os.fspath(disk / "lazy"),
        "HYPERBOX_LAZY_LIMIT_S": f"{_LIMIT_S:g}",
    }
    words = [sys.executable, "-m", _SUPERVISOR, "--lock", os.fspath(top / "lock"), "--"]
    words += [sys.executable, "-m", _WORKER, _SERVICE, "--socket", os.fspath(path)]
    service = ImagesProcess(words, environment, path)
    service.start()
    try:
        yield service
    finally:
        service.kill()
