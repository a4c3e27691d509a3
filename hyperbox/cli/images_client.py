"""Questions to the images service, over its unix socket."""

from __future__ import annotations

import http.client
import json
import os
import socket
from pathlib import Path
from typing import Any

from hyperbox.errors import KernelFeatureMissing, WorkloadError
from hyperbox.foreign import parse_json

__all__ = ["ask_images"]

_PATIENCE_S = 60.0


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))


def ask_images(service: Path, method: str, target: str, body: object = None) -> Any:
    """Return what the images service answers.

    Raises
    ------
    KernelFeatureMissing
        If the kernel cannot do it.
    WorkloadError
        If there is none, or it refuses.
    """
    data = None if body is None else json.dumps(body)
    connection = _Connection(service)
    try:
        connection.request(
            method, target, data, {"Content-Type": "application/json"} if data else {}
        )
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise WorkloadError(
            f"the images service does not answer at {service}: {error}",
            hint="start it: hyperbox daemon --lazy-images",
        ) from error
    finally:
        connection.close()
    try:
        said = parse_json(text) if text else None
    except ValueError as error:
        raise WorkloadError(f"the images service: not JSON: {error}") from error
    if answer.status >= 300:
        detail = said.get("detail", "") if isinstance(said, dict) else ""
        if answer.status == 501:
            raise KernelFeatureMissing(detail, hint="pull the image whole")
        raise WorkloadError(f"the images service refuses ({answer.status}): {detail}")
    return said
