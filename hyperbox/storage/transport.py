"""HTTP with what registries need: retries with back-off, redirects that keep secrets at home.

urllib3 makes the connections: unlike httpx it leaves redirects and Range to the caller, hands out
bodies as they are on the wire, can stop a read from another thread, and needs no other package,
so that guests can have it. A redirect keeps ``Authorization`` for the same origin only.
"""

from __future__ import annotations

import contextlib
import email.utils
import random
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, LocationParseError, SSLError

from hyperbox.errors import ConfigError, ImageError

__all__ = [
    "Fault",
    "Options",
    "Request",
    "Response",
    "Transport",
    "origin",
    "retry_after",
    "shown",
]

Response = urllib3.BaseHTTPResponse
T = TypeVar("T")

_REDIRECTS = (301, 302, 303, 307, 308)
_TRANSIENT = (408, 429, 500, 502, 503, 504)
_MOST_REDIRECTS = 10
_CONNECT_S, _READ_S = 10.0, 30.0
_FIRST_WAIT_S, _MOST_WAIT_S = 0.5, 30.0
_MOST_RETRY_AFTER_S = 300.0
_MOST_DRAINED = 64 << 10
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Options:
    """How registries are reached.

    Parameters
    ----------
    plain_http
        Whether HTTP without TLS is used; None: with this machine only.
    ca_file
        Certificates to trust instead of the system's.
    attempts
        Failures in a row, each without a byte of progress, until an error.
    first_wait_s
        Seconds of the first wait after a failure; each one after it is twice as long.
    """

    plain_http: bool | None = None
    ca_file: Path | None = None
    attempts: int = 6
    first_wait_s: float = _FIRST_WAIT_S


class Fault(ImageError):
    """A request that failed.

    Parameters
    ----------
    status
        Of the answer; 0 if there was none.
    is_transient
        Whether it may succeed when it is made again.
    wait_s
        Seconds after which the server wants to be asked again; None if it did not say.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        is_transient: bool = False,
        wait_s: float | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.is_transient = is_transient
        self.wait_s = wait_s


@dataclass(frozen=True)
class Request:
    """What is asked of which server; `authorization` goes to the server of `url` only."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    authorization: str = field(default="", repr=False)
    body: bytes | Callable[[], Iterable[bytes]] | None = None


class Transport:
    """A pool of connections, shared by the threads of a pull; `stop` ends all that wait.

    Parameters
    ----------
    connections
        Per server, at once.
    """

    def __init__(self, options: Options, *, connections: int = 8) -> None:
        self.options = options
        self._connections = connections
        self._stopped = threading.Event()
        self._pools: dict[tuple[str, bool], urllib3.PoolManager] = {}
        self._lock = threading.Lock()
        self._open: set[Response] = set()

    def stop(self) -> None:
        """End every request that another thread is waiting for, with an error there."""
        self._stopped.set()
        with self._lock:
            waiting = tuple(self._open)
        for response in waiting:
            with contextlib.suppress(Exception):  # it may be closed by now, or have no socket
                response.shutdown()

    def go_on(self) -> None:
        """Allow requests again after `stop`, when all that waited have ended."""
        self._stopped.clear()

    def check(self) -> None:
        """Raise if `stop` was called."""
        if self._stopped.is_set():
            raise ImageError("stopped")

    def pause(self, seconds: float) -> None:
        """Wait; as `check`."""
        self._stopped.wait(seconds)
        self.check()

    def persist(self, once: Callable[[], T], progress: Callable[[], int] = lambda: 0) -> T:
        """Call `once` until it succeeds, with growing waits after transient faults.

        Parameters
        ----------
        progress
            Bytes so far: a failure after more of them than before counts as the first.

        Raises
        ------
        Fault
            The last one, when it is not transient or there were too many.
        """
        failures, reached = 0, progress()
        while True:
            self.check()
            try:
                return once()
            except Fault as fault:
                self.check()
                now = progress()
                failures = 1 if now > reached else failures + 1
                reached = max(reached, now)
                if not fault.is_transient or failures >= self.options.attempts:
                    raise
                self._stopped.wait(_wait_s(fault, failures, self.options.first_wait_s))

    @contextlib.contextmanager
    def send(self, request: Request, *, redirects: bool = True) -> Iterator[Response]:
        """Send a request once; yield the answer, whose body is unread, after redirects.

        Faults of the connection while the block reads the body become a `Fault`, too.

        Raises
        ------
        Fault
            If there is no answer, a server error, or a redirect to where nobody should go.
        """
        url, method = request.url, request.method
        with contextlib.ExitStack() as stack:
            try:
                for _ in range(_MOST_REDIRECTS):
                    response = stack.enter_context(self._answer(request, method, url))
                    location = response.headers.get("Location")
                    if not redirects or response.status not in _REDIRECTS or not location:
                        _refuse_transient(response, url)
                        yield response
                        return
                    url = self._followed(url, location)
                    stack.pop_all().close()
            except (HTTPError, OSError) as error:
                self.check()
                raise _explained(error, url) from error
        raise Fault(f"{shown(request.url)}: more than {_MOST_REDIRECTS} redirects")

    @contextlib.contextmanager
    def _answer(self, request: Request, method: str, url: str) -> Iterator[Response]:
        headers = {
            "User-Agent": "hyperbox",
            "Accept-Encoding": "identity",
            **request.headers,
        }
        if request.authorization and origin(url) == origin(request.url):
            headers["Authorization"] = request.authorization
        body = request.body() if callable(request.body) else request.body
        response = self._pool(url).request(
            method,
            url,
            headers=headers,
            body=body,
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
        )
        with self._lock:
            self._open.add(response)
        try:
            yield response
        finally:
            with self._lock:
                self._open.discard(response)
            _finish(response)

    def _followed(self, url: str, location: str) -> str:
        """Return where a redirect leads, if it may be followed."""
        try:
            found = urljoin(url, location)
            scheme, host = urlsplit(found).scheme, origin(found)[1]
        except ValueError:
            scheme = host = ""
        if scheme not in _PORTS or not host:
            raise Fault(f"{shown(url)}: redirected to what is not a web address")
        if scheme == "http" and urlsplit(url).scheme == "https":
            raise Fault(f"{shown(url)}: redirected from TLS to plain HTTP at {shown(found)}")
        return found

    def _pool(self, url: str) -> urllib3.PoolManager:
        proxy = _proxy(url)
        key = (proxy, url.startswith("https:") or proxy.startswith("https:"))
        with self._lock:
            if key not in self._pools:
                self._pools[key] = self._new_pool(*key)
            return self._pools[key]

    def _new_pool(self, proxy: str, tls: bool) -> urllib3.PoolManager:
        timeout = urllib3.Timeout(connect=_CONNECT_S, read=_READ_S)
        # The system's certificates take longer to read than a small image to come.
        context = self._context() if tls or self.options.ca_file is not None else None
        if proxy:
            return urllib3.ProxyManager(
                proxy, maxsize=self._connections, timeout=timeout, ssl_context=context
            )
        return urllib3.PoolManager(maxsize=self._connections, timeout=timeout, ssl_context=context)

    def _context(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.options.ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(f"{self.options.ca_file}: no certificates: {error}") from error


def origin(url: str) -> tuple[str, str, int]:
    """Return what must be equal for two addresses to be one server: scheme, host and port."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme, 0)


def shown(url: str) -> str:
    """Return an address without what may be secret: user, password, query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:300]


