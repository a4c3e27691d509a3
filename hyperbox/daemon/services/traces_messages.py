"""The messages of traces.proto: their descriptor for reflection, what requests ask, answers.

Requests are read by the protobuf library. Answers carry spans that are encoded already, so their
few other fields are written around these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from opentelemetry.proto.trace.v1 import trace_pb2

from hyperbox.observability.protobuf_wire import delimited, tag, varint
from hyperbox.observability.span_store import Cursor

__all__ = ["FILE", "METHODS", "SERVICE", "StreamMessages", "list_response", "request_class"]

PACKAGE = "hyperbox.traces.v1"
SERVICE = f"{PACKAGE}.Traces"

_TRACES = "opentelemetry.proto.trace.v1.TracesData"
_INT64, _INT32 = FieldDescriptorProto.TYPE_INT64, FieldDescriptorProto.TYPE_INT32
_STRING, _BYTES = FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_BYTES

# Name of each field and its type, a message's by its name; numbers follow the order.
_MESSAGES: Mapping[str, Sequence[tuple[str, int | str]]] = {
    "Conditions": (
        ("process?", _INT64),
        ("container", _STRING),
        ("call", _STRING),
        ("error", _STRING),
        ("min_duration_ns?", _INT64),
        ("since_unix_ns?", _INT64),
        ("until_unix_ns?", _INT64),
        ("trace_id", _BYTES),
    ),
    "ListRequest": (("conditions", "Conditions"), ("limit", _INT32), ("before", _STRING)),
    "ListResponse": (("traces", _TRACES), ("next", _STRING)),
    "GetRequest": (("trace_id", _BYTES),),
    "StreamRequest": (("conditions", "Conditions"), ("after", _STRING)),
    "StreamResponse": (
        ("traces", _TRACES),
        ("cursor", _STRING),
        ("notice", _STRING),
        ("reason", _STRING),
        ("missed_batches", _INT64),
    ),
}
METHODS: Mapping[str, tuple[str, str, bool]] = {
    "List": ("ListRequest", "ListResponse", False),
    "Get": ("GetRequest", _TRACES, False),
    "Stream": ("StreamRequest", "StreamResponse", True),
}
"""Message asked with, message answered with, and whether answers come one after the other."""


def _file() -> FileDescriptorProto:
    file = FileDescriptorProto(
        name="hyperbox/traces/v1/traces.proto",
        package=PACKAGE,
        syntax="proto3",
        dependency=[trace_pb2.DESCRIPTOR.name],
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields, start=1):
            added = message.field.add(
                name=field.rstrip("?"),
                number=number,
                label=FieldDescriptorProto.LABEL_OPTIONAL,
                json_name=_camel(field.rstrip("?")),
            )
            if isinstance(kind, str):
                added.type, added.type_name = FieldDescriptorProto.TYPE_MESSAGE, _full(kind)
            else:
                added.type = FieldDescriptorProto.Type.ValueType(kind)
            if field.endswith("?"):  # whether it is set is known: by a oneof of its own
                added.proto3_optional, added.oneof_index = True, len(message.oneof_decl)
                message.oneof_decl.add(name=f"_{added.name}")
    service = file.service.add(name="Traces")
    for name, (asked, answered, many) in METHODS.items():
        method = service.method.add(name=name, input_type=_full(asked), output_type=_full(answered))
        if many:
            method.server_streaming = True
    return file


def _full(name: str) -> str:
    return f".{name}" if "." in name else f".{PACKAGE}.{name}"


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


FILE = _file()
"""What ``protoc`` makes of traces.proto; it is in the library's pool, where reflection looks."""

_POOL = descriptor_pool.Default()
_POOL.Add(FILE)


def request_class(name: str) -> Any:
    """Return the protobuf library's class of a message."""
    found = _POOL.FindMessageTypeByName(f"{PACKAGE}.{name}")
    return message_factory.GetMessageClass(found)


def list_response(traces: bytes, then: Cursor | None) -> bytes:
    """Return a ListResponse; `traces` is an encoded TracesData."""
    following = b"" if then is None else delimited(2, str(then).encode())
    return delimited(1, traces) + following


class StreamMessages:
    """Writes StreamResponse; joined ones are one message, with the last one's cursor."""

    protobuf = True

    def spans(self, encoded: bytes, cursor: Cursor) -> bytes:
        """Return the message of spans; `encoded` is a TracesData."""
        return delimited(1, encoded) + delimited(2, str(cursor).encode())

    def notice(self, kind: str, said: dict[str, object], cursor: Cursor) -> bytes:
        """Return the message of something else: a gap, the end, a sign of life."""
        message = delimited(2, str(cursor).encode()) + delimited(3, kind.encode())
        if reason := said.get("reason"):
            message += delimited(4, str(reason).encode())
        if isinstance(missed := said.get("batches"), int):
            message += tag(5, 0) + varint(missed)
        return message
