from __future__ import annotations

import json
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperbox.errors import ConfigError, HarnessError
from hyperbox.harness.lab.kernel_lock import read_lock, read_matrix
from hyperbox.harness.lab.kernel_matrix import (
    KernelRelease,
    Matrix,
    Package,
    Series,
    compare_versions,
    lock_document,
    newest,
    packages_in,
    parse_lock,
    parse_matrix,
    releases,
    unlisted_releases,
)

FLAVOUR = "cloud-amd64"
VERSIONS = st.from_regex(r"([0-2]:)?[0-9][0-9a-z.+~]{0,8}(-[0-9a-z.+~]{1,6})?", fullmatch=True)


def package(name: str, version: str = "1", size: int = 30_000_000) -> Package:
    return Package(name, version, "a" * 64, size, "trixie", f"pool/{name}_{version}.deb")


def test_committed_lock_covers_the_committed_matrix() -> None:
    matrix, locked = read_matrix(), read_lock()
    assert tuple(locked) == matrix.labels()
    assert matrix.expand(["default"]) == ("5.10", "6.12", "7.3")
    assert matrix.expand(["full"]) == ("5.10", "6.1", "6.12", "6.18", "7.3")
    for label, release in locked.items():
        assert release.release.startswith(f"{label}.")
        assert all(part.suite in matrix.suites for part in release.packages)
        assert release.kernel_package.listed


@settings(max_examples=60, deadline=None)
@given(VERSIONS, VERSIONS)
def test_versions_compare_as_dpkg_says(left: str, right: str) -> None:
    ours = compare_versions(left, right)
    relation = "lt" if ours < 0 else "gt" if ours > 0 else "eq"
    subprocess.run(["dpkg", "--compare-versions", left, relation, right], check=True)


@given(VERSIONS, VERSIONS, VERSIONS)
def test_version_order_is_total(a: str, b: str, c: str) -> None:
    assert compare_versions(a, a) == 0
    assert (compare_versions(a, b) > 0) == (compare_versions(b, a) < 0)
    if compare_versions(a, b) <= 0 and compare_versions(b, c) <= 0:
        assert compare_versions(a, c) <= 0


PACKAGES = """\
Package: linux-image-6.12.118+deb13-cloud-amd64
Source: linux-signed-amd64 (6.12.118+1)
Version: 6.12.118-1
Description: Linux 6.12 for x86-64 cloud
 more: text
Filename: pool/main/l/x.deb
Size: 34699820
SHA256: {digest}

Package: linux-image-6.12-cloud-amd64
Version: 6.12.118-1
Filename: pool/main/l/meta.deb
Size: 1000
SHA256: {digest}

Package: linux-image-6.12.118+deb13-cloud-amd64-dbg
Version: 6.12.118-1

Package: linux-image-6.12.118+deb13-cloud-amd64-unsigned
Version: 6.12.118-1

Package: linux-binary-unsigned-7.3.4+deb13-cloud-amd64
Version: 7.3.4-1

Package: bash
Version: 5
""".format(digest="b" * 64)


def test_package_list_gives_only_the_kernels_of_the_flavour() -> None:
    (found,) = packages_in(PACKAGES, "trixie", FLAVOUR)
    assert found == Package(
        "linux-image-6.12.118+deb13-cloud-amd64",
        "6.12.118-1",
        "b" * 64,
        34699820,
        "trixie",
        "pool/main/l/x.deb",
    )
    assert list(packages_in("", "trixie", FLAVOUR)) == []


def test_broken_package_list_is_one_clear_error() -> None:
    with pytest.raises(HarnessError, match="broken package list of trixie"):
        list(packages_in(PACKAGES.replace("Size: 34699820", "Size: big"), "trixie", FLAVOUR))


def test_releases_take_split_packages_together() -> None:
    stem, version = "7.3.4+deb13-cloud-amd64", "7.3.4-1~bpo13+1"
    parts = [package(f"linux-{part}-{stem}", version) for part in ("base", "binary", "modules")]
    empty = package(f"linux-image-{stem}", version, size=1928)
    (found,) = releases([empty, *parts], FLAVOUR)
    assert found == KernelRelease("7.3", stem, version, tuple(parts))
    assert found.kernel_package == parts[1]
    # without its modules it is not a kernel, and an empty linux-image never is
    assert releases([empty, *parts[:2]], FLAVOUR) == ()
    assert releases([empty], FLAVOUR) == ()


def test_newest_is_by_version_within_the_series() -> None:
    listed = [
        package("linux-image-6.12.9+deb12-cloud-amd64", "6.12.9-1~bpo12+1"),
        package("linux-image-6.12.118+deb13-cloud-amd64", "6.12.118-1"),
        package("linux-image-6.1.0-56-cloud-amd64", "6.1.192-2"),
        package("linux-image-6.1.0-0.deb11.52-cloud-amd64", "6.1.192-2~deb11u1"),
        package("linux-image-5.10.0-46-cloud-amd64", "5.10.262-1"),
    ]
    found = releases(listed, FLAVOUR)
    assert [one.series for one in found] == ["5.10", "6.1", "6.1", "6.12", "6.12"]
    chosen = {label: newest(label, found) for label in ("6.12", "6.1", "9.9")}
    assert chosen["9.9"] is None
    assert chosen["6.12"] is not None
    assert chosen["6.12"].release == "6.12.118+deb13-cloud-amd64"
    assert chosen["6.1"] is not None
    assert chosen["6.1"].version == "6.1.192-2"


