"""A link of a given rate and delay inside a guest: two network namespaces, veth and netem.

tc-netem(8) and veth(4). Nothing leaves the guest, so that in the exact lane the link's time is
counted like all other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperbox.linux.modules import load_module
from hyperbox.processes import require, run

__all__ = ["Link", "shaped_link"]

_NAMESPACE, _HERE, _THERE = "server", "10.9.0.1", "10.9.0.2"
_QUEUE = 10_000  # packets: the link is slow, and loses none


@dataclass(frozen=True)
class Link:
    """The link's far end.

    Parameters
    ----------
    address
        IPv4 address of the far end.
    """

    address: str = _THERE

    def there(self, argv: Sequence[str]) -> list[str]:
        """Return the command that runs another one at the far end."""
        return ["ip", "netns", "exec", _NAMESPACE, *argv]

    @property
    def received(self) -> int:
        """Bytes that came over the link so far, headers included."""
        return int(Path("/sys/class/net/near/statistics/rx_bytes").read_text())

    def shape(self, rtt_ms: float, rate_mbit: float) -> None:
        """Let each direction take half the round trip, and carry so many Mb/s."""
        netem = ["netem", "delay", f"{rtt_ms / 2}ms", "rate", f"{rate_mbit}mbit"]
        for prefix, device in (([], "near"), (self.there([]), "far")):
            words = ["tc", "qdisc", "replace", "dev", device, "root", *netem]
            run([*prefix, *words, "limit", str(_QUEUE)], timeout=60)


@contextlib.contextmanager
def shaped_link(rtt_ms: float, rate_mbit: float) -> Iterator[Link]:
    """Make a link for the block.

    Raises
    ------
    KernelFeatureMissing
        If the kernel has no veth or netem.
    """
    for module in ("veth", "sch_netem"):
        load_module(module)
    ip = require("ip", "iproute2")
    link = Link()
    run([ip, "netns", "add", _NAMESPACE], timeout=60)
    try:
        run([ip, "link", "add", "near", "type", "veth", "peer", "name", "far"], timeout=60)
        run([ip, "link", "set", "far", "netns", _NAMESPACE], timeout=60)
        for prefix, device, address in (([], "near", _HERE), (link.there([]), "far", _THERE)):
            run([*prefix, "ip", "address", "add", f"{address}/24", "dev", device], timeout=60)
            run([*prefix, "ip", "link", "set", device, "up"], timeout=60)
        run(link.there(["ip", "link", "set", "lo", "up"]), timeout=60)
        link.shape(rtt_ms, rate_mbit)
        yield link
    finally:
        run([ip, "netns", "delete", _NAMESPACE], timeout=60)  # its end of the link goes with it
