"""Images: a ready one beside curl, conversion beside tar and other tools, a merge of 128 layers.

Run by asv, or at once, with a table::

    python -m suites.benchmarks.images

Speed is of this machine and of what else it does: read the ratios.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import resource
import shutil
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from rich.table import Table

from hyperbox.console import TerminalConsole
from hyperbox.errors import WorkloadError
from hyperbox.files import write_bytes, write_text
from hyperbox.processes import require, run, spawn, stop
from hyperbox.storage.conversion import Converter
from hyperbox.storage.images import ImageStore
from hyperbox.storage.layer_reading import Layer
from hyperbox.storage.oci import OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST, Manifest, encode
from hyperbox.storage.platforms import machine_platform
from hyperbox.storage.pull import PullOptions, connect, pull
from hyperbox.storage.push import push
from hyperbox.storage.ready_image import ReadyImages, TakeReady, attach
from hyperbox.storage.reference import Reference, parse_reference
from hyperbox.storage.registry import Registry
from hyperbox.storage.rung import Rung
from workloads.images import image_layers

_REPEATS = 3
_SCALE = 1.0
_PATIENCE_S = 30.0
_LIMIT_S = 300.0
_OPTIONS = PullOptions()
_CONFIG = """version: 0.1
storage: {{filesystem: {{rootdirectory: {directory}}}}}
http: {{addr: "127.0.0.1:{port}"}}
log: {{level: error, accesslog: {{disabled: true}}}}
"""


class ReadyImage:
    """How fast a ready image comes, beside `curl | sha256sum` of the same blobs."""

    timeout = 900
    unit = "%"

    def track_of_curl(self) -> float:
        """Speed of a pull to what can be mounted, in percent of curl's; the target is 90."""
        with tempfile.TemporaryDirectory() as name, _registry(Path(name)) as host:
            reference = parse_reference(f"{host}/framework:1")
            urls = _published(reference, ImageStore(Path(name) / "source"))
            pairs = []
            for number in range(_REPEATS):
                curl = _seconds(partial(_curl, urls))
                store = ImageStore(Path(name) / f"store-{number}")
                pairs.append(curl / _seconds(partial(_pull, reference, store)))
        return 100 * statistics.median(pairs)


class Conversion:
    """CPU time of what an image's layers become, beside `tar xzf` of the same layers."""

    params = tuple(map(str, Rung))
    param_names = ("rung",)
    timeout = 900
    unit = "%"

    def track_of_tar(self, rung: str) -> float:
        """CPU time in percent of tar's; the target for erofs is 100 at most."""
        with tempfile.TemporaryDirectory() as name:
            top = Path(name)
            layers = _layers(top)
            pairs = []
            for number in range(_REPEATS):
                tar = _cpu(partial(_untar, layers, top / f"tar-{number}"))
                converter = Converter(top / f"store-{number}")
                own = _cpu(partial(converter.convert, layers, Rung(rung)))
                pairs.append(own / tar)
        return 100 * statistics.median(pairs)


class OtherTools:
    """CPU time of other tools on the same layers, in percent of tar's."""

    params = ("mkfs.erofs --tar", "skopeo copy", "umoci unpack", "buildah from")
    param_names = ("tool",)
    timeout = 900
    unit = "%"

    def track_of_tar(self, tool: str) -> float:
        """CPU time in percent; not a number where the tool is not installed or cannot."""
        with tempfile.TemporaryDirectory() as name:
            top = Path(name)
            layers = _layers(top)
            command = _command(tool, layers, top)
            if command is None:
                return float("nan")
            tar = _cpu(lambda: _untar(layers, top / "tar"))
            return 100 * _cpu(command) / tar


class Merge:
    """The metadata of many layers in one image."""

    timeout = 900
    unit = "ms"

    def track_128_layers(self) -> float:
        """CPU milliseconds of reading their indexes and writing one image; the target is 100."""
        with tempfile.TemporaryDirectory() as name:
            top = Path(name)
            layers: list[Layer] = []
            for number in range(32):  # of four layers each
                layers += _layers(top / str(number), "web", 0.02, number)
            converter = Converter(top / "store")
            image = converter.convert(layers, Rung.EROFS)
            spent = []
            for _ in range(_REPEATS):
                image.path.unlink()  # the blobs are there
                spent.append(_cpu(lambda: converter.convert(layers, Rung.EROFS)))
        return 1000 * statistics.median(spent)


def _layers(
    top: Path, name: str = "framework", scale: float = _SCALE, seed: int = 0
) -> Sequence[Layer]:
    layers = []
    for number, made in enumerate(image_layers(name, seed, scale)):
        path = top / f"{number}.tar.gz"
        write_bytes(path, gzip.compress(made.archive, 6, mtime=0))
        layers.append(Layer(path, OCI_LAYER_GZIP, made.diff_id))
    return layers


