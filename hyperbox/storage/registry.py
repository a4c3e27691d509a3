"""Reading from a registry: manifests, blobs whole or in part, referrers.

Follows the OCI distribution specification 1.1. Nothing is believed: documents are bounded and
blobs counted, and what has a digest is compared with it by whoever keeps it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote

from hyperbox.errors import ImageError
from hyperbox.storage.authorization import Authorization
from hyperbox.storage.credentials import Credential
from hyperbox.storage.digests import check_digest, digest_of, hexadecimal, new_hash
from hyperbox.storage.documents import MOST_DOCUMENT
from hyperbox.storage.oci import INDEXES, MANIFESTS, OCI_INDEX, Descriptor, parse_index
from hyperbox.storage.reference import Reference
from hyperbox.storage.transport import Fault, Request, Response, Transport, origin, shown

__all__ = ["Registry", "content_range", "refusal"]

_ACCEPT = {"Accept": ", ".join((*MANIFESTS, *INDEXES))}
_CHUNK = 256 << 10
_RANGE = re.compile(r"bytes\s+([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")


class Registry:
    """One repository of a registry; any number of threads may use it.

    Parameters
    ----------
    actions
        What will be done, as token servers name it: ``pull`` or ``pull,push``.
    """

    def __init__(
        self,
        reference: Reference,
        transport: Transport,
        credential: Credential | None = None,
        *,
        actions: str = "pull",
    ) -> None:
        self.reference = reference
        self.transport = transport
        self._authorization = Authorization(transport, credential)
        self._scope = f"repository:{reference.repository}:{actions}"
        plain = transport.options.plain_http
        scheme = "http" if (reference.is_loopback if plain is None else plain) else "https"
        self.base = f"{scheme}://{reference.endpoint}/v2/"
        self.url = f"{self.base}{reference.repository}/"

    def manifest(self, target: str = "") -> tuple[Descriptor, bytes]:
        """Return a manifest or an index, by default the one that the reference names.

        Parameters
        ----------
        target
            A digest or a tag.

        Raises
        ------
        ImageError
            If there is none, or it does not have its digest.
        """
        target = target or self.reference.target
        request = Request("GET", f"{self.url}manifests/{quote(target, safe=':')}", _ACCEPT)
        headers, data = self.transport.persist(lambda: self._document(request))
        media_type = headers.get("Content-Type", "").partition(";")[0].strip()
        named = target if ":" in target else headers.get("Docker-Content-Digest", "")
        digest = check_digest(named, shown(request.url)) if named else digest_of(data)
        found = new_hash(digest)
        found.update(data)
        if found.hexdigest() != hexadecimal(digest):
            raise ImageError(f"{shown(request.url)}: the content does not have its digest {digest}")
        return Descriptor(media_type, digest, len(data)), data

    @contextlib.contextmanager
    def blob(self, descriptor: Descriptor, start: int = 0) -> Iterator[Iterator[bytes]]:
        """Yield the bytes of a blob from `start` on, as they come, in one attempt.

        Raises
        ------
        Fault
            If the server refuses, the connection breaks, or it sends more or less than
            ``descriptor.size`` bytes; also while the bytes are read.
        """
        with self._range(descriptor, start, descriptor.size) as chunks:
            yield chunks

    def read(self, descriptor: Descriptor, start: int, stop: int) -> bytes:
        """Return the bytes of a blob from `start` to before `stop`; makes several attempts.

        They are not verified: the caller has digests of what it reads.

        Raises
        ------
        Fault
            If they cannot be had.
        """

        def once() -> bytes:
            with self._range(descriptor, start, stop) as chunks:
                return b"".join(chunks)

        if not 0 <= start < stop <= descriptor.size:
            raise ValueError(f"no range of {descriptor.size} bytes: {start} to {stop}")
        return self.transport.persist(once)

    def referrers(self, digest: str, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """Return the artifacts that belong to a manifest, of one type or of all.

        A registry that does not know the question is asked for the tag ``sha256-DIGITS``, where
        clients keep an index for it ("Referrers Tag Schema").
        """
        url = f"{self.url}referrers/{digest}"
        try:
            _, data = self.transport.persist(lambda: self._document(Request("GET", url)))
            found = parse_index(data, f"referrers of {digest}", OCI_INDEX)
        except Fault as fault:
            if fault.status not in (400, 404, 405):
                raise
            found = parse_index(self._tagged_referrers(digest), f"referrers of {digest}")
        wanted = artifact_type
        return tuple(one for one in found.manifests if wanted in ("", one.artifact_type))

    def _tagged_referrers(self, digest: str) -> bytes:
        try:
            return self.manifest(digest.replace(":", "-"))[1]
        except Fault as fault:
            if fault.status != 404:
                raise
            return b'{"schemaVersion": 2, "manifests": []}'

    def _document(self, request: Request) -> tuple[Mapping[str, str], bytes]:
        with self.ask(request) as response:
            if response.status != 200:
                raise refusal(response, request.url)
            data = response.read(MOST_DOCUMENT + 1)
            if len(data) > MOST_DOCUMENT:
                raise ImageError(f"{shown(request.url)} has more than {MOST_DOCUMENT} bytes")
            return response.headers, data

    @contextlib.contextmanager
    def _range(self, descriptor: Descriptor, start: int, stop: int) -> Iterator[Iterator[bytes]]:
        url = f"{self.url}blobs/{descriptor.digest}"
        partly = start > 0 or stop < descriptor.size
        headers = {"Range": f"bytes={start}-{stop - 1}"} if partly else {}
        with self.ask(Request("GET", url, headers)) as response:
            skipped = 0
            if response.status == 206:
                found = content_range(response.headers.get("Content-Range", ""))
                if found is None or found[0] != start or found[1] != stop:
                    raise Fault(f"{shown(url)}: the server sent another range than asked for")
            elif response.status == 200:  # Range is only a SHOULD: the whole blob comes
                skipped = start
                if response.length_remaining not in (None, descriptor.size):
                    raise Fault(
                        f"{shown(url)}: has {response.length_remaining} bytes, not the "
                        f"{descriptor.size} of its descriptor"
                    )
            else:
                raise refusal(response, url)
            yield _counted(response, skipped, stop - start, url, whole=not partly)

    @contextlib.contextmanager
    def ask(self, request: Request, *, redirects: bool = True) -> Iterator[Response]:
        """Send a request as who we are; authenticate once if the registry asks for it.

        What uploads are sent to may be another server, which does not learn who we are.
        """
        if origin(request.url) != origin(self.base):
            with self.transport.send(request, redirects=redirects) as response:
                yield response
            return
        for attempt in (1, 2):
            header = self._authorization.header(self._scope)
            asked = Request(request.method, request.url, request.headers, header, request.body)
            with self.transport.send(asked, redirects=redirects) as response:
                if response.status != 401 or attempt == 2:
                    yield response
                    return
                challenges = response.headers.getlist("WWW-Authenticate")
            self._authorization.answer(challenges, self._scope, header, request.url)


def content_range(text: str) -> tuple[int, int] | None:
    """Return start and end (exclusive) of a ``Content-Range`` header; None if it is none."""
    found = _RANGE.fullmatch(text.strip())
    if found is None or int(found[2]) < int(found[1]):
        return None
    return int(found[1]), int(found[2]) + 1


def refusal(response: Response, url: str) -> Fault:
    """Return what an answer with an error status means."""
    hints = {
        401: "docker login, podman login or skopeo login gets credentials",
        403: "these credentials may not do this",
        404: "there is no such image, or one has to log in to see it",
    }
    return Fault(
        f"{shown(url)}: HTTP status {response.status}",
        status=response.status,
        hint=hints.get(response.status, ""),
    )


def _counted(
    response: Response, skipped: int, wanted: int, url: str, *, whole: bool
) -> Iterator[bytes]:
    """Yield `wanted` bytes of a body after `skipped` ones; a Fault if there are less or more."""
    while skipped:
        data = response.read1(min(_CHUNK, skipped))
        if not data:
            raise Fault(f"{shown(url)}: the connection ended early", is_transient=True)
        skipped -= len(data)
    while wanted:
        data = response.read1(min(_CHUNK, wanted))
        if not data:
            raise Fault(f"{shown(url)}: the connection ended early", is_transient=True)
        wanted -= len(data)
        yield data
    if whole and response.read(1):
        raise Fault(f"{shown(url)}: more bytes than the descriptor says")
