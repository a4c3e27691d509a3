"""A process that serves one service on a unix socket of its own, for the daemon to ask.

``python3 -m hyperbox.daemon.worker MODULE:CLASS --socket PATH``: the class makes the service.
Run by `hyperbox.daemon.process_service`, or by a systemd unit of its own where it needs more
than the daemon may have, or outlives it (``FileDescriptorStoreMax=``).
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from hyperbox.daemon.listeners import unix_listener
from hyperbox.daemon.logs import configure
from hyperbox.daemon.server import serve
from hyperbox.daemon.service import Service
from hyperbox.daemon.service_group import ServiceGroup
from hyperbox.errors import HyperboxError
from hyperbox.printing import print_error

__all__ = ["load", "main"]


def load(reference: str) -> Service:
    """Make the service that ``MODULE:CLASS`` names."""
    module, _, name = reference.partition(":")
    made: Service = getattr(importlib.import_module(module), name)()
    return made


def main() -> int:
    """Serve until a signal; return the exit status."""
    parser = argparse.ArgumentParser(prog="hyperbox.daemon.worker", description=__doc__)
    parser.add_argument("service", metavar="MODULE:CLASS")
    parser.add_argument("--socket", type=Path, required=True)
    arguments = parser.parse_args()
    configure()
    try:
        with (
            unix_listener(arguments.socket) as listener,
            ServiceGroup((load(arguments.service),)) as group,
        ):
            serve(group, [listener])
    except HyperboxError as error:
        print_error(error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
