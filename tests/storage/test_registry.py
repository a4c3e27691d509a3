"""Whatever a registry does, the right bytes come or an error does; secrets stay with their host."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.errors import ConfigError, HyperboxError, ImageError
from hyperbox.storage.challenges import Challenge, parse_challenges
from hyperbox.storage.credentials import Credential, Credentials, find_credential
from hyperbox.storage.images import ImageStore
from hyperbox.storage.oci import Descriptor
from hyperbox.storage.pull import PullOptions, pull
from hyperbox.storage.reference import parse_reference
from hyperbox.storage.registry import Registry, content_range
from hyperbox.storage.transport import Fault, Options, Transport, retry_after, shown
from tests.storage.conftest import Made
from tests.storage.misbehaving import Handler, misbehaving
from tests.storage.misbehaving import Registry as Server

SECRET = "s3cr3t-of-the-tests"
QUICK = Options(attempts=4, first_wait_s=0.001)


@pytest.fixture
def server(small: Made) -> Iterator[Server]:
    with misbehaving(small) as running:
        yield running


def registry(server: Server, credential: Credential | None = None) -> Registry:
    reference = parse_reference(f"{server.host}/app")
    return Registry(reference, Transport(QUICK), credential)


def pulled(server: Server, root: Path, credential: Credential | None = None) -> None:
    """Pull, and compare every byte."""
    store = ImageStore(root)
    image = pull(registry(server, credential), store, PullOptions(jobs=2))
    assert image.descriptor.digest == server.made.digest
    for descriptor in image.manifest.blobs:
        store.blobs.verify(descriptor)


def largest(made: Made) -> Descriptor:
    return max(made.manifest.layers, key=lambda one: one.size)


def test_a_body_that_is_cut_is_gone_on_with(server: Server, tmp_path: Path) -> None:
    blob = largest(server.made)

    def rule(request: Handler) -> bool:
        data = server.made.blobs[blob.digest]
        first = blob.digest in request.path and "Range" not in request.headers
        return first and request.answer(200, data, cut=len(data) // 2)

    server.rule = rule
    pulled(server, tmp_path)
    ranges = [h["Range"] for _, path, h in server.seen if blob.digest in path and "Range" in h]
    assert ranges == [f"bytes={blob.size // 2}-{blob.size - 1}"]


@pytest.mark.parametrize("answer", ["whole", "other range", "no range", "416"])
def test_resuming_gets_the_right_bytes_whatever_range_comes(
    server: Server, answer: str, tmp_path: Path
) -> None:
    blob = largest(server.made)
    data = server.made.blobs[blob.digest]
    half = blob.size // 2

    def rule(request: Handler) -> bool:
        if blob.digest not in request.path:
            return False
        if "Range" not in request.headers:
            return server.count(blob.digest) == 1 and request.answer(200, data, cut=half)
        if answer == "whole":
            return request.answer(200, data)
        if answer == "416":
            return request.answer(416)
        wrong = {"Content-Range": f"bytes 0-{half}/{blob.size}"} if answer == "other range" else {}
        return request.answer(206, data[half:], headers=wrong)

    server.rule = rule
    pulled(server, tmp_path)


def test_what_an_interrupted_pull_left_is_used_and_what_is_wrong_in_it_is_not(
    server: Server, tmp_path: Path
) -> None:
    blob = largest(server.made)
    data = server.made.blobs[blob.digest]
    for number, left in enumerate((data[:1000], b"x" * 1000, data + b"more", b"y" * len(data))):
        root = tmp_path / str(number)
        (root / "partial").mkdir(parents=True)
        (root / "partial" / blob.digest.replace(":", "-")).write_bytes(left)
        pulled(server, root)


@pytest.mark.parametrize("wrong", ["content", "longer", "shorter"])
def test_what_does_not_have_its_digest_is_refused(
    server: Server, wrong: str, tmp_path: Path
) -> None:
    blob = largest(server.made)
    data = server.made.blobs[blob.digest]
    sent = {"content": b"x" + data[1:], "longer": data + b"x", "shorter": data[:-1]}[wrong]
    server.rule = lambda request: blob.digest in request.path and request.answer(200, sent)
    with pytest.raises(ImageError):
        pulled(server, tmp_path)
    store = ImageStore(tmp_path)
    assert store.names() == {}
    assert not store.blobs.has(blob)


def test_a_manifest_of_another_digest_or_size_is_refused(server: Server) -> None:
    other = "sha256:" + "0" * 64
    server.rule = lambda request: request.answer(200, server.made.data)
    with pytest.raises(ImageError, match="does not have its digest"):
        registry(server).manifest(other)
    server.rule = lambda r: r.answer(200, server.made.data, {"Docker-Content-Digest": other})
    with pytest.raises(ImageError, match="does not have its digest"):
        registry(server).manifest()
    server.rule = lambda request: request.answer(200, b" " * (5 << 20))
    with pytest.raises(ImageError, match="has more than"):
        registry(server).manifest()


def test_failures_pass_and_waits_are_as_the_server_wants(server: Server, tmp_path: Path) -> None:
    statuses = [503, 429, 500]

    def rule(request: Handler) -> bool:
        return bool(statuses) and request.answer(statuses.pop(), b"", {"Retry-After": "0"})

    server.rule = rule
    pulled(server, tmp_path)
    assert statuses == []


def test_a_server_that_stays_broken_is_an_error_after_the_attempts(server: Server) -> None:
    server.rule = lambda request: request.answer(502)
    with pytest.raises(Fault, match="HTTP status 502"):
        registry(server).manifest()
    assert len(server.seen) == QUICK.attempts
    server.rule = lambda request: request.answer(503, b"", {"Retry-After": "86400"})
    with pytest.raises(Fault) as refused:
        registry(server).manifest()
    assert "86400 s" in refused.value.hint


def test_redirects_do_not_carry_secrets_to_another_host(
    server: Server, small: Made, tmp_path: Path
) -> None:
    with misbehaving(small) as other:
        expired = [True]

        def rule(request: Handler) -> bool:
            if "Authorization" not in request.headers:
                return request.answer(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})
            there = f"http://{other.host}{request.path}?signature={SECRET}"
            return "/blobs/" in request.path and request.answer(307, b"", {"Location": there})

        def late(request: Handler) -> bool:  # a link that is no longer good is asked for anew
            return bool(expired) and expired.pop() and request.answer(503)

        server.rule, other.rule = rule, late
        pulled(server, tmp_path, Credential("me", SECRET))
        assert other.seen
        assert not any("Authorization" in headers for _, _, headers in other.seen)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[", "/x"])
def test_redirects_lead_to_web_addresses_and_end(server: Server, location: str) -> None:
    server.rule = lambda request: request.answer(302, b"", {"Location": location})
    with pytest.raises(Fault, match="redirect"):
        registry(server).manifest()


def test_a_token_is_fetched_once_and_anew_when_it_is_no_longer_good(
    server: Server, tmp_path: Path
) -> None:
    good = ["token-1"]

    def rule(request: Handler) -> bool:
        given = request.headers.get("Authorization", "")
        if request.path.startswith("/token"):
            assert given == Credential("me", SECRET).basic
            assert "scope=repository%3Aapp%3Apull" in request.path
            return request.answer(200, json.dumps({"token": good[0]}).encode())
        if given == f"Bearer {good[0]}":
            return False
        realm = f'Bearer realm="http://{server.host}/token",service="s",scope="repository:app:pull"'
        return request.answer(
            401, b"", {"WWW-Authenticate": f'Negotiate, {realm}, Basic realm="x"'}
        )

    server.rule = rule
    pulled(server, tmp_path, Credential("me", SECRET))
    assert server.count("/token") == 1
    me = registry(server, Credential("me", SECRET))
    me.manifest()
    good[0] = "token-2"
    me.manifest()
    assert server.count("/token") == 3


def test_secrets_are_in_no_error_and_no_text(server: Server) -> None:
    mine = Credential("me", SECRET, SECRET)
    assert SECRET not in repr(mine)
    assert SECRET not in shown(f"https://me:{SECRET}@host/path?token={SECRET}")
    server.rule = lambda request: request.answer(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})
    with pytest.raises(HyperboxError) as refused:
        registry(server, Credential("me", SECRET)).manifest()
    text = str(refused.value) + refused.value.hint
    assert SECRET not in text
    assert base64.b64encode(f"me:{SECRET}".encode()).decode() not in text


def test_plain_http_is_for_this_machine_unless_asked() -> None:
    far = parse_reference("registry.example/app")
    assert Registry(far, Transport(QUICK)).url.startswith("https://")
    assert Registry(far, Transport(Options(plain_http=True))).url.startswith("http://")
    near = parse_reference("localhost:5000/app")
    assert Registry(near, Transport(QUICK)).url.startswith("http://")
    assert Registry(near, Transport(Options(plain_http=False))).url.startswith("https://")


def test_a_range_is_read_alone(server: Server) -> None:
    blob = largest(server.made)
    data = server.made.blobs[blob.digest]

    def rule(request: Handler) -> bool:
        start, _, stop = request.headers.get("Range", "")[6:].partition("-")
        if not stop:
            return False
        found = f"bytes {start}-{stop}/{len(data)}"
        return request.answer(206, data[int(start) : int(stop) + 1], {"Content-Range": found})

    server.rule = rule
    assert registry(server).read(blob, 10, 500) == data[10:500]
    server.rule = lambda request: request.answer(200, data)
    assert registry(server).read(blob, 10, 500) == data[10:500]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (['Bearer realm="https://a/t",service="x,y"'], ["bearer"]),
        (['Basic realm="a", Bearer realm="b"'], ["basic", "bearer"]),
        (["Negotiate", 'Digest realm="a", qop="auth", Basic realm=x'], None),
        (['Basic realm="a \\"quoted\\""'], ["basic"]),
        (["", ",,", '"'], []),
    ],
)
def test_challenges_in_one_and_many_headers(headers: list[str], expected: list[str] | None) -> None:
    schemes = [one.scheme for one in parse_challenges(headers)]
    assert schemes == (["negotiate", "digest", "basic"] if expected is None else expected)


def test_a_quoted_parameter_may_have_commas_and_quotes() -> None:
    found = parse_challenges(['Bearer realm="https://a/t",service="x,y",scope="a \\"b\\""'])
    parameters = {"realm": "https://a/t", "service": "x,y", "scope": 'a "b"'}
    assert found == (Challenge("bearer", parameters),)


@given(st.lists(st.text(max_size=60), max_size=3))
def test_any_header_is_challenges_or_nothing(headers: list[str]) -> None:
    assert all(one.scheme for one in parse_challenges(headers))
    for text in headers:
        content_range(text)
        wait_s = retry_after(text, 0.0)
        assert wait_s is None or wait_s >= 0


def test_what_servers_want_to_be_asked_after() -> None:
    assert retry_after("7", 0.0) == 7
    assert retry_after("Thu, 01 Jan 1970 00:01:00 GMT", 10.0) == 50
    assert retry_after("Thu, 01 Jan 1970 00:01:00 GMT", 100.0) == 0
    assert retry_after("soon", 0.0) is None
    assert content_range("bytes 0-9/10") == (0, 10)
    assert content_range("bytes 9-0/10") is None


AUTH = base64.b64encode(f"me:{SECRET}".encode()).decode()


@pytest.mark.parametrize(
    ("name", "entries"),
    [
        ("host.example/team/app", {"host.example": {"auth": AUTH}}),
        ("host.example/team/app", {"https://host.example/v1/": {"auth": AUTH}}),
        ("host.example/team/app", {"host.example": {}, "host.example/team": {"auth": AUTH}}),
        ("host.example:5000/app", {"host.example:5000": {"auth": AUTH}}),
        ("debian", {"https://index.docker.io/v1/": {"auth": AUTH}}),
        ("host.example/a", {"host.example": {"username": "me", "password": SECRET}}),
    ],
)
def test_credentials_of_a_file(name: str, entries: dict[str, object]) -> None:
    found = find_credential({"auths": entries}, parse_reference(name), "file")
    assert found == Credential("me", SECRET)
    assert find_credential({"auths": entries}, parse_reference("x.example/a"), "file") is None


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"auths": []},
        {"auths": {"h.example": 7}},
        {"auths": {"h.example": {"auth": 7}}},
        {"auths": {"h.example": {"auth": "bm9jb2xvbg=="}}},
        {"auths": {"h.example": {"auth": f"{SECRET}!"}}},
        {"credsStore": "../../bin/sh"},
        {"credHelpers": {"h.example": 7}},
    ],
)
def test_a_damaged_file_is_refused_without_its_secrets(document: object) -> None:
    with pytest.raises(ConfigError) as refused:
        find_credential(document, parse_reference("h.example/a"), "file")
    assert SECRET not in refused.value.message + refused.value.hint


def test_helpers_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "docker-credential-test"
    program.write_text(
        "#!/bin/sh\nread server\n"
        'case $server in host.example) echo "{\\"Username\\": \\"me\\", \\"Secret\\": '
        f'\\"{SECRET}\\"}}" ;;\n'
        "broken.example) echo nonsense ;;\nfailing.example) exit 3 ;;\n"
        "*) echo credentials not found in native keychain; exit 1 ;; esac\n"
    )
    program.chmod(0o755)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"credsStore": "test"}))
    code = (
        "import sys; from pathlib import Path\n"
        "from hyperbox.storage.credentials import Credentials\n"
        "from hyperbox.storage.reference import parse_reference\n"
        "from hyperbox.errors import ConfigError\n"
        "for name in sys.argv[2:]:\n"
        "    try:\n"
        "        found = Credentials((Path(sys.argv[1]),)).find(parse_reference(name))\n"
        "        print(found and found.password)\n"
        "    except ConfigError as error:\n"
        "        print('refused', error.message)\n"
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    names = [f"{host}.example/a" for host in ("host", "absent", "broken", "failing")]
    done = subprocess.run(
        [sys.executable, "-c", code, config, *names], capture_output=True, text=True, check=True
    )
    found, absent, broken, failing = done.stdout.splitlines()
    assert (found, absent) == (SECRET, "None")
    assert broken.startswith("refused")
    assert failing.startswith("refused")
    assert Credentials((tmp_path / "none.json",)).find(parse_reference("a")) is None
