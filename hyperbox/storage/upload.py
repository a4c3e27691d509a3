"""Writing to a registry: blobs whole or in chunks, manifests, artifacts that belong to others.

Follows "Push" of the OCI distribution specification 1.1.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, urlencode, urljoin, urlsplit

from hyperbox.errors import ImageError
from hyperbox.files import write_bytes
from hyperbox.foreign import open_regular
from hyperbox.storage.digests import digest_of
from hyperbox.storage.oci import EMPTY, Descriptor, Index, Manifest, encode, parse_index
from hyperbox.storage.registry import Registry, refusal
from hyperbox.storage.transport import Fault, Request, Response, shown

__all__ = ["CHUNK", "Upload"]

CHUNK = 64 << 20
"""Bytes of a blob from which on it is sent in chunks of this size."""
_BLOCK = 256 << 10
_BINARY = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True)
class Upload:
    """Sends content to one repository; any number of threads may use it.

    Parameters
    ----------
    chunk
        Bytes at once, for registries and proxies that limit a request's body.
    """

    registry: Registry
    chunk: int = CHUNK

    def blob(
        self,
        descriptor: Descriptor,
        path: Path,
        *,
        mount_from: str = "",
        progress: Callable[[int], None] = lambda _: None,
    ) -> bool:
        """Send a blob unless the repository has it; return whether bytes were sent.

        Parameters
        ----------
        mount_from
            Another repository of the registry that may have it.
        progress
            Called with the bytes sent so far.

        Raises
        ------
        ImageError
            If the registry refuses, or has another content afterwards.
        """
        if self.has(descriptor):
            return False
        return self.registry.transport.persist(
            lambda: self._send(descriptor, path, mount_from, progress)
        )

    def has(self, descriptor: Descriptor) -> bool:
        """Whether the repository has a blob."""

        def once() -> bool:
            url = f"{self.registry.url}blobs/{descriptor.digest}"
            with self.registry.ask(Request("HEAD", url)) as response:
                if response.status not in (200, 404):
                    raise refusal(response, url)
                return response.status == 200

        return self.registry.transport.persist(once)

    def manifest(self, data: bytes, media_type: str, target: str = "") -> Mapping[str, str]:
        """Send a manifest or an index under a tag or, by default, its digest; return the headers.

        Raises
        ------
        ImageError
            If the registry refuses it, such as for a blob that it lacks.
        """
        url = f"{self.registry.url}manifests/{quote(target or digest_of(data), safe=':')}"
        request = Request("PUT", url, {"Content-Type": media_type}, body=data)

        def once() -> Mapping[str, str]:
            with self.registry.ask(request, redirects=False) as response:
                if response.status != 201:
                    raise refusal(response, url)
                return response.headers

        headers = self.registry.transport.persist(once)
        if headers.get("Docker-Content-Digest", digest_of(data)) != digest_of(data):
            raise ImageError(f"{shown(url)}: the registry has kept another content than was sent")
        return headers

    def attach(
        self, image: Descriptor, layers: Sequence[Descriptor], artifact_type: str
    ) -> Descriptor:
        """Send an artifact with layers that are there, attached to an image; return it.

        A registry without the referrers API gets it into the index of the tag ``sha256-DIGITS``.
        Two clients that do so at once may lose one of both entries (the specification says so).

        Raises
        ------
        ImageError
            If the registry refuses.
        """
        with tempfile.TemporaryDirectory() as name:
            empty = Path(name) / "empty"
            write_bytes(empty, b"{}")
            self.blob(EMPTY, empty)
        subject = Descriptor(image.media_type, image.digest, image.size)
        manifest = Manifest(EMPTY, tuple(layers), artifact_type=artifact_type, subject=subject)
        data = encode(manifest)
        headers = self.manifest(data, manifest.media_type)
        descriptor = Descriptor(
            manifest.media_type, digest_of(data), len(data), artifact_type=artifact_type
        )
        if "OCI-Subject" not in headers:
            self._file(descriptor, image.digest.replace(":", "-"))
        return descriptor

    def _file(self, descriptor: Descriptor, tag: str) -> None:
        try:
            index = parse_index(self.registry.manifest(tag)[1], f"referrers index {tag}")
        except Fault as fault:
            if fault.status != 404:
                raise
            index = Index(())
        others = tuple(one for one in index.manifests if one.digest != descriptor.digest)
        new = replace(index, manifests=(*others, descriptor))
        self.manifest(encode(new), new.media_type, tag)

    def _send(
        self, descriptor: Descriptor, path: Path, mount_from: str, progress: Callable[[int], None]
    ) -> bool:
        asked = {"mount": descriptor.digest, "from": mount_from} if mount_from else {}
        url = f"{self.registry.url}blobs/uploads/" + (f"?{urlencode(asked)}" if asked else "")
        with self.registry.ask(Request("POST", url, body=b""), redirects=False) as response:
            if response.status == 201 and mount_from:
                return False
            location = _location(response, url, 202)
        sent = 0
        while descriptor.size - sent > self.chunk:
            stop = sent + self.chunk
            headers = {**_BINARY, "Content-Range": f"{sent}-{stop - 1}"}
            request = _from_file("PATCH", location, headers, path, sent, stop)
            with self.registry.ask(request, redirects=False) as response:
                location = _location(response, location, 202)
            sent = stop
            progress(sent)
        joint = "&" if urlsplit(location).query else "?"
        last = f"{location}{joint}{urlencode({'digest': descriptor.digest})}"
        headers = dict(_BINARY)
        if sent:
            headers["Content-Range"] = f"{sent}-{descriptor.size - 1}"
        request = _from_file("PUT", last, headers, path, sent, descriptor.size)
        with self.registry.ask(request, redirects=False) as response:
            if response.status != 201:
                raise refusal(response, last)
        progress(descriptor.size)
        return True


def _location(response: Response, url: str, status: int) -> str:
    """Return where an upload goes on."""
    location = response.headers.get("Location", "")
    if response.status != status:
        raise refusal(response, url)
    found = urljoin(url, location)
    if not location or urlsplit(found).scheme not in ("https", urlsplit(url).scheme):
        raise Fault(f"{shown(url)}: the registry does not say where the upload goes on")
    return found


def _from_file(
    method: str, url: str, headers: Mapping[str, str], path: Path, start: int, stop: int
) -> Request:
    sized = {**headers, "Content-Length": str(stop - start)}
    return Request(method, url, sized, body=lambda: _blocks(path, start, stop))


def _blocks(path: Path, start: int, stop: int) -> Iterator[bytes]:
    try:
        with open_regular(path) as (handle, _):
            while start < stop:
                data = os.pread(handle, min(_BLOCK, stop - start), start)
                if not data:
                    raise ImageError(f"{path} is shorter than it was")
                start += len(data)
                yield data
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot read {path}: {error}") from error
