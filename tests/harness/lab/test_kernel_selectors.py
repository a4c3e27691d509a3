from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.errors import ConfigError
from hyperbox.harness.lab.kernel_lock import read_lock, read_matrix
from hyperbox.harness.lab.kernel_selectors import (
    chosen_kernels,
    distinct_labels,
    expand_kernels,
    foreseen_labels,
)
from tests.harness.lab.test_custom_kernel import RELEASE, bzimage


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERBOX_CACHE", os.fspath(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def test_selectors_keep_their_order_and_sets_are_expanded(tmp_path: Path) -> None:
    (tmp_path / "bzImage").write_bytes(b"")
    found = expand_kernels(["bzImage", "host", "6.12.90", "default", "6.12", "host"])
    assert found == (str(tmp_path / "bzImage"), "host", "6.12.90", *read_matrix().sets["default"])


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown kernel '6\.13'"):
        expand_kernels(["6.13"])


def test_a_file_does_not_shadow_a_packaged_kernel(tmp_path: Path) -> None:
    version = read_lock()["7.3"].version
    unknown = "6.14.0-mine"
    for name in ("7.3", "default", "host", version, unknown):
        (tmp_path / name).write_bytes(bzimage())
    names = ("7.3", "host", version, *read_matrix().sets["default"])
    assert expand_kernels(["7.3", "host", version, "default"]) == tuple(dict.fromkeys(names))
    assert expand_kernels(["./7.3", unknown]) == (str(tmp_path / "7.3"), str(tmp_path / unknown))
    _, remarks = foreseen_labels(["7.3"], None)
    assert "7.3 means the packaged kernel; write ./7.3 for the file of that name" in remarks


def test_modules_without_a_bzimage_are_refused(tmp_path: Path) -> None:
    for names in (["6.12"], ["default", "6.12.90"], ["host"]):
        with pytest.raises(ConfigError, match=r"--modules mods is for a bzImage, and .* is not"):
            expand_kernels(names, Path("mods"))
    assert expand_kernels(["./bzImage", "6.12"], Path("mods"))[1] == "6.12"


def test_builds_of_one_release_are_two_kernels_and_one_build_is_one(tmp_path: Path) -> None:
    selectors = []
    for name, padding in (("one", 0), ("other", 1), ("copy", 0)):
        (tmp_path / name).write_bytes(bzimage() + bytes(padding))
        selectors.append(str(tmp_path / name))
    found = chosen_kernels(selectors, None, lambda _text, _fraction: None)
    assert [one.selector for one in found] == selectors[:2]
    labels = [one.kit.label for one in found]
    assert labels == [f"{RELEASE}@{one.kit.build[:8]}" for one in found]
    assert labels[0] != labels[1]
    assert {one.kit.release for one in found} == {RELEASE}
    assert foreseen_labels(selectors, None) == (tuple(labels), ())
    assert foreseen_labels(selectors[::2], None) == ((RELEASE,), ())


def test_other_modules_make_another_build(tmp_path: Path) -> None:
    (tmp_path / "bzImage").write_bytes(bzimage())
    modules = tmp_path / RELEASE
    modules.mkdir()
    selectors = (str(tmp_path / "bzImage"),)
    builds = set()
    for content in ("", "# changed\n"):
        (modules / "modules.builtin").write_text(content)
        (kernel,) = chosen_kernels(selectors, modules, lambda _text, _fraction: None)
        builds.add((kernel.kit.build, kernel.kit.sha256))
    assert len(builds) == 2
    assert len({sha256 for _, sha256 in builds}) == 1


def test_names_of_one_packaged_kernel_are_one() -> None:
    version = read_lock()["7.3"].version
    upstream = version.rpartition("-")[0]
    labels, remarks = foreseen_labels([upstream, version], None)
    assert labels == (version,)
    assert remarks[0] == f"kernel {upstream} is not in the cache: it will be fetched"
    assert foreseen_labels(["7.3", upstream], None)[0] == ("7.3",)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.text("0123456789abcdef", min_size=64))))
def test_a_label_is_one_build_and_a_build_one_label(kernels: list[tuple[str, str]]) -> None:
    labels = distinct_labels(kernels)
    pairs = {(label, build) for label, (_, build) in zip(labels, kernels, strict=True)}
    builds = {build for _, build in kernels}
    assert len(pairs) == len({label for label, _ in pairs}) == len(builds)
