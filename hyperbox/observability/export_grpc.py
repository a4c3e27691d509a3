"""OTLP over gRPC: the one call TraceService/Export, with messages that are encoded already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc

from hyperbox.observability.batches import Batch
from hyperbox.observability.delivery import Outcome, of_grpc
from hyperbox.observability.export_http import USER_AGENT, pem
from hyperbox.observability.export_target import ExportTarget

__all__ = ["GrpcTransport"]

_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_DETAILS = "grpc-status-details-bin"
_OPTIONS = (
    ("grpc.primary_user_agent", USER_AGENT),
    ("grpc.enable_retries", 0),  # the exporter retries, by OTLP's rules
    ("grpc.enable_http_proxy", 0),  # the peer is beside us, or named
    ("grpc.max_reconnect_backoff_ms", 5000),  # the exporter's own waits are the longer ones
)


class GrpcTransport:
    """Sends batches by unary calls; see `hyperbox.observability.exporter.ExportTransport`.

    Raises
    ------
    ConfigError
        If a certificate or key cannot be read.
    """

    def __init__(self, target: ExportTarget) -> None:
        self._target = target
        self._metadata = tuple(target.headers.items())
        self._compression = grpc.Compression.Gzip if target.gzip else grpc.Compression.NoCompression
        self._channel = _channel(target)
        self._export = self._channel.unary_unary(
            _EXPORT, request_serializer=bytes, response_deserializer=bytes
        )

    def send(self, batches: Sequence[Batch]) -> Outcome:
        """Send batches as one request; see `ExportTransport.send`."""
        message = b"".join(batch.data for batch in batches)
        try:
            answer: bytes = self._export(
                message,
                timeout=self._target.timeout_s,
                metadata=self._metadata,
                compression=self._compression,
            )
        except grpc.RpcError as error:
            return _failed(error)
        return of_grpc(0, "", b"", answer)

    def close(self) -> None:
        """End the channel; see `ExportTransport.close`."""
        self._channel.close()


def _failed(error: Any) -> Outcome:
    """Return what a failed call means; that it is a grpc.Call too is in no type."""
    code: int = error.code().value[0]
    details = [value for name, value in error.trailing_metadata() or () if name == _DETAILS]
    return of_grpc(code, error.details() or "", bytes(details[-1]) if details else b"", b"")


def _channel(target: ExportTarget) -> grpc.Channel:
    if not target.tls:
        return grpc.insecure_channel(target.endpoint, options=_OPTIONS)
    files = (target.certificate, target.client_key, target.client_certificate)
    credentials = grpc.ssl_channel_credentials(
        *(None if one is None else pem(one) for one in files)
    )
    return grpc.secure_channel(target.endpoint, credentials, options=_OPTIONS)
