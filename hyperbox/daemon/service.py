"""What a service is: a feature that starts, stops, says how it is, and answers requests.

A service brings its endpoints, its metrics and whatever else serves it (a thread, a gRPC
port of its own); the group starts and stops it. Nothing outside of
`hyperbox.daemon.composition` knows a service by name.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from prometheus_client import Metric
from starlette.requests import Request
from starlette.responses import Response

__all__ = [
    "Answer",
    "Endpoint",
    "Method",
    "Parameter",
    "Schema",
    "Service",
    "ServiceState",
    "Status",
]

Schema = Mapping[str, object]
"""A JSON Schema (2020-12, as OpenAPI 3.1 has it)."""

Answer = Callable[[Request], Awaitable[Response]]
"""Answers one request; raises starlette's HTTPException for a refusal."""


class ServiceState(StrEnum):
    """How a service is."""

    RUNNING = "running"
    UNAVAILABLE = "unavailable"
    """This machine cannot do it, or it is not wanted: no fault."""
    FAILED = "failed"
    """It should run and does not."""
    STOPPED = "stopped"
    """Not started yet, or stopped with the daemon."""


@dataclass(frozen=True)
class Status:
    """A service's state; if it does not run, why (`reason`) and what to do about it (`hint`)."""

    state: ServiceState
    reason: str = ""
    hint: str = ""

    @classmethod
    def running(cls) -> Status:
        """Return the status of a service that runs."""
        return cls(ServiceState.RUNNING)

    @property
    def why(self) -> str:
        """Reason and hint in a line; the state where there is no reason."""
        return "; ".join(text for text in (self.reason or str(self.state), self.hint) if text)

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values; reason and hint only where there are any."""
        said = {"state": str(self.state), "reason": self.reason, "hint": self.hint}
        return {name: text for name, text in said.items() if text}


class Method(StrEnum):
    """HTTP methods that an endpoint may answer (RFC 9110, 9.3; PATCH is RFC 5789).

    HEAD comes with GET. CONNECT is for proxies, and TRACE would show a client's secrets.
    """

    GET = "GET"
    POST = "POST"
    PUT = "PUT"
    PATCH = "PATCH"
    DELETE = "DELETE"
    OPTIONS = "OPTIONS"


@dataclass(frozen=True)
class Parameter:
    """A parameter that an endpoint takes: in the query, or in its path if that has ``{name}``."""

    name: str
    description: str
    schema: Schema


@dataclass(frozen=True)
class Endpoint:
    """A path and a method, what answers them, and what OpenAPI says about that.

    `content` maps each media type of the answer to the schema of its body, `accepts` those of
    the request's. Query parameters that are not listed are refused, and bodies of other types
    where there is an `accepts`.
    """

    path: str
    summary: str
    answer: Answer
    content: Mapping[str, Schema]
    description: str = ""
    parameters: Sequence[Parameter] = ()
    also: Mapping[int, str] = field(default_factory=dict)
    """Further statuses with the same body, and what they mean; refusals need no mention."""
    method: Method = Method.GET
    accepts: Mapping[str, Schema] = field(default_factory=dict)
    status: int = 200
    """Of the usual answer, for example 202 for what has only begun."""

    @property
    def in_path(self) -> tuple[str, ...]:
        """Names of the parameters in its path."""
        return tuple(re.findall(r"\{(\w+)[^}]*\}", self.path))


class Service(Protocol):
    """A feature of the daemon.

    `start` and `stop` may come from different threads, `status` and `metrics` from several at
    once; they may ask another process, for about a second.
    """

    @property
    def name(self) -> str:
        """A word; label of its metrics, key of its status."""

    def start(self) -> None:
        """Begin to serve.

        Raises
        ------
        KernelFeatureMissing
            If this machine cannot do it: the daemon goes on, and `status` says so from
            now on, with the reason.
        HyperboxError
            If it cannot start for another reason: the daemon does not start.
        """

    def stop(self) -> None:
        """End within half a second and put back everything that was changed.

        It is called once after `start`, even if that raised.

        Raises
        ------
        HyperboxError
            If something could not be put back.
        """

    def status(self) -> Status:
        """Say how it is now."""

    def endpoints(self) -> Sequence[Endpoint]:
        """Return what it answers, whether it runs or not."""

    def metrics(self) -> Iterable[Metric]:
        """Return its metric families now; none while it does not run."""
