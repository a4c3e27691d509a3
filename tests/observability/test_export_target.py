"""``OTEL_EXPORTER_OTLP_*`` as the OpenTelemetry specification has them, and TLS with real peers."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import grpc
import pytest

from hyperbox.errors import ConfigError
from hyperbox.observability.delivery import Delivered, Retry
from hyperbox.observability.export_grpc import GrpcTransport
from hyperbox.observability.export_http import HttpTransport
from hyperbox.observability.export_target import ExportProtocol, resource_attributes, target
from tests.observability.peers import batch, grpc_peer, http_peer

OTLP = "OTEL_EXPORTER_OTLP_"
HTTP = {f"{OTLP}PROTOCOL": "http/protobuf"}


@pytest.mark.parametrize(
    ("environment", "given", "endpoint", "tls"),
    [
        ({}, "", "localhost:4317", False),
        ({f"{OTLP}ENDPOINT": "https://peer"}, "", "peer:4317", True),
        ({f"{OTLP}ENDPOINT": "http://peer:1", f"{OTLP}TRACES_ENDPOINT": ""}, "", "peer:1", False),
        ({f"{OTLP}ENDPOINT": "http://[::1]:5"}, "", "[::1]:5", False),
        ({f"{OTLP}ENDPOINT": "peer:5"}, "", "peer:5", True),
        ({f"{OTLP}ENDPOINT": "peer:5", f"{OTLP}INSECURE": "True"}, "", "peer:5", False),
        ({f"{OTLP}ENDPOINT": "http://peer:1"}, "unix:/run/otel.sock", "unix:/run/otel.sock", False),
        (HTTP, "", "http://localhost:4318/v1/traces", False),
        (HTTP | {f"{OTLP}ENDPOINT": "http://p:1/otlp/"}, "", "http://p:1/otlp/v1/traces", False),
        (HTTP | {f"{OTLP}TRACES_ENDPOINT": "http://p:1/x"}, "", "http://p:1/x", False),
        (HTTP | {f"{OTLP}TRACES_ENDPOINT": "https://p:1"}, "", "https://p:1", True),
        (HTTP, "http://p:1", "http://p:1/v1/traces", False),
        (HTTP, "http://p:1/x", "http://p:1/x", False),
    ],
)
def test_endpoints(environment: dict[str, str], given: str, endpoint: str, tls: bool) -> None:
    found = target(environment, given)
    assert (found.endpoint, found.tls) == (endpoint, tls)


def test_everything_else_is_honoured_and_traces_go_first() -> None:
    found = target(
        {
            f"{OTLP}TRACES_PROTOCOL": "http/json",
            f"{OTLP}PROTOCOL": "grpc",
            f"{OTLP}HEADERS": "api-key=a%20b, X-Scope = c",
            f"{OTLP}TIMEOUT": "5000",
            f"{OTLP}TRACES_TIMEOUT": "2500",
            f"{OTLP}COMPRESSION": "gzip",
            f"{OTLP}CERTIFICATE": "/ca.pem",
            f"{OTLP}CLIENT_CERTIFICATE": "/own.pem",
            f"{OTLP}CLIENT_KEY": "/own.key",
        }
    )
    assert found.protocol is ExportProtocol.HTTP_JSON
    assert found.headers == {"api-key": "a b", "x-scope": "c"}
    assert (found.timeout_s, found.gzip, found.certificate) == (2.5, True, Path("/ca.pem"))
    assert (found.client_certificate, found.client_key) == (Path("/own.pem"), Path("/own.key"))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PROTOCOL", "carrier-pigeon", "'carrier-pigeon' is not a protocol of OTLP"),
        ("TRACES_TIMEOUT", "soon", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT: 'soon'"),
        ("TIMEOUT", "0", "OTEL_EXPORTER_OTLP_TIMEOUT: '0'"),
        ("COMPRESSION", "lzma", "OTEL_EXPORTER_OTLP_COMPRESSION: 'lzma'"),
        ("HEADERS", "a=b,c", "OTEL_EXPORTER_OTLP_HEADERS: pair 2 is not KEY=VALUE"),
        ("HEADERS", "a=b%0d%0aevil: 1", "OTEL_EXPORTER_OTLP_HEADERS: 'a' is not a header"),
        ("CLIENT_KEY", "/key", "set OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"),
        ("ENDPOINT", "ftp://peer", "'ftp://peer' is not an endpoint of OTLP/gRPC"),
        ("ENDPOINT", "http://peer:99999", "is not an endpoint of OTLP/gRPC"),
        ("ENDPOINT", "http://", "is not an endpoint of OTLP/gRPC"),
    ],
)
def test_what_makes_no_sense_is_named(name: str, value: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        target({OTLP + name: value})


def test_http_endpoints_need_a_scheme() -> None:
    with pytest.raises(ConfigError) as caught:
        target(HTTP, "localhost:4318")
    assert "scheme" in caught.value.hint


def test_resource_attributes_are_percent_decoded() -> None:
    environment = {
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=a%2Cb,service.name=x",
        "OTEL_SERVICE_NAME": "tracer",
    }
    expected = {"deployment.environment.name": "a,b", "service.name": "tracer"}
    assert resource_attributes(environment) == expected
    for broken in ("a", "=b", "a=%ff"):
        with pytest.raises(ConfigError, match="pair 1"):
            resource_attributes({"OTEL_RESOURCE_ATTRIBUTES": broken})


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and a certificate of it that server and client use."""
    here = tmp_path_factory.mktemp("certificates")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    for name in ("ca", "other"):
        files = ["-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}"]
        subprocess.run(
            ["openssl", "req", "-x509", *key, *files], cwd=here, check=True, capture_output=True
        )
    (here / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    request = ["-keyout", "own.key", "-out", "own.csr", "-subj", "/CN=localhost"]
    signed = ["-days", "2", "-extfile", "names", "-out", "own.pem"]
    authority = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]
    by_ca = ["x509", "-req", "-in", "own.csr", *authority]
    for words in (["req", *key[:-2], *request], [*by_ca, *signed]):
        subprocess.run(["openssl", *words], cwd=here, check=True, capture_output=True)
    return here


