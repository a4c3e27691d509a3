"""OTLP over HTTP: one connection that is kept, a request at a time."""

from __future__ import annotations

import gzip
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import hyperbox
from hyperbox.errors import ConfigError
from hyperbox.foreign import read_bytes
from hyperbox.observability import otlp_json
from hyperbox.observability.batches import Batch
from hyperbox.observability.delivery import Outcome, Retry, of_http
from hyperbox.observability.export_target import ExportProtocol, ExportTarget
from hyperbox.observability.otlp_decoding import decode

__all__ = ["USER_AGENT", "HttpTransport", "pem"]

USER_AGENT = f"OTel-OTLP-Exporter-hyperbox/{hyperbox.__version__}"

_MOST_BODY = 1 << 20  # bytes of an answer that are read
_MOST_PEM = 4 << 20  # bytes of certificates: a system's whole store is a quarter MiB
_FAST_GZIP = 1  # level: two thirds of what the best one saves, for a fraction of its time


class HttpTransport:
    """Sends batches by POST; see `hyperbox.observability.exporter.ExportTransport`.

    Raises
    ------
    ConfigError
        If a certificate or key cannot be read, or is none.
    """

    def __init__(self, target: ExportTarget) -> None:
        self._target = target
        self._url = urlsplit(target.endpoint)
        self._json = target.protocol is ExportProtocol.HTTP_JSON
        self._tls = _tls(target) if target.tls else None
        self._connection: http.client.HTTPConnection | None = None

    def send(self, batches: Sequence[Batch]) -> Outcome:
        """Send batches as one request; see `ExportTransport.send`."""
        message = b"".join(batch.data for batch in batches)
        body = otlp_json.encode(decode(message)) if self._json else message
        if self._target.gzip:
            body = gzip.compress(body, _FAST_GZIP)
        kept = self._connection is not None
        try:
            return self._exchanged(body)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
            # A peer may end a connection that is kept at any time; a new one decides.
            if not kept:
                return Retry(f"the connection ended without an answer: {error}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            return Retry(_reason(error))
        try:
            return self._exchanged(body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            return Retry(_reason(error))

    def close(self) -> None:
        """End the connection; see `ExportTransport.close`."""
        connection = self._connection
        if connection is not None:
            _cut(connection)

    def _exchanged(self, body: bytes) -> Outcome:
        """Send one request on the connection that is kept, or a new one, and read the answer."""
        connection = self._connection or self._connect()
        self._connection = None  # until the answer has been read, it is not fit for another one
        # A socket's timeout is for each step; a peer that sends a byte at a time has many.
        clock = threading.Timer(self._target.timeout_s, _cut, (connection,))
        clock.start()
        try:
            path = self._url.path + (f"?{self._url.query}" if self._url.query else "")
            connection.request("POST", path, body, self._headers())
            answer = connection.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            said = _read(answer)
        except BaseException:
            connection.close()
            raise
        finally:
            clock.cancel()
        if answer.will_close or not answer.isclosed():
            connection.close()
        else:
            self._connection = connection
        return of_http(answer.status, headers, said, now_s=time.time())

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        timeout = self._target.timeout_s
        if self._tls is None:
            return http.client.HTTPConnection(host, port or 80, timeout=timeout)
        return http.client.HTTPSConnection(host, port or 443, timeout=timeout, context=self._tls)

    def _headers(self) -> dict[str, str]:
        headers = {
            "user-agent": USER_AGENT,
            "content-type": "application/json" if self._json else "application/x-protobuf",
        }
        if self._target.gzip:
            headers["content-encoding"] = "gzip"
        return headers | dict(self._target.headers)


def pem(path: Path) -> bytes:
    """Return a file of certificates or a key.

    Raises
    ------
    ConfigError
        If it cannot be read.
    """
    return read_bytes(path, most=_MOST_PEM, refusal=ConfigError)


def _tls(target: ExportTarget) -> ssl.SSLContext:
    trusted = None if target.certificate is None else pem(target.certificate)
    try:
        context = ssl.create_default_context(cadata=trusted.decode("ascii") if trusted else None)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"{target.certificate}: no certificates in PEM form") from error
    if target.client_certificate is not None:
        try:
            context.load_cert_chain(target.client_certificate, target.client_key)
        except (OSError, ssl.SSLError) as error:
            names = f"{target.client_certificate} and {target.client_key}"
            raise ConfigError(f"{names}: not a certificate with its key: {error}") from error
    return context


def _read(answer: http.client.HTTPResponse) -> bytes:
    """Read the body of an answer.

    Its status has been read. If that is success and the connection breaks now, the request was
    taken all the same: to send it again would double its spans.
    """
    try:
        return answer.read(_MOST_BODY)
    except (OSError, http.client.HTTPException, ValueError):
        if 200 <= answer.status < 300:
            return b""
        raise


def _cut(connection: http.client.HTTPConnection) -> None:
    """End a connection from another thread: whoever waits for it wakes up."""
    wire = connection.sock
    if wire is not None:
        try:
            wire.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the peer's certificate is not trusted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return f"{type(error).__name__}: {error}"
