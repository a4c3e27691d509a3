"""The load on the network: requests over a shaped link between two networks of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence

from hyperbox.errors import HyperboxError, WorkloadError
from hyperbox.linux.modules import load_module
from hyperbox.linux.namespaces import own_network
from hyperbox.processes import require, run
from suites.harness.load import BackgroundLoad, Ready

__all__ = ["NETWORK"]

_ANSWER = 32 << 10  # bytes that a request of one byte is answered with
_PATIENCE_S = 30.0
_NEAR, _FAR, _PORT = "10.77.0.1", "10.77.0.2", 7700
_SHAPE = (  # one millisecond and 200 Mbit/s each way
    "qdisc add dev {link} root handle 1: netem delay 1ms",
    "qdisc add dev {link} parent 1:1 handle 10: tbf rate 200mbit burst 32k latency 50ms",
)


@contextlib.contextmanager
def _network() -> Iterator[Ready]:
    for module in ("veth", "sch_netem", "sch_tbf"):
        load_module(module)
    own_network()
    with _far_side() as (pid, word):
        _batch("ip", [f"link add near type veth peer name far netns {pid}"])
        word.sendall(b"the link is there\n")
        _bring_up("near", _NEAR)
        _hear(word)
        with socket.create_connection((_FAR, _PORT), timeout=_PATIENCE_S) as link:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield Ready(lambda: _ask(link))


def _ask(link: socket.socket) -> None:
    link.sendall(b"?")
    left = _ANSWER
    while left:
        got = len(link.recv(left))
        if not got:
            raise WorkloadError("the far side hung up")
        left -= got


@contextlib.contextmanager
def _far_side() -> Iterator[tuple[int, socket.socket]]:
    """Return a process in another network, once it is there, and a socket to agree by.

    It dies with this process too: every wait of it has an end.
    """
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        ours.close()
        os._exit(_serve(theirs))
    try:
        theirs.close()
        ours.settimeout(_PATIENCE_S)
        _hear(ours)
        yield pid, ours
    finally:
        ours.close()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _serve(word: socket.socket) -> int:
    """Answer one connection's requests in a network of its own; return the exit status."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    word.settimeout(_PATIENCE_S)
    answer = bytes(_ANSWER)
    try:
        own_network()
        word.sendall(b"here\n")
        _hear(word)
        _bring_up("far", _FAR)
        with socket.create_server((_FAR, _PORT)) as server:
            server.settimeout(_PATIENCE_S)
            word.sendall(b"listening\n")
            link, _ = server.accept()
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while link.recv(1):
                link.sendall(answer)
    except (HyperboxError, OSError) as error:
        print(f"far side: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def _hear(word: socket.socket) -> None:
    if not word.recv(64):
        raise WorkloadError("the other side of the link is gone")


def _bring_up(link: str, address: str) -> None:
    _batch("ip", [f"address add {address}/24 dev {link}", f"link set {link} up"])
    _batch("tc", [line.format(link=link) for line in _SHAPE])


def _batch(program: str, lines: Sequence[str]) -> None:
    """Let ip(8) or tc(8) do all lines at once, in the network of this process."""
    text = "".join(f"{line}\n" for line in lines)
    run([require(program, "iproute2"), "-batch", "-"], timeout=_PATIENCE_S, data=text.encode())


NETWORK = BackgroundLoad(200, _network, warm_up=20)
