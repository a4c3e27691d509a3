"""Documents of images: what the specifications show is read, and anything else is refused."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import example, given, settings

from hyperbox.errors import ImageError
from hyperbox.storage.documents import MOST_DOCUMENT
from hyperbox.storage.oci import (
    DOCKER_MANIFEST,
    EMPTY,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    encode,
    parse_config,
    parse_index,
    parse_manifest,
    parse_manifest_or_index,
)
from hyperbox.storage.platforms import Platform, machine_platform, parse_platform
from tests.mutation import batches


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


MANIFEST: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": OCI_MANIFEST,
    "config": {"mediaType": OCI_CONFIG, "digest": digest("a"), "size": 7023},
    "layers": [
        {"mediaType": OCI_LAYER_GZIP, "digest": digest("b"), "size": 32654},
        {"mediaType": OCI_LAYER_GZIP, "digest": digest("b"), "size": 32654},
    ],
    "annotations": {"com.example.key1": "value1"},
}
CONFIG: dict[str, Any] = {
    "created": "2015-10-31T22:22:56.015925234Z",
    "architecture": "amd64",
    "os": "linux",
    "config": {
        "User": "alice",
        "Env": ["PATH=/usr/bin", "FOO=a=b"],
        "Entrypoint": ["/bin/app"],
        "Cmd": ["--foreground"],
        "Volumes": None,
        "WorkingDir": "/home/alice",
        "Labels": {"a": "b"},
    },
    "rootfs": {"diff_ids": [digest("c"), digest("d")], "type": "layers"},
}


def entry(letter: str, platform: str = "", **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"mediaType": OCI_MANIFEST, "digest": digest(letter), "size": 7}
    if platform:
        names = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
        found["platform"] = names
    return found | more


INDEX: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": OCI_INDEX,
    "manifests": [
        entry("0", "unknown/unknown", annotations={"vnd.docker.reference.type": "attestation"}),
        entry("1", "linux/amd64"),
        entry("2", "linux/arm/v6"),
        entry("3", "linux/arm/v7"),
        entry("4", "linux/arm64/v8"),
        entry("5", "windows/amd64"),
    ],
}


def as_bytes(document: object) -> bytes:
    return json.dumps(document).encode()


def test_a_manifest_is_read_and_written() -> None:
    found = parse_manifest(as_bytes(MANIFEST))
    assert found.config == Descriptor(OCI_CONFIG, digest("a"), 7023)
    assert len(found.layers) == 2
    assert len(found.blobs) == 2
    assert json.loads(encode(found)) == MANIFEST
    assert parse_manifest(encode(found)) == found


def test_dockers_manifest_keeps_its_media_type() -> None:
    found = parse_manifest(as_bytes(MANIFEST | {"mediaType": DOCKER_MANIFEST}))
    assert json.loads(encode(found))["mediaType"] == DOCKER_MANIFEST


def test_an_artifact_names_what_it_belongs_to() -> None:
    subject = Descriptor(OCI_MANIFEST, digest("f"), 12)
    found = Manifest(EMPTY, (), artifact_type="application/vnd.example", subject=subject)
    assert parse_manifest(encode(found)) == found
    assert json.loads(encode(found))["subject"]["digest"] == digest("f")


def test_a_configuration_says_what_runs() -> None:
    found = parse_config(as_bytes(CONFIG))
    assert found.platform == Platform("linux", "amd64")
    assert found.diff_ids == (digest("c"), digest("d"))
    assert found.arguments == ("/bin/app", "--foreground")
    assert found.environment == ("PATH=/usr/bin", "FOO=a=b")
    assert (found.directory, found.user, found.labels) == ("/home/alice", "alice", {"a": "b"})


@pytest.mark.parametrize(
    ("platform", "letter"),
    [
        ("linux/amd64", "1"),
        ("linux/amd64/v3", "1"),
        ("linux/arm", "3"),
        ("linux/arm/v8", "3"),
        ("linux/arm/v6", "2"),
        ("linux/arm64", "4"),
        ("windows/amd64", "5"),
    ],
)
def test_an_index_is_read_by_platform(platform: str, letter: str) -> None:
    found = parse_index(as_bytes(INDEX)).select(parse_platform(platform))
    assert found.digest == digest(letter)


def test_a_platform_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ImageError) as refused:
        parse_index(as_bytes(INDEX)).select(parse_platform("linux/s390x"))
    assert "linux/arm/v6" in refused.value.hint
    assert "unknown" not in refused.value.hint


def test_a_single_entry_without_platform_is_the_image() -> None:
    index = INDEX | {"manifests": [entry("0", "unknown/unknown"), entry("9")]}
    assert parse_index(as_bytes(index)).select(machine_platform()).digest == digest("9")
    both = INDEX | {"manifests": [entry("8"), entry("9")]}
    with pytest.raises(ImageError, match="no image for"):
        parse_index(as_bytes(both)).select(machine_platform())


def test_what_needs_erofs_is_for_those_who_have_it() -> None:
    erofs = entry("e", "linux/amd64")
    erofs["platform"]["os.features"] = ["erofs"]
    index = parse_index(as_bytes(INDEX | {"manifests": [erofs, entry("1", "linux/amd64")]}))
    assert index.select(Platform("linux", "amd64")).digest == digest("1")
    able = Platform("linux", "amd64", os_features=("erofs",))
    assert index.select(able).digest == digest("e")
    assert parse_index(encode(index)) == index


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ([], "an object is expected"),
        ({"schemaVersion": 1, "fsLayers": []}, "schema version 2"),
        (MANIFEST | {"manifests": []}, "both an index and a manifest"),
        (MANIFEST | {"mediaType": OCI_INDEX}, "wrong media type"),
        (MANIFEST | {"mediaType": "text/plain"}, "wrong media type"),
        (MANIFEST | {"Layers": []}, "to some readers"),
        (MANIFEST | {"config": None}, "no configuration"),
        (MANIFEST | {"layers": {}}, "not a list"),
        (MANIFEST | {"layers": [7]}, "an object is expected"),
        (MANIFEST | {"layers": [{}] * 20_000}, "more than"),
        (MANIFEST | {"annotations": {"a": 7}}, "not a map of strings"),
        (MANIFEST | {"config": entry("a") | {"size": -1}}, "not a size"),
        (MANIFEST | {"config": entry("a") | {"size": True}}, "not a size"),
        (MANIFEST | {"config": entry("a") | {"size": 2**63}}, "not a size"),
        (MANIFEST | {"config": entry("a") | {"digest": "sha256:../../etc"}}, "is not a sha256"),
        (MANIFEST | {"config": entry("A")}, "is not a sha256"),
        (MANIFEST | {"config": entry("a") | {"Digest": digest("b")}}, "to some readers"),
        ({"schemaVersion": 2}, "or neither"),
    ],
)
def test_what_could_be_misread_is_refused(document: object, why: str) -> None:
    with pytest.raises(ImageError, match=why):
        parse_manifest_or_index(as_bytes(document))


def test_what_was_announced_is_what_it_must_be() -> None:
    with pytest.raises(ImageError, match="was said to be"):
        parse_manifest_or_index(as_bytes(MANIFEST), media_type=DOCKER_MANIFEST)
    with pytest.raises(ImageError, match="a manifest is expected"):
        parse_manifest(as_bytes(INDEX))
    with pytest.raises(ImageError, match="an index is expected"):
        parse_index(as_bytes(MANIFEST))


def test_size_is_bounded_before_parsing() -> None:
    with pytest.raises(ImageError, match="more than"):
        parse_manifest(b" " * MOST_DOCUMENT + as_bytes(MANIFEST))


def refused_or_read(texts: list[str]) -> None:
    for text in texts:
        data = text.encode(errors="surrogatepass")
        for parser in (parse_manifest_or_index, parse_config):
            with contextlib.suppress(ImageError):
                found = parser(data)
                if isinstance(found, Index | Manifest):
                    assert parse_manifest_or_index(encode(found)) == found


@settings(max_examples=60)
@example(["[" * 20_000, '{"schemaVersion": 1e999}', '{"schemaVersion": 2, "layers": null}'])
@given(batches([json.dumps(MANIFEST), json.dumps(INDEX), json.dumps(CONFIG)]))
def test_any_document_is_read_or_refused(texts: list[str]) -> None:
    refused_or_read(texts)
