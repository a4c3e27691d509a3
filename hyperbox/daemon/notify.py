"""Notifies systemd of the state of the daemon, by the datagram protocol of sd_notify(3).

``NOTIFY_SOCKET`` names the socket; without it nothing is sent. A few lines, so that no
library is linked for them.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence

from hyperbox.daemon.logs import fields

__all__ = ["notify"]

_LOG = logging.getLogger(__name__)


def notify(*assignments: str, descriptors: Sequence[int] = ()) -> bool:
    """Send assignments, for example ``READY=1``, and descriptors; return whether they were sent.

    A supervisor that cannot be reached does not stop the daemon: it is logged.
    """
    name = os.environ.get("NOTIFY_SOCKET", "")
    if not name.startswith(("/", "@")):
        return False
    address = "\0" + name[1:] if name[0] == "@" else name
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.connect(address)
            socket.send_fds(channel, ["\n".join(assignments).encode()], list(descriptors))
    except OSError as error:
        _LOG.warning("supervisor not notified", extra=fields(socket=name, why=error.strerror))
        return False
    return True
