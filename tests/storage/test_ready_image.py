"""Ready images: attached once, taken instead of layers, refused where they do not belong."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hyperbox.cli.main import main
from hyperbox.errors import ExitCode, ImageError
from hyperbox.storage.compression import decompressed
from hyperbox.storage.credentials import Credentials
from hyperbox.storage.erofs import is_ready, mounted
from hyperbox.storage.erofs_format import check_super_block
from hyperbox.storage.images import ImageStore
from hyperbox.storage.ladder import Enabled
from hyperbox.storage.layouts import import_layout
from hyperbox.storage.listing import ListedEntry, list_directory
from hyperbox.storage.oci import EROFS_LAYER, Manifest, encode, parse_manifest
from hyperbox.storage.pull import PullOptions, connect, pull
from hyperbox.storage.push import push
from hyperbox.storage.ready_image import CHAIN_ID, ReadyImages, TakeReady, attach
from hyperbox.storage.reference import parse_reference
from hyperbox.storage.rung import Rung
from hyperbox.storage.transport import Options
from hyperbox.storage.zstd import ZstdStream, compress
from tests.storage.conftest import Made, described, write_layout
from tests.storage.misbehaving import Handler, Registry, misbehaving

pytestmark = pytest.mark.root
OPTIONS = PullOptions(transport=Options(attempts=2, first_wait_s=0.001))


def pulled(name: str, root: Path, take: TakeReady = TakeReady.AUTO) -> tuple[bool, list[str]]:
    """Pull into a store; return whether the ready image was taken, and what was refused."""
    store = ImageStore(root)
    ready = ReadyImages(store, take)
    image = pull(
        connect(parse_reference(name), OPTIONS, Credentials(())), store, OPTIONS, None, ready
    )
    return is_ready(store, image), ready.refused


def shown(name: str, root: Path, point: Path, rung: Rung | None = None) -> dict[bytes, ListedEntry]:
    point.mkdir(exist_ok=True)
    with mounted(ImageStore(root), name, point, rung=rung):
        return list_directory(point)


@dataclass(frozen=True)
class Attached:
    """An image in Debian's registry with its ready image: `store` has the layers."""

    name: str
    store: Path
    artifact: str


@pytest.fixture(scope="module")
def attached(
    docker_registry: str, small: Made, tmp_path_factory: pytest.TempPathFactory
) -> Attached:
    top = tmp_path_factory.mktemp("attached")
    store, name = ImageStore(top / "store"), f"{docker_registry}/ready:1"
    image = import_layout(write_layout(top / "layout", small), store, name=name)
    registry = connect(parse_reference(name), OPTIONS, Credentials(()), actions="pull,push")
    push(registry, store, image)
    return Attached(name, store.root, attach(registry, store, image).digest)


def test_who_pulls_takes_it_and_sees_the_same_files(attached: Attached, tmp_path: Path) -> None:
    assert pulled(attached.name, tmp_path / "store") == (True, [])
    files = shown(attached.name, tmp_path / "store", tmp_path / "point")
    assert files == shown(attached.name, attached.store, tmp_path / "point", Rung.OVERLAY)
    image = ImageStore(tmp_path / "store").find(attached.name)
    assert not any(ImageStore(tmp_path / "store").blobs.has(one) for one in image.manifest.layers)
    assert pulled(attached.name, tmp_path / "store") == (True, [])


def test_attaching_again_makes_the_same_artifact(attached: Attached) -> None:
    store = ImageStore(attached.store)
    registry = connect(
        parse_reference(attached.name), OPTIONS, Credentials(()), actions="pull,push"
    )
    assert attach(registry, store, store.find(attached.name)).digest == attached.artifact
    digest = store.find(attached.name).descriptor.digest
    assert [one.digest for one in registry.referrers(digest, EROFS_LAYER)] == [attached.artifact]


def test_not_for_a_digest_unless_asked_and_never_if_off(attached: Attached, tmp_path: Path) -> None:
    digest = ImageStore(attached.store).find(attached.name).descriptor.digest
    pinned = f"{attached.name}@{digest}"
    assert not pulled(pinned, tmp_path / "auto")[0]
    assert not pulled(attached.name, tmp_path / "off", TakeReady.OFF)[0]
    assert pulled(pinned, tmp_path / "on", TakeReady.ON)[0]


