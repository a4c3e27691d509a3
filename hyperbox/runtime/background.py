"""A container in the background: a process of its own holds it until its end."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hyperbox.errors import HyperboxError
from hyperbox.printing import print_error
from hyperbox.runtime.bundle import Container
from hyperbox.runtime.containers import RUNTIME_FAILED, Ended
from hyperbox.runtime.registry import ContainerRegistry

__all__ = ["in_background"]

_INTERVAL_S = 0.05


def in_background(name: str, container: Container, run: Callable[[], Ended]) -> Ended:
    """Let a new process run a container; return when the command has started, or could not.

    Its output goes to the container's log.

    Parameters
    ----------
    run
        Runs the container to its end, in the new process.
    """
    registry = ContainerRegistry()
    log = registry.keep(name, container)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if not pid:
        os._exit(_held(registry, name, log, run))
    while not os.waitpid(pid, os.WNOHANG)[0]:
        if _started(registry, name):
            return Ended(0)
        time.sleep(_INTERVAL_S)
    found = registry.reason(name)
    if found is not None and not found[1]:  # it has run and ended meanwhile
        return Ended(0)
    status, reason = found or (RUNTIME_FAILED, f"its hyperbox died: see {log}")
    registry.remove(name)
    return Ended(status, reason)


def _started(registry: ContainerRegistry, name: str) -> bool:
    entries = [one for one in registry.entries() if one.name == name and one.state == "running"]
    return bool(entries) and entries[0].runtime().started(name)


def _held(registry: ContainerRegistry, name: str, log: Path, run: Callable[[], Ended]) -> int:
    """Hold a container to its end, in a session of its own; return the exit status."""
    os.setsid()
    descriptors = (os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT, 0o600))
    for number, descriptor in enumerate((*descriptors, descriptors[1])):
        os.dup2(descriptor, number)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        ended = run()
    except HyperboxError as error:
        print_error(error)
        ended = Ended(RUNTIME_FAILED, error.message)
    except BaseException:
        ended = Ended(RUNTIME_FAILED, "hyperbox broke; see the log")
        raise
    finally:
        registry.ended(name, ended.status, ended.reason)
        sys.stdout.flush()
        sys.stderr.flush()
    return ended.status
