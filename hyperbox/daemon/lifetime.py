"""The daemon from its start to its end: listeners, services, web server."""

from __future__ import annotations

import contextlib

from hyperbox.daemon.composition import services
from hyperbox.daemon.connections import ConnectionLimits
from hyperbox.daemon.listeners import tcp_listener, unix_listener
from hyperbox.daemon.options import DaemonOptions
from hyperbox.daemon.server import serve
from hyperbox.daemon.service_group import ServiceGroup

__all__ = ["run"]


def run(options: DaemonOptions, limits: ConnectionLimits | None = None) -> bool:
    """Run the daemon until a signal ends it; return whether it was interrupted (SIGINT).

    Everything is bound before a service starts: a taken port changes nothing on the machine.

    Raises
    ------
    HyperboxError
        If it cannot listen, a service cannot start, or a service could not put things back.
    """
    with contextlib.ExitStack() as stack:
        listeners = [
            stack.enter_context(tcp_listener(address, remote=options.remote))
            for address in options.listen
        ]
        if options.socket is not None:
            listeners.append(stack.enter_context(unix_listener(options.socket)))
        group = stack.enter_context(ServiceGroup(services(options)))
        return serve(group, listeners, limits)
