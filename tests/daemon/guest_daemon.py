"""Runs in a guest: the daemon beside a client, and what became of both.

``python3 guest_daemon.py [OPTION]...`` starts ``hyperbox daemon`` with the options, asks it,
ends it by SIGTERM, and prints one JSON object.
"""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SOCKET = "/run/hyperbox/hyperbox.sock"
PATIENCE_S = 120.0


class Connection(http.client.HTTPConnection):
    """HTTP over the daemon's unix socket."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(SOCKET)


def get(path: str) -> tuple[int, str]:
    connection = Connection("localhost", timeout=PATIENCE_S)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


def machine() -> dict[str, str]:
    """What the tuner changes ahead of need."""
    return {
        "swaps": Path("/proc/swaps").read_text(),
        "page-cluster": Path("/proc/sys/vm/page-cluster").read_text(),
        "zram": " ".join(sorted(path.name for path in Path("/sys/block").glob("zram*"))),
    }


def settled(tuning: bool) -> tuple[int, dict[str, Any]]:
    """Ask until the tuner, if there is one, has prepared what it prepares."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        status, body = get("/metrics/memory/psi")
        said = json.loads(body)
        if not tuning or any(one["action"] == "prepare" for one in said["tuner"]["decisions"]):
            return status, said
        time.sleep(0.2)
    raise TimeoutError(body)


def main() -> None:
    options = sys.argv[1:]
    before = machine()
    process = subprocess.Popen(
        [sys.executable, "-m", "hyperbox", "daemon", "--listen", "none", *options],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    log = []
    for line in process.stderr:
        log.append(line)
        if "event=listening" in line:
            break
    found: dict[str, Any] = {"before": before}
    found["psi"] = settled("--tune" in options)
    found["health"] = get("/healthz")
    found["metrics"] = get("/metrics")
    found["during"] = machine()
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=PATIENCE_S)
    found["took_s"] = time.monotonic() - asked
    found["status"] = process.returncode
    found["after"] = machine()
    found["log"] = "".join(log) + rest
    print(json.dumps(found))


main()
