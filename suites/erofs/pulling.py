"""A pull from a registry over a slow link, to a root that can be used: on a rung, or lazily.

The registry is Debian's docker-registry, at the far end of the link. The image is one of the six
classes, its layers compressed by gzip as registries have them. Timed are the pull (reference to
mounted root), the first use (a seeded part of the bytes read) and the reading of all the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import http.client
import json
import os
import random
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from hyperbox.errors import WorkloadError
from hyperbox.files import write_text
from hyperbox.linux.knob import write_knob
from hyperbox.processes import require, spawn, stop
from hyperbox.storage.conversion import Converter
from hyperbox.storage.erofs import layers_of, mounted
from hyperbox.storage.images import Image, ImageStore
from hyperbox.storage.ladder import probed
from hyperbox.storage.oci import OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST, Manifest, encode
from hyperbox.storage.platforms import machine_platform
from hyperbox.storage.pull import PullOptions, connect, pull
from hyperbox.storage.push import push
from hyperbox.storage.ready_image import ReadyImages, TakeReady, attach
from hyperbox.storage.reference import Reference, parse_reference
from hyperbox.storage.rung import Rung
from hyperbox.storage.transport import Options
from suites.erofs.ext4_disk import ext4_disk
from suites.erofs.lazy_pulling import lazily_mounted, publish
from suites.erofs.link import Link, shaped_link
from suites.program import Measured, run_program, seed
from workloads.images import CLASSES, image_layers

__all__ = ["main"]

_DROP = Path("/proc/sys/vm/drop_caches")
_LAZY, _READY = "lazy", "ready"
_PORT = 5000
_DISK_MIB = 256
_READ = 0.064  # of an image's bytes are read at its start: Slacker, FAST 2016
_OPTIONS = PullOptions(transport=Options(plain_http=True))
_PATIENCE_S = 120.0
_CONFIG = """version: 0.1
storage: {{filesystem: {{rootdirectory: {directory}}}}}
http: {{addr: ":{port}"}}
log: {{level: error, accesslog: {{disabled: true}}}}
"""


def main() -> int:
    """Measure one arm; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=[*map(str, Rung), _LAZY, _READY])
    parser.add_argument("--image", choices=tuple(CLASSES), required=True)
    parser.add_argument("--rtt-ms", type=float, required=True)
    parser.add_argument("--rate-mbit", type=float, required=True)
    parser.add_argument("--scale", type=float, default=1.0)
    chosen = parser.parse_args()
    return run_program(lambda: _measure(chosen))


def _measure(chosen: argparse.Namespace) -> Measured:
    with contextlib.ExitStack() as stack:
        top = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hyperbox-")))
        disk = stack.enter_context(ext4_disk(top, _DISK_MIB))
        link = stack.enter_context(shaped_link(0.0, 10_000.0))
        stack.enter_context(_registry(link, top))
        reference = parse_reference(f"{link.address}:{_PORT}/{chosen.image}:1")
        source = ImageStore(top / "source")
        _publish(reference, source, chosen.image, chosen.scale)
        if chosen.way == _LAZY:
            layers = layers_of(source, source.find(str(reference)))
            reference = parse_reference(f"{link.address}:{_PORT}/{chosen.image}:lazy")
            publish(reference, layers, _OPTIONS, top)
        if chosen.way == _READY:
            registry = connect(reference, _OPTIONS, actions="pull,push")
            attach(registry, source, source.find(str(reference)))
        link.shape(chosen.rtt_ms, chosen.rate_mbit)
        return _pulled(reference, disk, link, chosen.way)


