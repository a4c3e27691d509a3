"""The programs of suite erofs about rungs: right on this kernel, and wrong where something is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperbox.storage import conversion
from hyperbox.storage.inode import Content
from hyperbox.storage.layer_store import LayerStore
from suites.erofs import rungs, storing
from suites.program import Measured
from workloads.images import CLASSES, image_layers

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rungs, "_SCALE", 0.02)
    monkeypatch.setattr(rungs, "_READS", 400)
    monkeypatch.setattr(storing, "_SCALE", 0.02)


def measured() -> Measured:
    return rungs._measure()


def test_nothing_is_wrong_here() -> None:
    found = measured().metrics
    assert (found["wrong"], found["undetected"], found["wrong_choices"]) == (0, 0, 0)
    assert found["reads"] >= 400 * len(CLASSES)


def test_mounting_without_verifying_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "verify", lambda manifest: None)
    assert measured().metrics["undetected"] > 0


def test_a_wrong_byte_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = LayerStore.pieces

    def pieces(store: LayerStore, content: Content) -> Iterator[bytes]:
        for piece in right(store, content):
            yield piece[:-1] + bytes((piece[-1] ^ 1,))

    monkeypatch.setattr(LayerStore, "pieces", pieces)
    assert measured().metrics["wrong"] > 0


def test_what_is_stored_is_counted() -> None:
    found = storing._measure().metrics
    assert min(found.values()) > 0


@pytest.mark.parametrize("name", CLASSES)
def test_images_are_the_same_for_the_same_seed(name: str, tmp_path: Path) -> None:
    first = [layer.diff_id for layer in image_layers(name, 1, 0.05)]
    assert first == [layer.diff_id for layer in image_layers(name, 1, 0.05)]
    other = [layer.diff_id for layer in image_layers(name, 2, 0.05)]
    assert not set(first) & set(other)
    assert first[0] == image_layers("distro", 1, 0.05)[0].diff_id  # all share a base