def test_the_verbs(attached: Attached, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, point = ("--root", str(tmp_path / "store")), tmp_path / "point"
    point.mkdir()
    words = ["push", "--attach", attached.name, "--root", str(attached.store), "--json"]
    assert main(words) == ExitCode.PASS
    assert json.loads(capsys.readouterr().out)["attached"] == attached.artifact
    assert main(["pull", attached.name, *root, "--json"]) == ExitCode.PASS
    assert json.loads(capsys.readouterr().out)["ready"]
    assert main(["images", "verify", *root]) == ExitCode.PASS
    assert main(["images", "mount", attached.name, str(point), *root, "--json"]) == ExitCode.PASS
    assert main(["images", "umount", str(point), *root]) == ExitCode.PASS
    capsys.readouterr()
    assert main(["images", "convert", attached.name, *root, "--rung", "overlay"]) != ExitCode.PASS
    assert "--ready-images off" in capsys.readouterr().err
    assert main(["pull", attached.name, *root, "--ready-images", "off"]) == ExitCode.PASS
    assert main(["images", "convert", attached.name, *root, "--rung", "overlay"]) == ExitCode.PASS
    assert main(["images", "prune", *root]) == ExitCode.PASS


def test_a_damaged_one_is_not_mounted(attached: Attached, tmp_path: Path) -> None:
    assert pulled(attached.name, tmp_path / "store")[0]
    (image, *_) = sorted((tmp_path / "store").rglob("layer.erofs"))
    data = bytearray(image.read_bytes())
    data[-1] ^= 1
    image.write_bytes(data)
    with pytest.raises(ImageError, match="does not have the bytes"):
        shown(attached.name, tmp_path / "store", tmp_path / "point")


@dataclass
class Offer:
    """The artifact of `attached` at a server of the tests, to be changed before it is offered."""

    server: Registry
    manifest: Manifest
    blobs: dict[str, bytes]

    def rule(self, request: Handler) -> bool:
        data = encode(self.manifest)
        one = described(data, self.manifest.media_type)
        last = request.path.partition("?")[0].rpartition("/")[2]
        if "/referrers/" in request.path:
            listed = {**one.as_json(), "artifactType": EROFS_LAYER}
            index = {"schemaVersion": 2, "manifests": [listed]}
            return request.answer(200, json.dumps(index).encode())
        if last == one.digest:
            return request.answer(200, data, headers={"Content-Type": one.media_type})
        return last in self.blobs and request.answer(200, self.blobs[last])

    def with_layer(
        self, data: bytes, media_type: str = "", annotations: dict[str, str] | None = None
    ) -> None:
        """Let the first layer have other bytes, as its digest says."""
        first, *others = self.manifest.layers
        described_anew = described(data, media_type or first.media_type)
        new = replace(described_anew, annotations=annotations or first.annotations)
        self.blobs[new.digest] = data
        self.manifest = replace(self.manifest, layers=(new, *others))


@pytest.fixture
def offer(attached: Attached, small: Made) -> Iterator[Offer]:
    registry = connect(parse_reference(attached.name), OPTIONS, Credentials(()))
    manifest = parse_manifest(registry.manifest(attached.artifact)[1])
    blobs = {one.digest: registry.read(one, 0, one.size) for one in manifest.layers}
    with misbehaving(small) as server:
        offer = Offer(server, manifest, blobs)
        server.rule = offer.rule
        yield offer


def erofs_of(offer: Offer) -> bytearray:
    data = offer.blobs[offer.manifest.layers[0].digest]
    return bytearray(decompressed(io.BytesIO(data), ratio=1000).read(1 << 20))


def other_subject(offer: Offer) -> None:
    offer.manifest = replace(offer.manifest, subject=described(b"other", ""))


def no_subject(offer: Offer) -> None:
    offer.manifest = replace(offer.manifest, subject=None)


def other_type(offer: Offer) -> None:
    offer.manifest = replace(offer.manifest, artifact_type="application/x-other")


def fewer_layers(offer: Offer) -> None:
    offer.manifest = replace(offer.manifest, layers=offer.manifest.layers[1:])


def other_order(offer: Offer) -> None:
    offer.manifest = replace(offer.manifest, layers=offer.manifest.layers[::-1])


def other_chain(offer: Offer) -> None:
    first, *others = offer.manifest.layers
    wrong = replace(first, annotations={CHAIN_ID: f"sha256:{'0' * 64}"})
    offer.manifest = replace(offer.manifest, layers=(wrong, *others))


def tar_layer(offer: Offer) -> None:
    offer.with_layer(b"no EROFS" * 1000, media_type="application/vnd.oci.image.layer.v1.tar")


def not_erofs(offer: Offer) -> None:
    offer.with_layer(bytes(8192), annotations=kept(offer))


def kept(offer: Offer) -> dict[str, str]:
    return {CHAIN_ID: offer.manifest.layers[0].annotations[CHAIN_ID]}


def broken_zstd(offer: Offer) -> None:
    offer.with_layer(b"\x28\xb5\x2f\xfd" + b"x" * 100)


def other_content(offer: Offer) -> None:
    data = erofs_of(offer)
    data[-1] ^= 1
    offer.with_layer(compress(bytes(data)))


def another_device(offer: Offer) -> None:
    data = erofs_of(offer)
    data[1024 + 86] = 1
    offer.with_layer(compress(bytes(data)), annotations=kept(offer))


def cut_short(offer: Offer) -> None:
    offer.with_layer(compress(bytes(erofs_of(offer)[:8192])), annotations=kept(offer))


def wrong_digest(offer: Offer) -> None:
    digest = offer.manifest.layers[0].digest
    offer.blobs[digest] = b"x" + offer.blobs[digest][1:]


def absent_blob(offer: Offer) -> None:
    del offer.blobs[offer.manifest.layers[0].digest]


def bomb(offer: Offer) -> None:
    offer.with_layer(compress(bytes(200 << 20)), annotations=kept(offer))


def endless(offer: Offer) -> None:
    first, *others = offer.manifest.layers
    offer.manifest = replace(offer.manifest, layers=(replace(first, size=1 << 60), *others))


HOSTILE = (
    other_subject, no_subject, other_type, fewer_layers, other_order, other_chain, tar_layer,
    not_erofs, broken_zstd, other_content, another_device, cut_short, wrong_digest, absent_blob,
    bomb, endless,
)  # fmt: skip


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_does_not_belong_to_the_image_is_refused_in_one_line(
    offer: Offer, hostile: Callable[[Offer], None], tmp_path: Path
) -> None:
    hostile(offer)
    ready, refused = pulled(f"{offer.server.host}/app", tmp_path / "store")
    assert not ready
    assert len(refused) == 1
    assert "\n" not in refused[0]
    assert not list(tmp_path.rglob("*.layers.json"))


def test_what_is_not_changed_is_taken_by_the_referrers_api(offer: Offer, tmp_path: Path) -> None:
    assert pulled(f"{offer.server.host}/app", tmp_path / "store") == (True, [])


def test_it_can_be_wanted(offer: Offer, tmp_path: Path) -> None:
    other_subject(offer)
    with pytest.raises(ImageError, match="belongs to another image"):
        pulled(f"{offer.server.host}/app", tmp_path / "store", TakeReady.ON)


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"manifests": 3}', b"\xff" * 10])
def test_referrers_that_cannot_be_read(small: Made, tmp_path: Path, body: bytes) -> None:
    def rule(request: Handler) -> bool:
        return "/referrers/" in request.path and request.answer(200, body)

    with misbehaving(small) as server:
        server.rule = rule
        ready, refused = pulled(f"{server.host}/app", tmp_path)
    assert not ready
    assert len(refused) == 1