def _published(reference: Reference, store: ImageStore) -> list[str]:
    """Put an image with its ready one into the registry; return where the latter's blobs are."""
    layers = _layers(store.root.parent)
    blobs = tuple(store.blobs.add(one.path.read_bytes(), OCI_LAYER_GZIP) for one in layers)
    platform = machine_platform()
    config = {
        "architecture": platform.architecture,
        "os": platform.os,
        "rootfs": {"type": "layers", "diff_ids": [one.diff_id for one in layers]},
    }
    described = store.blobs.add(json.dumps(config).encode(), OCI_CONFIG)
    store.tag(reference, store.blobs.add(encode(Manifest(described, blobs)), OCI_MANIFEST))
    registry: Registry = connect(reference, _OPTIONS, actions="pull,push")
    image = store.find(str(reference))
    push(registry, store, image)
    made = attach(registry, store, image)
    _, data = registry.manifest(made.digest)
    return [f"{registry.url}blobs/{one['digest']}" for one in json.loads(data)["layers"]]


def _pull(reference: Reference, store: ImageStore) -> None:
    ready = ReadyImages(store, TakeReady.ON)
    pull(connect(reference, _OPTIONS), store, _OPTIONS, None, ready)


def _curl(urls: Sequence[str]) -> None:
    command = " ".join(f"{require('curl', 'curl')} -sf '{url}';" for url in urls)
    run(["sh", "-c", f"({command}) | sha256sum"], timeout=_LIMIT_S)


def _untar(layers: Sequence[Layer], place: Path) -> None:
    place.mkdir()
    for layer in layers:
        run(["tar", "xzf", layer.path, "-C", place], timeout=_LIMIT_S)


def _command(tool: str, layers: Sequence[Layer], top: Path) -> Callable[[], object] | None:
    """Return what runs a tool on the layers; None if it is not here or cannot."""
    program = shutil.which(tool.partition(" ")[0])
    if program is None:
        return None
    if tool.startswith("mkfs.erofs"):
        if b"--tar" not in run([program, "--help"], timeout=_LIMIT_S, check=False).stdout:
            return None
        return lambda: [
            run([program, "--tar=f", "--gzip", top / f"{n}.erofs", one.path], timeout=_LIMIT_S)
            for n, one in enumerate(layers)
        ]
    layout = top / "layout"
    _write_layout(layers, layout)
    words: dict[str, list[str | Path]] = {
        "skopeo copy": ["--insecure-policy", "copy", f"oci:{layout}:1", f"dir:{top / 'copied'}"],
        "umoci unpack": ["unpack", "--image", f"{layout}:1", top / "bundle"],
        "buildah from": ["from", f"oci:{layout}:1"],
    }
    return lambda: run([program, *words[tool]], timeout=_LIMIT_S)


def _write_layout(layers: Sequence[Layer], place: Path) -> None:
    store = ImageStore(place)
    blobs = tuple(store.blobs.add(one.path.read_bytes(), OCI_LAYER_GZIP) for one in layers)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [one.diff_id for one in layers]},
    }
    described = store.blobs.add(json.dumps(config).encode(), OCI_CONFIG)
    made = store.blobs.add(encode(Manifest(described, blobs)), OCI_MANIFEST)
    named = {**made.as_json(), "annotations": {"org.opencontainers.image.ref.name": "1"}}
    write_text(place / "index.json", json.dumps({"schemaVersion": 2, "manifests": [named]}))
    write_text(place / "oci-layout", '{"imageLayoutVersion": "1.0.0"}')


@contextlib.contextmanager
def _registry(top: Path) -> Iterator[str]:
    """Run Debian's docker-registry for the block; yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    write_text(top / "registry.yml", _CONFIG.format(directory=top / "registry", port=port))
    program = require("docker-registry", "docker-registry")
    process = spawn([program, "serve", top / "registry.yml"])
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if time.monotonic() > deadline:
                raise WorkloadError("docker-registry does not answer")
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        stop(process)


def _seconds(work: Callable[[], object]) -> float:
    os.sync()
    before = time.monotonic()
    work()
    return time.monotonic() - before


def _cpu(work: Callable[[], object]) -> float:
    """Return the CPU seconds, of this process and its children, that some work takes."""
    before = _spent()
    work()
    return _spent() - before


def _spent() -> float:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(one.ru_utime + one.ru_stime for one in map(resource.getrusage, kinds))


def main() -> None:
    """Measure all of it and print a table."""
    table = Table("What", "Measured", "Target")
    table.add_row(
        "ready image, of the speed of curl | sha256sum",
        f"{ReadyImage().track_of_curl():.0f} %",
        "90 %",
    )
    for rung in Rung:
        target = "at most 100 %" if rung is Rung.EROFS else ""
        value = Conversion().track_of_tar(rung)
        table.add_row(f"conversion to {rung}, CPU time of tar xzf's", f"{value:.0f} %", target)
    for tool in OtherTools.params:
        table.add_row(
            f"{tool}, CPU time of tar xzf's", f"{OtherTools().track_of_tar(tool):.0f} %", ""
        )
    table.add_row(
        "merge of 128 layers, CPU time", f"{Merge().track_128_layers():.0f} ms", "at most 100 ms"
    )
    TerminalConsole().print(table)


if __name__ == "__main__":
    main()
