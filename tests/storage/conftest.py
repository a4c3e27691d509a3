"""Real peers of the tests: Debian's docker-registry, skopeo, and images made by hand."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import io
import json
import shutil
import signal
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from hyperbox.storage.oci import OCI_CONFIG, OCI_LAYER_GZIP, Descriptor, Manifest, encode
from hyperbox.storage.platforms import machine_platform

REGISTRY = """\
version: 0.1
log: {level: error}
storage:
  delete: {enabled: true}
  filesystem: {rootdirectory: %s}
http: {addr: "127.0.0.1:%d"}
"""


def layer(*files: tuple[str, bytes]) -> tuple[bytes, str]:
    """Return a layer, gzipped, and its diffID."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    plain = stream.getvalue()
    return gzip.compress(plain, 1, mtime=0), f"sha256:{hashlib.sha256(plain).hexdigest()}"


@dataclass(frozen=True)
class Made:
    """An image as bytes: its documents and layers by digest."""

    manifest: Manifest
    blobs: dict[str, bytes]

    @property
    def data(self) -> bytes:
        return encode(self.manifest)

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.data).hexdigest()}"


def described(data: bytes, media_type: str) -> Descriptor:
    return Descriptor(media_type, f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))


def busybox() -> tuple[bytes, str]:
    """Return a layer with this machine's busybox as shell."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in ("bin", "work"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        data = Path("/bin/busybox").read_bytes()
        entry = tarfile.TarInfo("bin/sh")
        entry.size, entry.mode = len(data), 0o755
        tar.addfile(entry, io.BytesIO(data))
    plain = stream.getvalue()
    return gzip.compress(plain, 1, mtime=0), f"sha256:{hashlib.sha256(plain).hexdigest()}"


def image(layers: Sequence[tuple[bytes, str]], **settings: object) -> Made:
    """Return an image of layers for this machine."""
    platform = machine_platform()
    document = {
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {"Cmd": ["/bin/app"], **settings},
        "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]},
    }
    config = json.dumps(document).encode()
    blobs = {described(data, "").digest: data for data in (config, *(one for one, _ in layers))}
    manifest = Manifest(
        described(config, OCI_CONFIG),
        tuple(described(data, OCI_LAYER_GZIP) for data, _ in layers),
    )
    return Made(manifest, blobs)


@pytest.fixture(scope="session")
def small() -> Made:
    """An image of three layers, one of them twice."""
    first = layer(("bin/app", b"#!/bin/sh\n"), ("etc/a", b"1" * 5000))
    second = layer(("etc/.wh.a", b""), ("data", bytes(range(256)) * 2000))
    return image([first, second, first])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(argv: Sequence[str], port: int) -> Iterator[None]:
    """Run a server until the block ends; enter it when its port answers."""
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/v2/")
                connection.getresponse()
                break
            assert process.poll() is None, argv
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


@pytest.fixture(scope="session")
def docker_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Debian's docker-registry, empty; its host and port."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("needs Debian's package docker-registry")
    place = tmp_path_factory.mktemp("registry")
    port = free_port()
    (place / "config.yml").write_text(REGISTRY % (place / "data", port))
    with running([program, "serve", str(place / "config.yml")], port):
        yield f"localhost:{port}"


def skopeo(*words: str | Path) -> str:
    """Run skopeo and return what it prints."""
    program = shutil.which("skopeo")
    if program is None:
        pytest.skip("needs Debian's package skopeo")
    done = subprocess.run(
        [program, "--insecure-policy", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_layout(place: Path, made: Made, name: str = "latest") -> Path:
    """Write an image as an OCI layout, by hand."""
    blobs = place / "blobs/sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    for digest, data in {**made.blobs, made.digest: made.data}.items():
        (blobs / digest.partition(":")[2]).write_bytes(data)
    entry = described(made.data, made.manifest.media_type).as_json()
    entry["annotations"] = {"org.opencontainers.image.ref.name": name}
    (place / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return place
