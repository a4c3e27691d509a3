"""``hyperbox daemon``: serves this machine's pressure and tuning over HTTP."""

from __future__ import annotations

import argparse
import importlib
import logging
from pathlib import Path

from hyperbox.daemon.listeners import Address, default_socket, parse_address
from hyperbox.daemon.logs import configure
from hyperbox.daemon.options import Options
from hyperbox.errors import ConfigError, ExitCode
from hyperbox.memory.psi import INTERVAL_S
from hyperbox.memory.tuning import TunerOptions
from hyperbox.memory.tuning_options import add_options, options_from

__all__ = ["add_parser"]

_LISTEN = "127.0.0.1:9797"
_NONE = "none"
_OTHERS = {"verb", "run", "socket", "listen", "allow_remote", "verbose", "tune", "interval"}


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "daemon",
        help="serve this machine's pressure over HTTP",
        description="Samples this machine's pressure and serves it on a unix socket and on "
        "loopback TCP: /metrics/memory/psi (JSON), /metrics (Prometheus), /healthz, "
        "/openapi.json. SIGTERM ends it within a second and everything is put back.",
        epilog="exit codes: 0 ended by SIGTERM or SIGHUP, 3 cannot start or put back, "
        "64 bad usage, 130 interrupted (SIGINT)",
    )
    parser.add_argument(
        "--socket",
        metavar="PATH",
        help="unix socket, or 'none' (default: hyperbox.sock below /run/hyperbox, or below "
        "the user's runtime directory)",
    )
    parser.add_argument(
        "--listen",
        action="append",
        metavar="IP:PORT",
        help=f"TCP address, or 'none'; may be repeated (default {_LISTEN})",
    )
    parser.add_argument(
        "--allow-remote",
        action="store_true",
        help="allow --listen to name an address that other machines reach; there is no "
        "authentication",
    )
    parser.add_argument(
        "--tune", action="store_true", help="tune swapping at each sample, as `psi tune` does"
    )
    add_options(parser)
    parser.add_argument(
        "--verbose", action="store_true", help="log what is of use for finding a fault"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    tuner = _tuner(arguments)
    options = Options(
        socket=_socket(arguments.socket),
        listen=_addresses(arguments.listen or [_LISTEN]),
        remote=arguments.allow_remote,
        interval_s=tuner.rules.interval_s if tuner else _interval(arguments),
        tuner=tuner,
    )
    if options.socket is None and not options.listen:
        raise ConfigError("nowhere to listen: both --socket and --listen are none")
    configure(logging.DEBUG if arguments.verbose else logging.INFO)
    service = importlib.import_module("hyperbox.daemon.lifetime")  # its packages are an extra
    interrupted = bool(service.run(options))
    return ExitCode.INTERRUPTED if interrupted else ExitCode.PASS


def _socket(text: str | None) -> Path | None:
    if text is None:
        return default_socket()
    return None if text == _NONE else Path(text).absolute()


def _addresses(texts: list[str]) -> tuple[Address, ...]:
    return tuple(parse_address(text) for text in texts if text != _NONE)


def _tuner(arguments: argparse.Namespace) -> TunerOptions | None:
    """Return how to tune; None if nobody wants it."""
    given = {name for name, value in vars(arguments).items() if value is not None} - _OTHERS
    dry_run = "dry_run" in given
    if arguments.tune and dry_run:
        raise ConfigError("--tune and --dry-run exclude each other")
    if arguments.tune or dry_run:
        return options_from(arguments)
    if given:
        raise ConfigError(
            f"--{min(given).replace('_', '-')} is for tuning", hint="give --tune or --dry-run too"
        )
    return None


def _interval(arguments: argparse.Namespace) -> float:
    text = getattr(arguments, "interval", str(INTERVAL_S))
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.01 <= value <= 86_400:
        raise ConfigError(f"--interval {text!r} is not a time", hint="give 0.01 to 86400 seconds")
    return value
