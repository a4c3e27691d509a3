"""Layers: declared in one file, made reproducibly, stacked under the oldest and newest kernel."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hyperbox.errors import ConfigError
from hyperbox.files import sha256_file
from hyperbox.harness.declarations import load_suites
from hyperbox.harness.lab import layers
from hyperbox.harness.lab.erofs_image import LABEL
from hyperbox.harness.lab.kernel_kit import kernel_kit
from hyperbox.harness.lab.layers import layer_image, parse_layers, read_layers
from hyperbox.harness.lab.vm import VirtualMachine
from hyperbox.harness.model import Lane
from hyperbox.processes import run
from tests.guests import kept_guest

LAYER = {"id": "demo", "title": "for tests", "packages": {"hello": "says so"}}


def test_the_declared_layers_are_what_experiments_name() -> None:
    declared = read_layers()
    named = {name for suite in load_suites() for one in suite.experiments for name in one.layers}
    assert named
    assert named <= set(declared)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id": "Demo"}, "id 'Demo' is not"),
        ({"id": "de--mo"}, "id 'de--mo' is not"),
        ({"title": " "}, "has no title"),
        ({"packages": {}}, "neither packages nor python"),
        ({"packages": ["hello"]}, "packages must be names with texts"),
        ({"packages": {"hello": ""}}, "packages must be names with texts"),
        ({"pakages": {"x": "y"}}, "unknown key 'pakages'"),
    ],
)
def test_what_is_no_layer_is_refused_with_its_place(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"layers.toml: layer number 2: .*{said}"):
        parse_layers({"layer": [{**LAYER, "id": "one"}, {**LAYER, **change}]}, Path("layers.toml"))


@pytest.mark.parametrize("document", [{}, {"layer": {}}, {"layer": [LAYER], "more": 1}])
def test_a_file_without_layers_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"expected \[\[layer\]\]"):
        parse_layers(document, Path("layers.toml"))
    with pytest.raises(ConfigError, match="'demo' is declared twice"):
        parse_layers({"layer": [LAYER, LAYER]}, Path("layers.toml"))


def test_an_unknown_layer_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no layer is called 'radis'") as caught:
        layer_image("radis")
    assert "redis" in caught.value.hint


def test_a_layer_is_what_it_adds(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("usr/bin/old", "usr/bin/new", "usr/share/old/file", "var/lib/new/empty"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    (tree / "var/lib/new/empty").unlink()
    (tree / "usr/lib").symlink_to("bin")
    (tree / "usr/old-link").symlink_to("nothing")
    has = {"usr", "usr/bin", "usr/bin/old", "usr/share", "usr/share/old", "usr/share/old/file"}
    layers._subtract(tree, frozenset(has | {"usr/old-link", "var", "var/lib"}))
    left = {path.relative_to(tree).as_posix() for path in tree.rglob("*")}
    assert left == {"usr", "usr/bin", "usr/bin/new", "usr/lib", "var", "var/lib", "var/lib/new"}


@pytest.mark.vm  # needs mkfs.erofs
@pytest.mark.parametrize("damage", ["none", "cut", "flip"])
def test_an_image_is_reproducible_and_heals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setenv("HYPERBOX_CACHE", str(tmp_path / "cache"))
    image = layer_image("daemon")
    whole = image.path.read_bytes()
    assert image.facts()["python"].keys() >= {"uvicorn", "starlette", "h11", "anyio", "idna"}
    if damage == "none":
        image.path.unlink()
    else:
        half = len(whole) // 4
        rest = b"" if damage == "cut" else bytes([whole[half] ^ 1]) + whole[half + 1 :]
        image.path.write_bytes(whole[:half] + rest)
    assert layer_image("daemon") == image
    assert sha256_file(image.path) == image.sha256
    out = tmp_path / "out"
    run(["fsck.erofs", f"--extract={out}", image.path], timeout=60)
    assert (out / LABEL).read_text() == "layer-daemon\n"


PROGRAM = """
import json, pathlib, subprocess, time
import starlette, prometheus_client, uvicorn
from hyperbox.daemon import lifetime
server = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", "/tmp/redis"])
while not pathlib.Path("/tmp/redis").exists():
    time.sleep(0.1)
load = ["redis-benchmark", "-s", "/tmp/redis", "-t", "set", "-n", "100", "--csv"]
said = subprocess.run(load, capture_output=True, text=True, check=True).stdout
server.kill()
accounts = pathlib.Path("/etc/passwd").read_text().splitlines()
print(json.dumps({
    "load": said.splitlines()[-1],
    "where": uvicorn.__file__,
    "root": [line for line in accounts if line.startswith("root:")],
    "redis": [line for line in accounts if line.startswith("redis:")],
    "top": sorted(path.name for path in pathlib.Path("/").glob(".hyperbox*")),
}))
"""


@pytest.fixture(scope="module", params=["5.10", "7.3"])
def machine(request: pytest.FixtureRequest) -> Iterator[VirtualMachine]:
    made = kept_guest(kernel_kit(request.param), Lane.FAST, layers=["daemon", "redis"])
    with contextlib.closing(made), made.clone() as clone:
        yield clone


@pytest.mark.vm
def test_stacked_layers_are_one_root(machine: VirtualMachine) -> None:
    done = machine.execute(["python3", "-c", PROGRAM], timeout=300)
    assert done.status == 0, done.stderr.decode()[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["load"].startswith('"SET"')
    assert found["where"].startswith("/usr/lib/hyperbox/python/daemon/")
    assert len(found["root"]) == len(found["redis"]) == 1
    assert found["top"] == [LABEL]
