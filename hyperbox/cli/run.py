"""``hyperbox run``: a command in a container, optionally learning or enforcing its profile."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from hyperbox.cli.seccomp import add_store_option, print_learned, read_profile
from hyperbox.errors import ConfigError
from hyperbox.isolation.bpf_recorder import BpfRecorder
from hyperbox.isolation.default_profile import CAPABILITIES, default_profile
from hyperbox.isolation.learning import learn
from hyperbox.isolation.profile import Profile
from hyperbox.isolation.store import ProfileStore
from hyperbox.linux.cgroup import cgroup
from hyperbox.printing import complain
from hyperbox.runtime.bundle import Container, Mount, User
from hyperbox.runtime.containers import Ended, RunningContainer, prepared

__all__ = ["add_parser"]

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "run",
        help="run a command in a container, learning or enforcing its seccomp profile",
        description="Runs COMMAND in a container on the root file system DIR, in the foreground, "
        "with crun or runc. Its exit code is the command's (128+n for signal n); 125 if the "
        "runtime failed, 126 if the command cannot be executed, 127 if there is none.",
        epilog="example: hyperbox run --rootfs ./rootfs --learn-seccomp=web -- /usr/bin/web --test",
    )
    parser.add_argument(
        "--rootfs", type=Path, required=True, metavar="DIR", help="the root file system; written to"
    )
    parser.add_argument("--read-only", action="store_true", help="mount it read-only")
    profile = parser.add_mutually_exclusive_group()
    profile.add_argument(
        "--learn-seccomp",
        nargs="?",
        const="",
        metavar="NAME",
        help="record the system calls of the run and add them to profile NAME "
        "(default: the command's name)",
    )
    profile.add_argument(
        "--seccomp",
        default="default",
        metavar="PROFILE",
        help="default, unconfined, a name of the store, or a file (default: default)",
    )
    add_store_option(parser)
    parser.add_argument("--runtime", choices=("crun", "runc"), help="default: what works here")
    _add_process_options(parser)
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="and its arguments")
    parser.set_defaults(run=_run)


def _add_process_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--env", "-e", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--workdir", "-w", default="/", metavar="DIR", help="default: /")
    parser.add_argument("--user", "-u", type=_user, default=User(), metavar="UID[:GID]")
    parser.add_argument("--hostname", default="hyperbox", metavar="NAME")
    parser.add_argument(
        "--volume",
        "-v",
        action="append",
        default=[],
        type=_mount,
        metavar="SOURCE:TARGET[:ro]",
        help="bind a directory or file of this machine",
    )
    parser.add_argument(
        "--memory", "-m", type=_bytes, metavar="BYTES", help="limit; suffix k, m, g"
    )
    parser.add_argument("--cpus", type=_cpus, metavar="N", help="limit in processors, e.g. 0.5")
    parser.add_argument("--tty", "-t", action="store_true", help="give the command a terminal")
    parser.add_argument("--no-new-privileges", action="store_true")
    parser.add_argument(
        "--network", choices=("none", "host"), default="none", help="default: loopback only"
    )
    parser.add_argument("--cap-add", action="append", default=[], metavar="CAP")
    parser.add_argument("--cap-drop", action="append", default=[], metavar="CAP")


def _run(arguments: argparse.Namespace) -> int:
    store = ProfileStore(arguments.store)
    learning = arguments.learn_seccomp
    name = "" if learning is None else learning or _name_of(arguments.command[0])
    profile = default_profile() if name else _profile(arguments.seccomp, store)
    container = replace(_container(arguments), seccomp=profile)
    with prepared(container, runtime=arguments.runtime) as running:
        ended = _learned(running, store, name) if name else running.run()
    if ended.reason:
        complain(f"hyperbox: the command was not started: {ended.reason}")
    return ended.status


def _learned(running: RunningContainer, store: ProfileStore, name: str) -> Ended:
    with _recorder(running) as recorder:
        ended = running.run()
        recording = recorder.recording(str(ended))
    if ended.reason:
        return ended
    facts = {"runtime": running.runtime.version(), "machine": platform.machine()}
    recording = replace(recording, environment={**recording.environment, **facts})
    print_learned(learn(store, name, recording), sys.stderr)
    return ended


@contextlib.contextmanager
def _recorder(running: RunningContainer) -> Iterator[BpfRecorder]:
    with (
        cgroup(running.cgroups_path.strip("/")) as group,
        BpfRecorder(group.directory) as recorder,
    ):
        yield recorder


def _container(arguments: argparse.Namespace) -> Container:
    return Container(
        rootfs=arguments.rootfs.resolve(),
        command=tuple(arguments.command),
        environment=dict(_pair(text) for text in arguments.env),
        directory=arguments.workdir,
        user=arguments.user,
        hostname=arguments.hostname,
        writable=not arguments.read_only,
        mounts=tuple(arguments.volume),
        memory=arguments.memory,
        cpus=arguments.cpus,
        capabilities=_capabilities(arguments.cap_add, arguments.cap_drop),
        no_new_privileges=arguments.no_new_privileges,
        terminal=arguments.tty,
        host_network=arguments.network == "host",
    )


def _profile(chosen: str, store: ProfileStore) -> Profile | None:
    if chosen == "unconfined":
        return None
    if chosen == "default":
        return default_profile()
    if "/" in chosen or chosen.endswith(".json"):
        return read_profile(Path(chosen))
    return store.load(chosen).profile


def _name_of(command: str) -> str:
    name = re.sub(r"[^a-z0-9._-]", "-", os.path.basename(command).lower())[:63]  # noqa: PTH119
    return name.lstrip("._-") or "container"


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise ConfigError(f"--env {text}: NAME=VALUE is expected")
    return name, value


def _capabilities(added: list[str], dropped: list[str]) -> frozenset[str]:
    def known(name: str) -> str:
        whole = name.upper() if name.upper().startswith("CAP_") else f"CAP_{name.upper()}"
        if not re.fullmatch(r"CAP_[A-Z_]+", whole):
            raise ConfigError(f"{name} is no capability", hint="see capabilities(7)")
        return whole

    base = frozenset() if "ALL" in (name.upper() for name in dropped) else CAPABILITIES
    gone = {known(name) for name in dropped if name.upper() != "ALL"}
    return (base - gone) | {known(name) for name in added}


def _user(text: str) -> User:
    uid, _, gid = text.partition(":")
    if not uid.isdecimal() or not (gid or "0").isdecimal():
        raise argparse.ArgumentTypeError("numbers are expected: UID or UID:GID")
    return User(int(uid), int(gid or 0))


def _mount(text: str) -> Mount:
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not source or not target.startswith("/") or mode not in ("", "ro", "rw"):
        raise argparse.ArgumentTypeError("SOURCE:/TARGET or SOURCE:/TARGET:ro is expected")
    if not Path(source).exists():
        raise argparse.ArgumentTypeError(f"{source} does not exist")
    return Mount(Path(source).resolve(), target, mode != "ro")


def _bytes(text: str) -> int:
    found = re.fullmatch(r"([0-9]+)([kmg]?)b?", text.lower())
    if not found or not int(found[1]):
        raise argparse.ArgumentTypeError("a size such as 512m is expected")
    return int(found[1]) * _UNITS[found[2]]


def _cpus(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.01 <= value <= 4096:
        raise argparse.ArgumentTypeError("a number of processors from 0.01 is expected")
    return value
