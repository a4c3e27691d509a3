"""How a registry is convinced of who we are: Basic, or a token from where it says.

Follows the distribution project's token specification (docs/spec/auth/token.md, oauth.md).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from urllib.parse import urlencode, urlsplit

from hyperbox.errors import ImageError
from hyperbox.storage.challenges import Challenge, parse_challenges
from hyperbox.storage.credentials import Credential
from hyperbox.storage.documents import parse_document
from hyperbox.storage.transport import Fault, Request, Transport, shown

__all__ = ["Authorization"]

_MOST_ANSWER = 1 << 20
_CLIENT = "hyperbox"


class Authorization:
    """Authorises the requests of one registry; threads share what was granted.

    Parameters
    ----------
    credential
        None for anybody.
    """

    def __init__(self, transport: Transport, credential: Credential | None) -> None:
        self._transport = transport
        self._credential = credential
        self._lock = threading.Lock()
        self._granted: dict[str, str] = {}

    def header(self, scope: str) -> str:
        """Return the header for requests of a scope, as far as it is known; empty if not."""
        with self._lock:
            return self._granted.get(scope, "")

    def answer(self, headers: Iterable[str], scope: str, refused: str, url: str) -> None:
        """Get a header that meets a server's challenges.

        Parameters
        ----------
        refused
            The header that was not enough; if another thread has a newer one, that is taken.
        url
            What was asked for.

        Raises
        ------
        ImageError
            If there is no credential, or it is not enough.
        """
        with self._lock:
            if self._granted.get(scope, "") != refused:
                return
            challenges = parse_challenges(headers)
            bearer = next((one for one in challenges if one.scheme == "bearer"), None)
            if bearer is not None and bearer.parameters.get("realm"):
                new = f"Bearer {self._token(bearer, scope, url)}"
            elif any(one.scheme == "basic" for one in challenges):
                new = self._basic(url)
            else:
                raise Fault(f"{shown(url)}: asks for no authentication that is known", status=401)
            if new == refused:
                raise Fault(f"{shown(url)}: the credentials are not accepted", status=401)
            self._granted[scope] = new

    def _basic(self, url: str) -> str:
        if self._credential is None or self._credential.identity_token:
            raise Fault(
                f"{shown(url)}: the registry asks for a user and a password",
                status=401,
                hint="docker login, podman login or skopeo login puts them where they are found",
            )
        return self._credential.basic

    def _token(self, challenge: Challenge, scope: str, url: str) -> str:
        realm = challenge.parameters["realm"]
        if urlsplit(realm).scheme not in ("https", urlsplit(url).scheme):
            raise Fault(f"{shown(url)}: sends to {shown(realm)} for a token, without TLS")
        asked = {"service": challenge.parameters.get("service", "")}
        asked["scope"] = challenge.parameters.get("scope") or scope
        request = self._request(realm, {name: text for name, text in asked.items() if text})
        return self._transport.persist(lambda: self._fetch(request))

    def _request(self, realm: str, asked: dict[str, str]) -> Request:
        mine = self._credential
        if mine is not None and mine.identity_token:
            form = {"grant_type": "refresh_token", "refresh_token": mine.identity_token}
            body = urlencode(form | {"client_id": _CLIENT} | asked).encode()
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            return Request("POST", realm, kind, body=body)
        joint = "&" if urlsplit(realm).query else "?"
        basic = mine.basic if mine is not None else ""
        return Request("GET", f"{realm}{joint}{urlencode(asked)}", authorization=basic)

    def _fetch(self, request: Request) -> str:
        with self._transport.send(request) as response:
            data = response.read(_MOST_ANSWER)
            if response.status != 200:
                raise Fault(
                    f"{shown(request.url)}: no token: HTTP status {response.status}",
                    status=response.status,
                    hint="the user or the password is wrong, or may not do this",
                )
        fields = parse_document(data, "the token server's answer")
        token = fields.text("token") or fields.text("access_token")
        if not token or not token.isascii() or not token.isprintable():
            raise ImageError(f"{shown(request.url)}: the answer has no token")
        return token
