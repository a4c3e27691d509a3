"""Names of images: the known corner cases of the distribution project's own tests, and any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.errors import ConfigError
from hyperbox.storage.reference import parse_reference

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        ("debian", "docker.io", "library/debian", "latest", ""),
        ("debian:12", "docker.io", "library/debian", "12", ""),
        ("user/app", "docker.io", "user/app", "latest", ""),
        ("a/b/c:d", "docker.io", "a/b/c", "d", ""),
        ("docker.io/debian", "docker.io", "library/debian", "latest", ""),
        ("index.docker.io/user/app", "docker.io", "user/app", "latest", ""),
        ("localhost/app", "localhost", "app", "latest", ""),
        ("localhost:5000/app", "localhost:5000", "app", "latest", ""),
        ("host:5000/app:5000", "host:5000", "app", "5000", ""),
        ("host:5000", "docker.io", "library/host", "5000", ""),
        ("Host/app", "Host", "app", "latest", ""),
        ("example.org/a__b-c--d.e", "example.org", "a__b-c--d.e", "latest", ""),
        ("[::1]:5000/app", "[::1]:5000", "app", "latest", ""),
        ("[fe80::1]/app:x", "[fe80::1]", "app", "x", ""),
        (f"debian@{DIGEST}", "docker.io", "library/debian", "", DIGEST),
        (f"debian:12@{DIGEST}", "docker.io", "library/debian", "12", DIGEST),
        ("a:" + "t" * 128, "docker.io", "library/a", "t" * 128, ""),
        ("0" * 63, "docker.io", "library/" + "0" * 63, "latest", ""),
        ("xn--n3h.example/app", "xn--n3h.example", "app", "latest", ""),
    ],
)
def test_names_are_normalised(
    text: str, registry: str, repository: str, tag: str, digest: str
) -> None:
    found = parse_reference(text)
    assert (found.registry, found.repository) == (registry, repository)
    assert (found.tag, found.digest) == (tag, digest)
    assert parse_reference(str(found)) == found
    assert parse_reference(found.familiar) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":tag",
        "App",
        "user/App",
        "a//b",
        "/a",
        "a/",
        "example.org/",
        "a:",
        "a:" + "t" * 129,
        "a:-x",
        "a:b:c",
        "a b",
        "a\n",
        "a@",
        "a@sha256:abc",
        f"a@{DIGEST}@{DIGEST}",
        "a@md5:" + "0" * 32,
        "a@" + DIGEST.upper(),
        "-a",
        "a-",
        "a..b",
        "a___b",
        "-host.example/app",
        "host.example:/app",
        "host.example:port/app",
        "[::1/app",
        "http://host.example/app",
        "user:password@host.example/app",
        "0" * 64,
        "a" * 256,
        "é",
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not the name of an image"):
        parse_reference(text)


@pytest.mark.parametrize(
    ("text", "is_loopback"),
    [
        ("localhost/a", True),
        ("localhost:5000/a", True),
        ("127.0.0.1:5000/a", True),
        ("127.8.8.8/a", True),
        ("[::1]:5000/a", True),
        ("[::2]:5000/a", False),
        ("localhost.example/a", False),
        ("127.0.0.1.example/a", False),
        ("10.0.0.1:5000/a", False),
        ("debian", False),
    ],
)
def test_loopback_is_this_machine_only(text: str, is_loopback: bool) -> None:
    assert parse_reference(text).is_loopback is is_loopback


@given(st.text(alphabet="aZ0.:-_/@[]\n\x00é", max_size=40))
def test_any_text_is_a_name_or_is_refused(text: str) -> None:
    try:
        found = parse_reference(text)
    except ConfigError:
        return
    assert parse_reference(str(found)) == found
    assert parse_reference(found.familiar) == found
