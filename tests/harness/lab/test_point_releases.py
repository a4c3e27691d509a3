from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.errors import ConfigError
from hyperbox.harness.lab.kernel_matrix import KernelRelease, Package, compare_versions
from hyperbox.harness.lab.point_releases import (
    find_release,
    is_point_release,
    point_releases,
    span,
)

FLAVOUR = "cloud-amd64"


def package(part: str, release: str, version: str, size: int = 20_000_000) -> Package:
    name = f"linux-{part}-{release}-{FLAVOUR}"
    return Package(name, version, "0" * 64, size, "suite", f"pool/{name}.deb")


PACKAGES = (
    package("image", "6.16.3+deb13", "6.16.3-1~bpo13+1"),
    package("image", "6.12.90+deb13", "6.12.90-1"),
    package("image", "6.12.90+deb13.1", "6.12.90-2"),
    package("image", "6.12.90+deb12.1", "6.12.90-2~bpo12+1"),
    package("image", "6.12.118+deb13", "6.12.118-1"),
    package("image", "6.1.0-50", "6.1.176-1"),
    package("binary", "7.2.6+deb13", "7.2.6-1~bpo13+1"),
    package("modules", "7.2.6+deb13", "7.2.6-1~bpo13+1"),
    package("binary", "7.1.8+deb13", "7.1.8-1~bpo13+1"),
    package("image", "7.1.8+deb13", "7.1.8-1~bpo13+1", size=1000),
    package("headers", "7.1.9+deb13", "7.1.9-1"),
)
ALL = point_releases(PACKAGES, FLAVOUR)


def test_every_kernel_is_there_once_and_old_ones_come_first() -> None:
    assert [release.version for release in ALL] == [
        "6.1.176-1",
        "6.12.90-1",
        "6.12.90-2~bpo12+1",
        "6.12.90-2",
        "6.12.118-1",
        "6.16.3-1~bpo13+1",
        "7.1.8-1~bpo13+1",
        "7.2.6-1~bpo13+1",
    ]
    assert [part.listed for part in ALL[-1].packages] == [True, True]
    assert [part.listed for part in ALL[-2].packages] == [False, True, False]


def test_the_locks_hashes_win_over_none() -> None:
    known = replace(ALL[-2], packages=tuple(replace(p, sha256="1" * 64) for p in ALL[-2].packages))
    again = point_releases(PACKAGES, FLAVOUR, [known])
    assert len(again) == len(ALL)
    assert known in again


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("6.12.90", "6.12.90-2"),
        ("6.12.90-1", "6.12.90-1"),
        ("6.12.90-2~bpo12+1", "6.12.90-2~bpo12+1"),
        ("6.12.90+deb13-cloud-amd64", "6.12.90-1"),
        ("6.1.0-50-cloud-amd64", "6.1.176-1"),
        ("6.12", "6.12.118-1"),
        ("7.1", "7.1.8-1~bpo13+1"),
    ],
)
def test_a_kernel_has_several_names(name: str, version: str) -> None:
    assert find_release(name, ALL, {}).version == version


def test_a_series_means_its_locked_kernel() -> None:
    assert find_release("6.12", ALL, {"6.12": ALL[1]}) == ALL[1]


@pytest.mark.parametrize(
    ("name", "near"), [("6.12.91", "6.12.90, 6.12.118"), ("6.13", "6.1, 6.12, 6.16"), ("x", "6.1")]
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match="no packaged kernel") as caught:
        find_release(name, ALL, {})
    assert near in caught.value.hint


@pytest.mark.parametrize(
    ("name", "expected"),
    [("6.12.90", True), ("6.1.0-50-cloud-amd64", True), ("6.12", False), ("full", False)],
)
def test_point_releases_are_told_from_series(name: str, expected: bool) -> None:
    assert is_point_release(name) is expected


def test_a_span_goes_in_the_direction_asked_for() -> None:
    forth = span(ALL, ALL[1], ALL[4])
    assert forth == ALL[1:5]
    assert span(ALL, ALL[4], ALL[1]) == tuple(reversed(forth))
    assert span(ALL, ALL[2], ALL[2]) == (ALL[2],)


@given(
    st.lists(st.from_regex(r"[67]\.[0-9]{1,2}\.[0-9]{1,3}-[0-9](~bpo1[23]\+1)?", fullmatch=True))
)
def test_versions_are_in_order_whatever_the_lists_order(versions: list[str]) -> None:
    packages = [package("image", f"{v.partition('-')[0]}+n{n}", v) for n, v in enumerate(versions)]
    found: list[KernelRelease] = list(point_releases(packages, FLAVOUR))
    assert len(found) == len(versions)
    pairs = itertools.pairwise(found)
    assert all(compare_versions(old.version, new.version) <= 0 for old, new in pairs)