def _pulled(reference: Reference, disk: Path, link: Link, way: str) -> Measured:
    point, store = disk / "root", disk / "store"
    point.mkdir()
    if way == _READY:  # once per boot, as the ladder is: no arm's clock runs meanwhile
        Converter(store).root.mkdir(parents=True)
        probed(place=Converter(store).root, rungs=(Rung.LAYERS,))
    write_knob(_DROP, 3)
    wire, began, cpu = link.received, time.monotonic(), time.process_time()
    with _usable(reference, disk, point, way) as mechanism:
        usable, spent = time.monotonic(), time.process_time() - cpu
        files, size = _files(point)
        write_knob(_DROP, 3)
        began_reading = time.monotonic()
        rest = _read(files, size * _READ)
        used = time.monotonic()
        _read(rest, size)
        whole = time.monotonic()
    return Measured(
        {
            "pull": 1000 * (usable - began),
            "first_use": 1000 * (usable - began + used - began_reading),
            "full_read": 1000 * (usable - began + whole - began_reading),
            "cpu": 1000 * spent,
            "wire": float(link.received - wire),
        },
        {"files": len(files), "bytes": size, "mechanism": mechanism},
    )


@contextlib.contextmanager
def _usable(reference: Reference, disk: Path, point: Path, way: str) -> Iterator[str]:
    """Pull, and mount for the block; yield how it is mounted."""
    if way == _LAZY:
        with lazily_mounted(reference, disk, point, _OPTIONS) as mechanism:
            yield mechanism
        return
    store = ImageStore(disk / "store")
    ready = ReadyImages(store, TakeReady.ON) if way == _READY else None
    pull(connect(reference, _OPTIONS), store, _OPTIONS, None, ready)
    rung = None if way == _READY else Rung(way)
    with mounted(store, str(reference), point, rung=rung) as (_, choice):
        yield choice.rung


def _files(root: Path) -> tuple[list[tuple[Path, int]], int]:
    """Return the regular files below a root with their sizes, shuffled by the seed; their sum."""
    found = []
    for directory, _, names in os.walk(root):
        for name in names:
            path = Path(directory, name)
            facts = path.lstat()
            if stat.S_ISREG(facts.st_mode):
                found.append((path, facts.st_size))
    found.sort()
    random.Random(seed()).shuffle(found)  # noqa: S311 - repeatable
    return found, sum(size for _, size in found)


def _read(files: list[tuple[Path, int]], most: float) -> list[tuple[Path, int]]:
    """Read files until so many bytes have come; return those that are left."""
    done = 0
    for place, (path, size) in enumerate(files):
        if done >= most:
            return files[place:]
        if len(path.read_bytes()) != size:
            raise WorkloadError(f"{path} is shorter than it should be")
        done += size
    return []


def _publish(reference: Reference, store: ImageStore, name: str, scale: float) -> None:
    """Put an image of a class into the registry."""
    made = image_layers(name, 0, scale)
    layers = tuple(
        store.blobs.add(gzip.compress(one.archive, 6, mtime=0), OCI_LAYER_GZIP) for one in made
    )
    platform = machine_platform()
    config = {
        "architecture": platform.architecture,
        "os": platform.os,
        "rootfs": {"type": "layers", "diff_ids": [one.diff_id for one in made]},
    }
    described = store.blobs.add(json.dumps(config, sort_keys=True).encode(), OCI_CONFIG)
    manifest = store.blobs.add(encode(Manifest(described, layers)), OCI_MANIFEST)
    store.tag(reference, manifest)
    found: Image = store.find(str(reference))
    push(connect(reference, _OPTIONS, actions="pull,push"), store, found)


@contextlib.contextmanager
def _registry(link: Link, top: Path) -> Iterator[None]:
    """Run a registry at the far end of the link for the block, without its log."""
    require("docker-registry", "docker-registry")
    path = top / "registry.yml"
    write_text(path, _CONFIG.format(directory=top / "registry", port=_PORT))
    process = spawn(link.there(["docker-registry", "serve", os.fspath(path)]), stderr=2)
    try:
        _await(link)
        yield
    finally:
        stop(process)


def _await(link: Link) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        connection = http.client.HTTPConnection(link.address, _PORT, timeout=5)
        try:
            connection.request("GET", "/v2/")
            if connection.getresponse().status == 200:
                return
        except OSError as error:
            if time.monotonic() > deadline:
                raise WorkloadError(f"the registry does not answer: {error}") from error
        finally:
            connection.close()
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
