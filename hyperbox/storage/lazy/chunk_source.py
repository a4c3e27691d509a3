"""Where the stored bytes of a blob come from: a range of it at a time, from one of several places.

What a source returns is trusted by nobody: `hyperbox.storage.lazy.lazy_image` verifies every
chunk. A source says `SourceFailed` rather than returning bytes of another length.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from hyperbox.errors import WorkloadError
from hyperbox.foreign import open_regular

__all__ = ["ChunkSource", "FileSource", "HttpSource", "SourceFailed"]

_TIMEOUT_S = 10.0  # of a connection, and between two pieces of an answer
_MOST_REDIRECTS = 5
_MOST_SKIPPED = 64 << 20  # read and thrown away where a server ignores Range
_REDIRECTS = (301, 302, 303, 307, 308)
_CONTENT_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/(?:[0-9]+|\*)")


class SourceFailed(WorkloadError):
    """A source did not have the bytes, this time."""


class ChunkSource(Protocol):
    """A blob of which any range can be read; used by several threads at once."""

    @property
    def name(self) -> str:
        """What people know it by: an address without secrets, a path."""

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly so many bytes.

        Raises
        ------
        SourceFailed
            If it cannot; another source, or this one later, may.
        """


class FileSource:
    """A blob in a file of this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        """Return its path."""
        return os.fspath(self._path)

    def read(self, offset: int, length: int) -> bytes:
        """Return a range, as `ChunkSource` says."""
        try:
            with open_regular(self._path) as (handle, _):
                data = os.pread(handle, length, offset)
        except (OSError, ValueError) as error:
            raise SourceFailed(f"cannot read {self._path}: {error}") from error
        if len(data) != length:
            raise SourceFailed(f"{self._path} ends before byte {offset + length}")
        return data


class HttpSource:
    """A blob behind HTTP: one request with a Range for each read (RFC 9110, 14).

    An answer counts only if it is the range that was asked for, to the byte. A server that
    ignores Range answers with the whole blob; what is before the range is then read and thrown
    away, up to 64 MiB. Other hosts, to which a redirect leads, get no `headers`.

    Parameters
    ----------
    headers
        Sent with each request, such as Authorization.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        self._url = url
        self._headers = dict(headers or {})
        self._timeout_s = timeout_s

    @property
    def name(self) -> str:
        """Return its address without user and query, where secrets may be."""
        parts = urllib.parse.urlsplit(self._url)
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"

    def read(self, offset: int, length: int) -> bytes:
        """Return a range, as `ChunkSource` says."""
        try:
            return self._read(offset, length)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise SourceFailed(f"{self.name}: {error or type(error).__name__}") from error

    def _read(self, offset: int, length: int) -> bytes:
        url, asked = self._url, f"bytes={offset}-{offset + length - 1}"
        for _ in range(_MOST_REDIRECTS + 1):
            own = _origin(url) == _origin(self._url)
            headers = {"Range": asked, "Accept-Encoding": "identity"}
            headers |= self._headers if own else {}
            with contextlib.closing(self._connection(url)) as connection:
                connection.request("GET", _target(url), headers=headers)
                answer = connection.getresponse()
                if answer.status not in _REDIRECTS:
                    return self._body(answer, offset, length)
                url = urllib.parse.urljoin(url, answer.getheader("Location", ""))
        raise SourceFailed(f"{self.name}: more than {_MOST_REDIRECTS} redirects")

    def _connection(self, url: str) -> http.client.HTTPConnection:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise SourceFailed(f"{self.name}: an address that is not HTTP")
        if parts.scheme == "https":
            return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=self._timeout_s)
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=self._timeout_s)

    def _body(self, answer: http.client.HTTPResponse, offset: int, length: int) -> bytes:
        if answer.status == 200:
            self._skip(answer, offset)
        elif answer.status == 206:
            said = answer.getheader("Content-Range", "")
            match = _CONTENT_RANGE.fullmatch(said)
            if match is None or (int(match[1]), int(match[2])) != (offset, offset + length - 1):
                raise SourceFailed(
                    f"{self.name}: asked for {length} bytes at {offset}, got {said!r}"
                )
        else:
            raise SourceFailed(f"{self.name}: status {answer.status}")
        data = answer.read(length)
        if len(data) != length:
            raise SourceFailed(f"{self.name}: the answer ends after {len(data)} of {length} bytes")
        return data

    def _skip(self, answer: http.client.HTTPResponse, count: int) -> None:
        if count > _MOST_SKIPPED:
            raise SourceFailed(f"{self.name}: it ignores Range")
        while count:
            piece = answer.read(min(count, 1 << 16))
            if not piece:
                raise SourceFailed(f"{self.name}: it ignores Range and its answer ends early")
            count -= len(piece)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _target(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