def secured(here: Path, **changed: str) -> dict[str, str]:
    files = {"CERTIFICATE": "ca.pem", "CLIENT_CERTIFICATE": "own.pem", "CLIENT_KEY": "own.key"}
    return {OTLP + name: str(here / file) for name, file in (files | changed).items()}


def test_http_with_client_certificate(certificates: Path) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates / "ca.pem"))
    tls.load_cert_chain(certificates / "own.pem", certificates / "own.key")
    tls.verify_mode = ssl.CERT_REQUIRED
    with http_peer(tls=tls) as peer:
        url = f"https://127.0.0.1:{peer.port}"
        transport = HttpTransport(target(secured(certificates) | HTTP, url))
        assert transport.send([batch(1)]) == Delivered()
        transport.close()
        wrong = HttpTransport(target(secured(certificates, CERTIFICATE="other.pem") | HTTP, url))
        outcome = wrong.send([batch(1)])
        assert isinstance(outcome, Retry)
        assert outcome.reason.startswith("the peer's certificate is not trusted")


def test_grpc_with_client_certificate(certificates: Path) -> None:
    own = [(certificates / name).read_bytes() for name in ("own.key", "own.pem")]
    authority = (certificates / "ca.pem").read_bytes()
    credentials = grpc.ssl_server_credentials([(own[0], own[1])], authority, True)
    with grpc_peer(credentials=credentials) as peer:
        url = f"https://localhost:{peer.port}"
        transport = GrpcTransport(target(secured(certificates), url))
        assert transport.send([batch(1)]) == Delivered()
        transport.close()


def test_certificates_that_cannot_be_read_are_one_line(certificates: Path) -> None:
    for changed, said in (
        ({"CERTIFICATE": "absent.pem"}, "absent.pem"),
        ({"CERTIFICATE": "own.csr"}, "no certificates in PEM form"),
        ({"CLIENT_KEY": "ca.key"}, "not a certificate with its key"),
    ):
        with pytest.raises(ConfigError, match=said):
            HttpTransport(target(secured(certificates, **changed) | HTTP, "https://127.0.0.1:1"))