def test_parts_that_left_the_lists_are_named_by_the_pool_layout() -> None:
    stem, version = "7.1.13+deb13-cloud-amd64", "7.1.13-1~bpo13+1"
    image = package(f"linux-binary-{stem}", version)
    (found,) = unlisted_releases("7.1", [image, package(f"linux-image-{stem}", version)], FLAVOUR)
    base, kernel, modules = found.packages
    assert kernel == image
    assert modules.filename == f"pool/main/l/linux/linux-modules-{stem}_{version}_amd64.deb"
    assert not base.listed
    assert not modules.listed
    assert unlisted_releases("7.2", [image], FLAVOUR) == ()


HASHES = st.text("0123456789abcdef", min_size=64, max_size=64)


@st.composite
def kernel_releases(draw: st.DrawFn) -> KernelRelease:
    minor = draw(st.integers(0, 20))
    release = f"6.{minor}.{draw(st.integers(0, 300))}+deb13-{FLAVOUR}"
    parts = draw(st.sampled_from([("image",), ("base", "binary", "modules")]))
    packages = tuple(
        Package(
            f"linux-{part}-{release}",
            draw(VERSIONS),
            draw(HASHES),
            draw(st.integers(0, 1 << 40)),
            "trixie",
            f"pool/{part}.deb",
            draw(st.booleans()),
        )
        for part in parts
    )
    return KernelRelease(f"6.{minor}", release, draw(VERSIONS), packages)


@given(st.lists(kernel_releases(), unique_by=lambda one: one.series))
def test_lock_survives_the_round_trip(found: list[KernelRelease]) -> None:
    locked = {one.series: one for one in found}
    assert parse_lock(json.dumps(lock_document(locked))) == locked


GOOD = KernelRelease(
    "6.12", "6.12.1-cloud-amd64", "6.12.1-1", (package("linux-image-6.12.1-cloud-amd64"),)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "wrong kind"),
        ("{}", "lacks the key 'format'"),
        ('{"format": 99, "kernels": {}}', "unknown format"),
        ('{"format": 1, "kernels": {"6.12": {}}}', "lacks the key"),
        ('{"format": 1, "kernels": {"6.12": 5}}', "wrong kind"),
    ],
)
def test_broken_lock_is_one_clear_error(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_lock(text)


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "short"},
        {"filename": "/etc/passwd"},
        {"filename": "pool/../../secret"},
        {"size": "12"},
        {"name": 7},
    ],
)
def test_lock_refuses_dangerous_packages(change: dict[str, object]) -> None:
    document = json.loads(json.dumps(lock_document({"6.12": GOOD})))
    document["kernels"]["6.12"]["packages"][0].update(change)
    with pytest.raises(ConfigError):
        parse_lock(json.dumps(document))


def test_lock_without_a_kernel_image_is_refused() -> None:
    modules = replace(GOOD, packages=(package("linux-modules-6.12.1-cloud-amd64"),))
    with pytest.raises(ConfigError, match="no kernel package"):
        parse_lock(json.dumps(lock_document({"6.12": modules})))


MATRIX = """
flavour = "cloud-amd64"
suites = ["trixie"]
[sets]
default = ["6.1"]
[[kernel]]
series = "6.1"
why = "a"
[[kernel]]
series = "6.12"
why = "b"
"""


def test_matrix_says_what_it_holds() -> None:
    assert parse_matrix(MATRIX) == Matrix(
        FLAVOUR, ("trixie",), (Series("6.1", "a"), Series("6.12", "b")), {"default": ("6.1",)}
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("flavour = ", "flavour ", "not TOML"),
        ("suites", "suits", "lacks the key 'suites'"),
        ('suites = ["trixie"]', 'suites = "trixie"', "wrong kind"),
        ('["6.1"]', '["6.2"]', "unknown series"),
        ('series = "6.12"', 'series = "6.1"', "unique"),
        ('series = "6.12"', 'series = "5.4"', "old to new"),
        ('series = "6.12"', 'series = "next"', "not a kernel series"),
    ],
)
def test_broken_matrix_is_one_clear_error(old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_matrix(MATRIX.replace(old, new))


def test_names_expand_in_order_and_unknown_ones_get_a_hint() -> None:
    matrix = parse_matrix(MATRIX)
    assert matrix.expand(["6.12", "default", "6.12"]) == ("6.1", "6.12")
    assert matrix.expand(["all"]) == ("6.1", "6.12")
    assert matrix.expand([]) == ()
    with pytest.raises(ConfigError) as caught:
        matrix.expand(["6.13"])
    assert "did you mean 6.1" in caught.value.hint