def retry_after(text: str | None, now_s: float) -> float | None:
    """Return the seconds that a ``Retry-After`` header means: a number or a date; None if neither.

    Parameters
    ----------
    now_s
        Seconds since the epoch.
    """
    if text is None:
        return None
    digits = text.strip()
    if digits.isascii() and digits.isdecimal() and len(digits) < 10:
        return float(digits)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now_s)
    except (ValueError, OverflowError):
        return None


def _wait_s(fault: Fault, failures: int, first_s: float) -> float:
    """Return how long to wait: what the server says, else twice as long each time, with jitter."""
    if fault.wait_s is not None:
        return fault.wait_s
    longest = min(first_s * 2.0 ** (failures - 1), _MOST_WAIT_S)
    return longest * random.uniform(0.5, 1)  # noqa: S311 - keeps clients apart


def _finish(response: Response) -> None:
    """Let the connection serve again if what is left to read is little; else end it."""
    remaining = response.length_remaining
    if remaining is not None and remaining <= _MOST_DRAINED:
        with contextlib.suppress(HTTPError, OSError):
            response.drain_conn()  # an empty body has to be read, too
    elif not response.closed:
        response.close()
    response.release_conn()


def _refuse_transient(response: Response, url: str) -> None:
    if response.status not in _TRANSIENT:
        return
    wait_s = retry_after(response.headers.get("Retry-After"), time.time())
    patient = wait_s is None or wait_s <= _MOST_RETRY_AFTER_S
    raise Fault(
        f"{shown(url)}: HTTP status {response.status}",
        status=response.status,
        is_transient=patient,
        wait_s=wait_s,
        hint="" if patient else f"the server wants to be asked again in {wait_s:.0f} s",
    )


def _explained(error: Exception, url: str) -> Fault:
    """Return a failure of the connection in one line."""
    if isinstance(error, LocationParseError):
        return Fault(f"{shown(url)}: not a web address")
    reason = str(error).rpartition(": ")[2] or type(error).__name__
    if isinstance(error, SSLError):
        return Fault(
            f"{shown(url)}: no TLS connection: {reason}",
            hint="for a certificate of your own: --ca-file; without TLS: --plain-http",
        )
    return Fault(f"{shown(url)}: {reason}", is_transient=True)


def _proxy(url: str) -> str:
    """Return the proxy that the environment names for an address; empty for none."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in ("localhost", "::1") or host.startswith("127."):
        return ""
    if urllib.request.proxy_bypass_environment(host):  # type: ignore[attr-defined]
        return ""
    return urllib.request.getproxies_environment().get(parts.scheme, "")
