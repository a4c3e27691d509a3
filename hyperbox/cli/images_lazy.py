"""``hyperbox images`` for images that are not here yet: mounts, complete, prefetch, cache."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.filesize import decimal
from rich.table import Table

from hyperbox.console import TerminalConsole
from hyperbox.daemon.options import IMAGES_SOCKET
from hyperbox.errors import ConfigError, ExitCode, ImageError, WorkloadError
from hyperbox.foreign import parse_json, read_json
from hyperbox.printing import legible
from hyperbox.settings import add_config
from hyperbox.storage.image_settings import IMAGES
from hyperbox.storage.lazy.mechanism import Mechanism
from hyperbox.storage.lazy.registry_source import RegistrySource
from hyperbox.storage.platforms import machine_platform
from hyperbox.storage.pull import connect, resolve
from hyperbox.storage.reference import parse_reference

__all__ = ["add_lazy_verbs"]

_PATIENCE_S = 60.0
_EROFS = "application/vnd.erofs"
_TYPES = (_EROFS, f"{_EROFS}+zstd", f"{_EROFS}.layer.v1", f"{_EROFS}.layer.v1+zstd")


def add_lazy_verbs(below: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verbs below ``images``."""
    lazy = _verb(below, "mount-lazy", "mount an image of a registry before it is here", _mount)
    lazy.add_argument("image", metavar="IMAGE", help="[REGISTRY[:PORT]/]NAME[:TAG][@DIGEST]")
    lazy.add_argument("point", metavar="DIR", type=Path)
    lazy.add_argument(
        "--mechanism",
        choices=[str(one) for one in Mechanism],
        help="how the kernel asks for what is missing (default: the first that works)",
    )
    _verb(below, "mounts", "lazy mounts: how each is served, what is here of it", _mounts)
    done = _verb(below, "complete", "fetch the rest of a lazy mount in the background", _complete)
    done.add_argument("name", metavar="NAME", help="as 'images mounts' has it")
    done.add_argument("--rate", type=int, default=0, metavar="BYTES", help="a second, at most")
    ahead = _verb(below, "prefetch", "fetch what an earlier start has read", _prefetch)
    ahead.add_argument("name", metavar="NAME")
    ahead.add_argument("trace", metavar="FILE", type=Path, help="what 'images trace' printed")
    trace = _verb(below, "trace", "print which chunks readers have missed, in order", _trace)
    trace.add_argument("name", metavar="NAME")
    gone = _verb(below, "umount-lazy", "take a lazy mount away", _unmount)
    gone.add_argument("name", metavar="NAME")
    kept = _verb(below, "cache", "what is cached of lazy images, and whether it is in use", _cache)
    kept.add_argument(
        "--keep",
        type=int,
        metavar="BYTES",
        help="take what nobody uses, the longest unused first, until the rest has so many bytes",
    )


def _verb(
    below: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    parser = below.add_parser(name, help=summary, description=summary[0].upper() + summary[1:])
    IMAGES.add_options(parser)
    add_config(parser)
    parser.add_argument(
        "--service",
        type=Path,
        default=IMAGES_SOCKET,
        metavar="PATH",
        help=f"unix socket of the images service (default: {IMAGES_SOCKET})",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    return parser


def _mount(arguments: argparse.Namespace) -> int:
    settings = IMAGES.resolve(arguments)
    reference = parse_reference(arguments.image)
    registry = connect(reference, settings.options())
    _, _, manifest = resolve(registry, machine_platform())
    if len(manifest.layers) != 1 or manifest.layers[0].media_type not in _TYPES:
        raise ImageError(
            f"{arguments.image} is not an image of one EROFS layer", hint="pull it whole"
        )
    layer = manifest.layers[0]
    wanted = {
        "name": layer.digest.partition(":")[2][:12],
        "point": os.fspath(arguments.point.absolute()),
        "media_type": layer.media_type,
        "size": layer.size,
        "annotations": dict(layer.annotations),
        "sources": [RegistrySource.name_of(reference, layer)],
    }
    if arguments.mechanism:
        wanted["mechanism"] = arguments.mechanism
    made = _ask(arguments, "POST", "/images/mounts", wanted)
    if arguments.json:
        print(json.dumps(made))
    else:
        print(legible(f"{made['name']}: {made['reason']}"))
    return ExitCode.PASS


def _mounts(arguments: argparse.Namespace) -> int:
    found = _ask(arguments, "GET", "/images/mounts")
    if arguments.json:
        print(json.dumps(found))
        return ExitCode.PASS
    table = Table("Name", "At", "Served by", "Phase", "Missing", "Fetched", "Hits", "Misses")
    for one in found:
        sizes = [decimal(int(one.get(name, 0))) for name in ("missing_bytes", "fetched")]
        counts = [str(one.get(name, 0)) for name in ("hits", "misses")]
        table.add_row(one["name"], one["point"], one["mechanism"], one["phase"], *sizes, *counts)
    TerminalConsole().print(table if found else "no lazy mounts")
    return ExitCode.PASS


def _complete(arguments: argparse.Namespace) -> int:
    _ask(
        arguments, "POST", f"/images/mounts/{_quoted(arguments)}/complete", {"rate": arguments.rate}
    )
    return ExitCode.PASS


def _prefetch(arguments: argparse.Namespace) -> int:
    wanted = {"chunks": read_json(arguments.trace, refusal=ConfigError)}
    _ask(arguments, "POST", f"/images/mounts/{_quoted(arguments)}/prefetch", wanted)
    return ExitCode.PASS


def _trace(arguments: argparse.Namespace) -> int:
    print(json.dumps(_ask(arguments, "GET", f"/images/mounts/{_quoted(arguments)}/order")))
    return ExitCode.PASS


def _unmount(arguments: argparse.Namespace) -> int:
    _ask(arguments, "DELETE", f"/images/mounts/{_quoted(arguments)}")
    return ExitCode.PASS


def _cache(arguments: argparse.Namespace) -> int:
    if arguments.keep is not None:
        if arguments.keep < 0:
            raise ConfigError(f"--keep {arguments.keep}: bytes are 0 or more")
        gone = _ask(arguments, "DELETE", f"/images/cache?keep={arguments.keep}")
        freed = f"{len(gone['keys'])} images gone, {decimal(gone['bytes_freed'])} freed"
        if arguments.json:
            print(json.dumps(gone))
        else:
            print(legible(freed))
        return ExitCode.PASS
    found = _ask(arguments, "GET", "/images/cache")
    if arguments.json:
        print(json.dumps(found))
        return ExitCode.PASS
    table = Table("Image", "Size", "On disk", "Chunks", "In use")
    for one in found:
        chunks = f"{one['present']} of {one['chunks']}"
        used = "yes" if one["in_use"] else "no"
        table.add_row(one["key"][:12], decimal(one["size"]), decimal(one["on_disk"]), chunks, used)
    TerminalConsole().print(table if found else "nothing is cached")
    return ExitCode.PASS


def _quoted(arguments: argparse.Namespace) -> str:
    return urllib.parse.quote(arguments.name, safe="")


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))


def _ask(arguments: argparse.Namespace, method: str, target: str, body: object = None) -> Any:
    """Return what the images service answers.

    Raises
    ------
    WorkloadError
        If there is none, or it refuses.
    """
    data = None if body is None else json.dumps(body)
    connection = _Connection(arguments.service)
    try:
        connection.request(
            method, target, data, {"Content-Type": "application/json"} if data else {}
        )
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise WorkloadError(
            f"the images service does not answer at {arguments.service}: {error}",
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
        raise WorkloadError(f"the images service refuses ({answer.status}): {detail}")
    return said
