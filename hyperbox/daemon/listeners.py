"""Sockets that the daemon listens on: a unix socket and TCP, loopback unless allowed otherwise."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import ipaddress
import os
import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hyperbox.errors import ConfigError, HyperboxError

__all__ = [
    "BACKLOG",
    "Address",
    "ListenError",
    "default_socket",
    "may_listen",
    "parse_address",
    "tcp_listener",
    "unix_listener",
    "unix_place",
]

SOCKET_MODE = 0o660
BACKLOG = 128
"""Connections that wait to be accepted."""

_LONGEST_PATH = 107  # bytes: sun_path of unix(7) less its NUL
_PATIENCE_S = 5.0


class ListenError(HyperboxError):
    """The daemon cannot listen where it was asked to."""


@dataclass(frozen=True)
class Address:
    """An IP address and a port; port 0 lets the kernel choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return ipaddress.ip_address(self.host).is_loopback


def parse_address(text: str) -> Address:
    """Parse ``127.0.0.1:9797``, ``[::1]:9797`` or ``localhost:9797``.

    Raises
    ------
    ConfigError
        If it is none of these.
    """
    host, colon, port = text.rpartition(":")
    name = "127.0.0.1" if host == "localhost" else host
    if name.startswith("[") and name.endswith("]"):
        name = name[1:-1]
    elif ":" in name:
        name = ""  # an IPv6 address without brackets: where does its port begin?
    try:
        number = int(port) if port.isascii() and port.isdigit() else -1
        parsed = ipaddress.ip_address(name)
    except ValueError:
        number, parsed = -1, ipaddress.ip_address("::")
    if not colon or not 0 <= number <= 65_535:
        raise ConfigError(
            f"{text!r} is not an address to listen on",
            hint="give IP:PORT, for example 127.0.0.1:9797 or [::1]:9797",
        )
    return Address(str(parsed), number)


def default_socket() -> Path:
    """Return the unix socket's path: below the directory of systemd, of root, or of the user."""
    given = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given) / "hyperbox.sock"
    if os.geteuid() == 0:
        return Path("/run/hyperbox/hyperbox.sock")
    named = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    runtime = named if named.is_absolute() else Path(f"/run/user/{os.geteuid()}")
    return runtime / "hyperbox" / "hyperbox.sock"


def may_listen(address: Address, *, remote: bool) -> None:
    """Refuse an address that other machines can reach, unless that is allowed.

    Raises
    ------
    ConfigError
        With what to do.
    """
    if not address.loopback and not remote:
        raise ConfigError(
            f"{address} can be reached from other machines, and there is no authentication",
            hint="listen on 127.0.0.1, or allow it with --allow-remote",
        )


@contextlib.contextmanager
def tcp_listener(address: Address, *, remote: bool = False) -> Iterator[socket.socket]:
    """Listen on TCP for the block.

    Parameters
    ----------
    remote
        Whether an address that other machines can reach is allowed.

    Raises
    ------
    ConfigError
        If it is such an address and not allowed.
    ListenError
        If the port is taken, or this machine has no such address.
    """
    may_listen(address, remote=remote)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    kind = socket.SOCK_STREAM | socket.SOCK_CLOEXEC
    # The protocol by name: asyncio switches Nagle's algorithm off only for sockets that have
    # it, and with it every answer on a kept connection would wait 40 ms for an ACK.
    with socket.socket(family, kind, socket.IPPROTO_TCP) as listener:
        # Connections of a daemon that has just ended must not keep the port from the next.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address.host, address.port))
            listener.listen(BACKLOG)
        except OSError as error:
            raise _explained(error, str(address)) from error
        yield listener


@contextlib.contextmanager
def unix_listener(path: Path) -> Iterator[socket.socket]:
    """Listen on a unix socket (mode 0660) for the block; it is removed after.

    The socket of a daemon that has died is replaced.

    Raises
    ------
    ListenError
        If another daemon serves there, something else lies there, or the directory cannot
        be used.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    with listener, contextlib.ExitStack() as stack:
        with unix_place(path, stack):
            listener.bind(os.fspath(path))
            listener.listen(BACKLOG)
        yield listener


@contextlib.contextmanager
def unix_place(path: Path, until: contextlib.ExitStack) -> Iterator[None]:
    """Make place for a unix socket, mode 0660, that is bound in the block.

    It is removed when `until` is left.

    Raises
    ------
    ConfigError
        If the path is too long.
    ListenError
        If another daemon serves there, something else lies there, or the directory cannot
        be used.
    """
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ConfigError(f"{path} is too long for a socket: at most {_LONGEST_PATH} bytes")
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with _alone_in(path.parent):
            _clear(path)
            # Never accessible to others, not for a moment; only this thread makes files by now.
            before = os.umask(0o777 & ~SOCKET_MODE)
            try:
                yield
            finally:
                os.umask(before)
            until.callback(_remove, path, path.lstat())
    except OSError as error:
        raise _explained(error, str(path)) from error


@contextlib.contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Hold the directory's lock: of two daemons that start at once, one finds the other."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while not _locked(handle):
            if time.monotonic() > deadline:
                raise ListenError(f"{directory} is locked by another program")
            time.sleep(0.01)
        yield
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _clear(path: Path) -> None:
    """Remove a socket that nobody serves."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ListenError(f"{path} is there and is not a socket", hint="give another --socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        answer = probe.connect_ex(os.fspath(path))
    if answer != errno.ECONNREFUSED:  # EAGAIN: somebody serves, and is busy
        raise ListenError(f"another daemon serves {path}", hint="stop it, or give another --socket")
    path.unlink(missing_ok=True)


def _remove(path: Path, ours: os.stat_result) -> None:
    """Remove our socket, and not one that has taken its place."""
    with contextlib.suppress(OSError):
        found = path.lstat()
        if (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino):
            path.unlink()


def _explained(error: OSError, where: str) -> ListenError:
    message = f"cannot listen on {where}: {error.strerror or error}"
    hint = ""
    if error.errno == errno.EADDRINUSE:
        hint = "another program listens there; stop it, or give another port with --listen"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = "give a place of your own with --socket and a port above 1023 with --listen"
    return ListenError(message, hint=hint)
