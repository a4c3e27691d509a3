"""Registries behind TLS with certificates of their own, and behind proxies."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperbox.cli.main import main
from hyperbox.errors import ExitCode
from hyperbox.storage.images import ImageStore
from tests.storage.conftest import Made
from tests.storage.misbehaving import Registry, misbehaving

SECRET = "s3cr3t-of-the-proxy"


def certificate(place: Path, name: str) -> Path:
    """Make a certificate for an address, signed by itself; its key is beside it."""
    path = place / f"{name}.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    words += [
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=tests",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    ]
    files = ["-keyout", f"{path}.key", "-out", str(path)]
    subprocess.run([*words, *files], check=True, capture_output=True)
    return path


@pytest.fixture
def secure(small: Made, tmp_path: Path) -> Iterator[tuple[Registry, Path]]:
    """A registry with TLS, and its certificate."""
    path = certificate(tmp_path, "own")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, f"{path}.key")
    with misbehaving(small) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        yield server, path


def pull(server: str, root: Path, *words: str) -> int:
    return main(["pull", f"{server}/app", "--root", str(root), *words])


def test_a_certificate_is_trusted_by_option(
    secure: tuple[Registry, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, path = secure
    words = ("--no-plain-http", "--ca-file", str(path))
    assert pull(server.host, tmp_path / "store", *words) == ExitCode.PASS
    assert list(ImageStore(tmp_path / "store").names())
    other = certificate(tmp_path, "other")
    for wrong in ((), ("--ca-file", str(other))):
        assert pull(server.host, tmp_path / "none", "--no-plain-http", *wrong) != ExitCode.PASS
        said = capsys.readouterr().err
        assert "certificate" in said.lower()
        assert "Traceback" not in said
    assert not ImageStore(tmp_path / "none").names()


@pytest.mark.parametrize("text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAA\n"])
def test_a_file_without_certificates_is_refused(
    small: Made, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ca.pem"
    path.write_text(text)
    with misbehaving(small) as server:
        words = ("--no-plain-http", "--ca-file", str(path))
        assert pull(server.host, tmp_path / "store", *words) == ExitCode.BAD_USAGE
    assert "no certificates" in capsys.readouterr().err


def test_proxies_of_the_environment(
    small: Made,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with misbehaving(small) as proxy:
        monkeypatch.setenv("http_proxy", f"http://user:{SECRET}@{proxy.host}")
        monkeypatch.setenv("no_proxy", "inside.test")
        assert pull("registry.test:80", tmp_path / "store", "--plain-http") == ExitCode.PASS
        assert proxy.seen
        assert all(path.startswith("http://registry.test") for _, path, _ in proxy.seen)
        proxy.rule = lambda request: request.answer(403)
        assert pull("registry.test:80", tmp_path / "other", "--plain-http") != ExitCode.PASS
        proxy.seen.clear()
        assert pull("inside.test:80", tmp_path / "other", "--plain-http") != ExitCode.PASS
        assert not proxy.seen
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err
