"""What a real daemon shows too seldom: a signal in the middle of another's handler."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any

from hyperbox.daemon.connections import ConnectionLimits
from hyperbox.daemon.server import _Server
from hyperbox.daemon.service_group import ServiceGroup


def test_a_signal_may_come_in_each_line_of_the_handler() -> None:
    group = ServiceGroup(())
    server = _Server(group, (), ConnectionLimits())
    nested = 0

    def interrupt(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal nested
        frame.f_trace_opcodes = True
        if event == "opcode":
            sys.settrace(None)  # the second signal is not interrupted itself
            nested += 1
            server.end(signal.SIGINT, None)
            sys.settrace(interrupt)
        return interrupt

    def handle() -> None:
        sys.settrace(interrupt)
        server.end(signal.SIGTERM, None)
        sys.settrace(None)

    # A daemon thread: a handler that waits for itself never ends.
    handler = threading.Thread(target=handle, daemon=True)
    handler.start()
    handler.join(60)
    assert not handler.is_alive()
    assert nested > 4
