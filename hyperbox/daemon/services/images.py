"""The images service: lazy mounts, over HTTP, in a process that outlives the daemon.

Its descriptors are left with a supervisor (`hyperbox.daemon.descriptor_store`); after a death the
next process goes on with every mount.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hyperbox.daemon import descriptor_store
from hyperbox.daemon.service import Endpoint, Method, Parameter, ServiceState, Status
from hyperbox.errors import ConfigError, HyperboxError, KernelFeatureMissing
from hyperbox.foreign import parse_json
from hyperbox.storage.lazy.content_cache import ContentCache
from hyperbox.storage.lazy.lazy_mounts import Keeping, LazyMounts
from hyperbox.storage.lazy.mechanism import Mechanism, choose_mechanism
from hyperbox.storage.lazy.mount_record import LayerRecord
from hyperbox.storage.lazy.remote_index import fetch_index
from hyperbox.storage.lazy.source_name import source_named

__all__ = ["DIRECTORY", "LIMIT_S", "QUOTA", "ImagesService"]

DIRECTORY = "HYPERBOX_LAZY"
"""Variable with the directory of cache and records."""

LIMIT_S = "HYPERBOX_LAZY_LIMIT_S"
"""Variable with the seconds after which a read fails."""

QUOTA = "HYPERBOX_LAZY_QUOTA"
"""Variable with the bytes on disk that the cache may have where nobody uses it; 0 for any."""

_USUAL = "/var/lib/hyperbox/lazy"
_NAME = Parameter("name", "The mount's name.", {"type": "string"})
_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_MOUNT = {
    "type": "object",
    "properties": {
        "name": _TEXT,
        "point": _TEXT,
        "mechanism": {"enum": [str(one) for one in Mechanism]},
        "phase": _TEXT,
        "reason": _TEXT,
        "bytes": _COUNT,
        "missing_bytes": _COUNT,
    },
    "required": ["name", "point", "mechanism", "phase"],
}
_NEW = {
    "type": "object",
    "properties": {
        "name": _TEXT,
        "point": _TEXT,
        "mechanism": {"enum": [str(one) for one in Mechanism]},
        "media_type": _TEXT,
        "size": _COUNT,
        "annotations": {"type": "object", "additionalProperties": _TEXT},
        "sources": {"type": "array", "items": _TEXT, "minItems": 1},
    },
    "required": ["name", "point", "media_type", "size", "annotations", "sources"],
}
_CACHED = {
    "type": "object",
    "properties": {"key": _TEXT, "size": _COUNT, "on_disk": _COUNT, "in_use": {"type": "boolean"}},
    "required": ["key", "size", "on_disk", "in_use"],
}
_EVICTED = {
    "type": "object",
    "properties": {"keys": {"type": "array", "items": _TEXT}, "bytes_freed": _COUNT},
    "required": ["keys", "bytes_freed"],
}


class ImagesService:
    """Serves lazy mounts, and says how they are."""

    name = "images"

    def __init__(self) -> None:
        top = Path(os.environ.get(DIRECTORY, _USUAL))
        self._cache = ContentCache(top / "cache")
        self._state = top / "mounts"
        self._limit_s = float(os.environ.get(LIMIT_S, "30"))
        self._quota = int(os.environ.get(QUOTA, "0"))
        self._mounts: LazyMounts | None = None

    def start(self) -> None:
        """Go on with the mounts of an earlier process; see `Service.start`."""
        keeping = Keeping(
            descriptor_store.keep, descriptor_store.forget, descriptor_store.inherited()
        )
        self._mounts = LazyMounts(
            self._state, self._cache, source_named, keeping=keeping, limit_s=self._limit_s
        )
        self._mounts.resume()

    def stop(self) -> None:
        """End; mounts stay and wait. See `Service.stop`."""
        if self._mounts is not None:
            self._mounts.stop()
            self._mounts = None

    def status(self) -> Status:
        """Say how it is now."""
        return Status.running() if self._mounts is not None else Status(ServiceState.STOPPED)

    def endpoints(self) -> Sequence[Endpoint]:
        """Return what it answers."""
        one, kind = "/images/mounts/{name}", "application/json"
        return [
            Endpoint(
                "/images/mounts",
                "Lazy mounts: how each is served, what is here of it.",
                self._answer(lambda mounts, said: mounts.state()),
                {kind: {"type": "array", "items": _MOUNT}},
            ),
            Endpoint(
                "/images/mounts",
                "Mounts a layer that is not here yet.",
                self._answer(self._mount, status=201),
                {kind: _MOUNT},
                method=Method.POST,
                accepts={kind: _NEW},
                status=201,
            ),
            Endpoint(
                one,
                "Takes a mount away.",
                self._answer(lambda mounts, said: mounts.unmount(said["name"]), status=204),
                {},
                parameters=[_NAME],
                method=Method.DELETE,
                status=204,
            ),
            Endpoint(
                f"{one}/complete",
                "Fetches the rest in the background.",
                self._answer(
                    lambda mounts, said: mounts.complete(said["name"], rate=said.get("rate", 0)),
                    status=202,
                ),
                {},
                parameters=[_NAME],
                method=Method.POST,
                accepts={kind: {"type": "object", "properties": {"rate": _COUNT}}},
                status=202,
            ),
            Endpoint(
                f"{one}/order",
                "Chunks that readers have missed, in order: a list to prefetch.",
                self._answer(lambda mounts, said: list(mounts.order(said["name"]))),
                {kind: {"type": "array", "items": _COUNT}},
                parameters=[_NAME],
            ),
            Endpoint(
                f"{one}/prefetch",
                "Fetches chunks by number, after what readers wait for.",
                self._answer(
                    lambda mounts, said: mounts.prefetch(said["name"], said["chunks"]), status=202
                ),
                {},
                parameters=[_NAME],
                method=Method.POST,
                accepts={
                    kind: {
                        "type": "object",
                        "properties": {"chunks": {"type": "array", "items": _COUNT}},
                        "required": ["chunks"],
                    }
                },
                status=202,
            ),
            Endpoint(
                "/images/cache",
                "What is in the content cache, that which was used last at the end.",
                self._answer(lambda mounts, said: [vars(held) for held in self._cache.held()]),
                {kind: {"type": "array", "items": _CACHED}},
            ),
            Endpoint(
                "/images/cache",
                "Takes images that nobody uses, the longest unused first, until the rest fits.",
                self._answer(lambda mounts, said: vars(self._cache.evict(int(said["keep"])))),
                {kind: _EVICTED},
                parameters=[Parameter("keep", "Bytes on disk that may stay.", _COUNT)],
                method=Method.DELETE,
            ),
        ]

    def _mount(self, mounts: LazyMounts, said: dict[str, Any]) -> Mapping[str, object]:
        found = _mount(mounts, said)
        if self._quota:
            self._cache.evict(self._quota)
        return found

    def metrics(self) -> Iterable[Metric]:
        """Return sums over all mounts."""
        if self._mounts is None:
            return
        state = self._mounts.state()
        gauges = {"mounts": "Lazy mounts", "missing_bytes": "Bytes of them that are not here yet"}
        sums = {"mounts": len(state), "missing_bytes": _sum(state, "missing_bytes")}
        for name, text in gauges.items():
            yield GaugeMetricFamily(f"hyperbox_images_{name}", text, value=sums[name])
        counters = {
            "hits": "Reads whose bytes were here",
            "misses": "Reads that had to fetch",
            "fetched": "Bytes that sources have sent",
            "refused": "Chunks whose bytes were not those that were asked for",
            "errors": "Reads that failed",
        }
        for name, text in counters.items():
            yield CounterMetricFamily(f"hyperbox_images_{name}", text, value=_sum(state, name))

    def _answer(
        self, act: Callable[[LazyMounts, dict[str, Any]], object], *, status: int = 200
    ) -> Callable[[Request], Any]:
        """Return what answers a request by acting on the mounts, in a thread of its own."""

        async def answer(request: Request) -> Response:
            mounts = self._mounts
            if mounts is None:
                raise HTTPException(503, "the images service does not run")
            body = (await request.body()).decode(errors="replace")
            try:
                said = {**request.query_params, **(parse_json(body) if body else {})}
                said |= request.path_params
                found = await asyncio.to_thread(act, mounts, said)
            except (ValueError, KeyError, TypeError) as error:
                raise HTTPException(400, f"not as /openapi.json says: {error}") from error
            except ConfigError as error:
                raise HTTPException(404, error.message) from error
            except KernelFeatureMissing as error:
                raise HTTPException(501, error.message) from error
            except HyperboxError as error:
                raise HTTPException(502, error.message) from error
            return Response(status_code=status) if found is None else JSONResponse(found, status)

        return answer


def _mount(mounts: LazyMounts, said: dict[str, Any]) -> Mapping[str, object]:
    """Mount on the mechanism that is wanted, or on the first that works."""
    sources = tuple(map(str, said["sources"]))
    framed = str(said["media_type"]).endswith("+zstd")
    index = fetch_index(
        source_named(sources[0]), dict(said["annotations"]), int(said["size"]), framed=framed
    )
    layer = LayerRecord(index.key, index.stored, sources)
    name, point = str(said["name"]), Path(said["point"])

    def attempt(mechanism: Mechanism) -> str:
        try:
            mounts.mount(name, point, layer, index.payload, mechanism)
        except KernelFeatureMissing as missing:
            return missing.message
        return ""

    wanted = [Mechanism(said["mechanism"])] if "mechanism" in said else tuple(Mechanism)
    preference = choose_mechanism(attempt, wanted)
    found = next(one for one in mounts.state() if one["name"] == name)
    return {**found, **preference.as_json()}


def _sum(state: Sequence[Mapping[str, object]], name: str) -> int:
    return sum(int(str(one.get(name, 0))) for one in state)
