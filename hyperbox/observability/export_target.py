"""Where spans are exported to: ``OTEL_EXPORTER_OTLP_*``, and attributes from the environment.

Follows "OpenTelemetry Protocol Exporter" and "Environment Variable Specification" of the
OpenTelemetry specification: what is set for traces goes before what is set for all signals, and
an empty variable is an unset one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hyperbox.errors import ConfigError

__all__ = ["ExportProtocol", "ExportTarget", "resource_attributes", "target"]

_PREFIX = "OTEL_EXPORTER_OTLP_"
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token of RFC 9110, 5.6.2
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
_LONGEST_TIMEOUT_MS = 3_600_000


class ExportProtocol(StrEnum):
    """How spans are encoded and carried; the values of ``OTEL_EXPORTER_OTLP_PROTOCOL``."""

    GRPC = "grpc"
    HTTP_PROTOBUF = "http/protobuf"
    HTTP_JSON = "http/json"


@dataclass(frozen=True)
class ExportTarget:
    """A peer, and how it is spoken to.

    `endpoint` is ``host:port`` or ``unix:PATH`` for gRPC, and the whole URL for HTTP. `tls` says
    whether the connection is encrypted; `certificate` has the authorities that are trusted (those
    of the system without one), `client_certificate` and `client_key` are our own. All are PEM.
    """

    protocol: ExportProtocol
    endpoint: str
    tls: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 10.0
    gzip: bool = False
    certificate: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None


def target(environment: Mapping[str, str], endpoint: str = "", protocol: str = "") -> ExportTarget:
    """Return the peer that the user names, or the environment, or localhost.

    Parameters
    ----------
    endpoint, protocol
        As in the environment, before which they go.

    Raises
    ------
    ConfigError
        If a value is none of those that it can have; the message names the variable.
    """
    chosen = _protocol(protocol or _variable(environment, "PROTOCOL"))
    address, tls = _address(environment, endpoint, chosen)
    certificate, key = (_path(environment, name) for name in ("CLIENT_CERTIFICATE", "CLIENT_KEY"))
    if (certificate is None) != (key is None):
        lacking = "CLIENT_KEY" if key is None else "CLIENT_CERTIFICATE"
        raise ConfigError(
            f"a client certificate and its key belong together: set {_PREFIX}{lacking}"
        )
    return ExportTarget(
        chosen,
        address,
        tls,
        headers=_headers(environment),
        timeout_s=_timeout_s(environment),
        gzip=_compression(environment),
        certificate=_path(environment, "CERTIFICATE"),
        client_certificate=certificate,
        client_key=key,
    )


def resource_attributes(environment: Mapping[str, str]) -> dict[str, str]:
    """Return ``OTEL_RESOURCE_ATTRIBUTES`` and ``OTEL_SERVICE_NAME`` as attributes.

    Raises
    ------
    ConfigError
        If a pair has no ``=``, no name or a broken percent-encoding. The specification wants the
        whole variable disregarded then, with a warning; here the user corrects it first.
    """
    pairs = _pairs("OTEL_RESOURCE_ATTRIBUTES", environment.get("OTEL_RESOURCE_ATTRIBUTES", ""))
    name = environment.get("OTEL_SERVICE_NAME", "")
    return pairs | ({"service.name": name} if name else {})


def _variable(environment: Mapping[str, str], name: str) -> str:
    """Return the value for traces, or for all signals, without space around it."""
    own = environment.get(f"{_PREFIX}TRACES_{name}", "").strip()
    return own or environment.get(f"{_PREFIX}{name}", "").strip()


def _named(environment: Mapping[str, str], name: str) -> str:
    """Return the variable that a value came from."""
    own = f"{_PREFIX}TRACES_{name}"
    return own if environment.get(own, "").strip() else f"{_PREFIX}{name}"


def _protocol(text: str) -> ExportProtocol:
    try:
        return ExportProtocol(text or ExportProtocol.GRPC)
    except ValueError:
        known = ", ".join(ExportProtocol)
        raise ConfigError(f"{text!r} is not a protocol of OTLP", hint=f"one of {known}") from None


def _address(
    environment: Mapping[str, str], given: str, protocol: ExportProtocol
) -> tuple[str, bool]:
    """Return where to send to, and whether by TLS."""
    own = environment.get(f"{_PREFIX}TRACES_ENDPOINT", "").strip()
    base = environment.get(f"{_PREFIX}ENDPOINT", "").strip()
    text = given or own or base
    if protocol is ExportProtocol.GRPC:
        return _grpc_address(text or "http://localhost:4317", environment)
    url = text or "http://localhost:4318"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ConfigError(
            f"{url!r} is not an endpoint of OTLP/HTTP",
            hint="write the scheme too, for example http://localhost:4318",
        )
    # Only the endpoint of all signals is a base; one of traces is used as it is. An address
    # alone on the command line is a base as well.
    if not own or given:
        bare = parts.path in ("", "/")
        if not given or bare:
            url = url.rstrip("/") + "/v1/traces"
    return url, parts.scheme == "https"


def _grpc_address(text: str, environment: Mapping[str, str]) -> tuple[str, bool]:
    if text.startswith("unix:"):
        return text, False
    schemed = "://" in text
    insecure = _variable(environment, "INSECURE").lower() == "true"
    try:
        parts = urlsplit(text if schemed else f"//{text}")
        host, port = parts.hostname, parts.port or 4317
    except ValueError:
        host, port = None, 0
    if not host or (schemed and parts.scheme not in ("http", "https")) or parts.path.strip("/"):
        raise ConfigError(
            f"{text!r} is not an endpoint of OTLP/gRPC", hint="for example http://localhost:4317"
        )
    bracketed = f"[{host}]" if ":" in host else host
    return f"{bracketed}:{port}", parts.scheme == "https" if schemed else not insecure


def _headers(environment: Mapping[str, str]) -> dict[str, str]:
    name = _named(environment, "HEADERS")
    pairs = _pairs(name, _variable(environment, "HEADERS"))
    for key, value in pairs.items():
        if not _HEADER_NAME.fullmatch(key) or not _HEADER_VALUE.fullmatch(value):
            # Its value may be a secret.
            raise ConfigError(f"{name}: {key!r} is not a header of HTTP")
    return {key.lower(): value for key, value in pairs.items()}


def _pairs(variable: str, text: str) -> dict[str, str]:
    """Return ``key1=value1,key2=value2``, percent-encoded as W3C Baggage has it."""
    pairs = {}
    for number, pair in enumerate((one for one in text.split(",") if one.strip()), 1):
        key, equals, value = pair.partition("=")
        try:
            name, decoded = (
                unquote(key.strip(), errors="strict"),
                unquote(value.strip(), errors="strict"),
            )
        except UnicodeDecodeError:
            equals, name, decoded = "", "", ""
        if not equals or not name:
            raise ConfigError(
                f"{variable}: pair {number} is not KEY=VALUE", hint="pairs are separated by commas"
            )
        pairs[name] = decoded
    return pairs


def _timeout_s(environment: Mapping[str, str]) -> float:
    text = _variable(environment, "TIMEOUT") or "10000"
    if not (text.isascii() and text.isdigit() and len(text) < 9 and int(text) > 0):
        raise ConfigError(f"{_named(environment, 'TIMEOUT')}: {text[:20]!r} is not milliseconds")
    return min(int(text), _LONGEST_TIMEOUT_MS) / 1000


def _compression(environment: Mapping[str, str]) -> bool:
    text = _variable(environment, "COMPRESSION") or "none"
    if text not in ("none", "gzip"):
        raise ConfigError(
            f"{_named(environment, 'COMPRESSION')}: {text!r} is not known", hint="gzip or none"
        )
    return text == "gzip"


def _path(environment: Mapping[str, str], name: str) -> Path | None:
    text = _variable(environment, name)
    return Path(text) if text else None