def test_erofs_that_is_off_takes_none(attached: Attached, tmp_path: Path) -> None:
    words = ["pull", attached.name, "--root", str(tmp_path), "--erofs-enabled", Enabled.OFF]
    assert main(words) == ExitCode.PASS
    assert not is_ready(ImageStore(tmp_path), ImageStore(tmp_path).find(attached.name))


def test_zstd_streams_of_many_frames(tmp_path: Path) -> None:
    data = bytes(range(256)) * 3000
    skipped = b"\x53\x2a\x4d\x18\x05\x00\x00\x00extra"
    whole = compress(data) + skipped + compress(b"") + compress(data)
    assert read(whole) == data * 2
    made = subprocess.run(["zstd", "-c"], input=data, check=True, stdout=subprocess.PIPE).stdout
    assert read(made) == data
    with pytest.raises(EOFError):
        read(whole[:-5])
    with pytest.raises(OSError, match="zstd"):
        read(whole + b"garbage")


def read(data: bytes) -> bytes:
    stream, found = ZstdStream(io.BytesIO(data)), b""
    while piece := stream.read(5000):
        found += piece
    return found


def test_a_super_block_is_read_whatever_it_is() -> None:
    for data in (b"", b"x" * 4096, bytes(4096), b"\xff" * 5000):
        with pytest.raises(ImageError):
            check_super_block(data, len(data))
