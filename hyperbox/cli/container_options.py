"""Options that describe a container: its root, process, limits and mounts."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from hyperbox.errors import ConfigError
from hyperbox.isolation.default_profile import CAPABILITIES
from hyperbox.runtime.bundle import BindMount, Container, User

__all__ = ["add_container_options", "container_of"]

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def add_container_options(parser: argparse.ArgumentParser, *, images: bool = False) -> None:
    """Add the options of `container_of`, and the command; with `images` also ``--image``."""
    root = parser.add_mutually_exclusive_group(required=True)
    root.add_argument("--rootfs", type=Path, metavar="DIR", help="the root file system; written to")
    if images:
        root.add_argument(
            "--image",
            metavar="IMAGE",
            help="an image of the store; what is written is in memory and lost at the end",
        )
    parser.add_argument("--read-only", action="store_true", help="mount it read-only")
    _add_process_options(parser)
    parser.add_argument(
        "command",
        nargs="*" if images else "+",
        metavar="COMMAND",
        help="and its arguments" + ("; default: the image's" if images else ""),
    )


def container_of(arguments: argparse.Namespace) -> Container:
    """Return the container that the options describe, under no profile.

    Raises
    ------
    ConfigError
        If one of them is wrong.
    """
    if arguments.rootfs is not None and not arguments.command:
        raise ConfigError("no command", hint="--rootfs DIR -- COMMAND")
    return Container(
        rootfs=(arguments.rootfs or Path()).resolve(),
        command=tuple(arguments.command),
        environment=dict(_pair(text) for text in arguments.env),
        directory=arguments.workdir or ("/" if arguments.rootfs else ""),
        user=arguments.user or User(),
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


def _add_process_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--env", "-e", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument(
        "--workdir", "-w", default="", metavar="DIR", help="default: the image's, else /"
    )
    parser.add_argument("--user", "-u", type=_user, metavar="UID[:GID]")
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


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise ConfigError(f"--env {text}: NAME=VALUE is expected")
    return name, value


def _capabilities(added: list[str], dropped: list[str]) -> frozenset[str]:
    def known(name: str) -> str:
        whole = name.upper() if name.upper().startswith("CAP_") else f"CAP_{name.upper()}"
        if not re.fullmatch(r"CAP_[A-Z_]+", whole):
            raise ConfigError(f"{name} is not a capability", hint="see capabilities(7)")
        return whole

    base = frozenset() if "ALL" in (name.upper() for name in dropped) else CAPABILITIES
    gone = {known(name) for name in dropped if name.upper() != "ALL"}
    return (base - gone) | {known(name) for name in added}


def _user(text: str) -> User:
    uid, _, gid = text.partition(":")
    if not uid.isdecimal() or not (gid or "0").isdecimal():
        raise argparse.ArgumentTypeError("numbers are expected: UID or UID:GID")
    return User(int(uid), int(gid or 0))


def _mount(text: str) -> BindMount:
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not source or not target.startswith("/") or mode not in ("", "ro", "rw"):
        raise argparse.ArgumentTypeError("SOURCE:/TARGET or SOURCE:/TARGET:ro is expected")
    if not Path(source).exists():
        raise argparse.ArgumentTypeError(f"{source} does not exist")
    return BindMount(Path(source).resolve(), target, mode != "ro")


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
