"""``hyperbox daemon``: serves this machine's pressure and tuning over HTTP."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hyperbox.daemon.listeners import Address, default_socket, parse_address
from hyperbox.daemon.logs import configure
from hyperbox.daemon.options import DAEMON, IMAGES_SOCKET, DaemonOptions, DaemonSettings, Traced
from hyperbox.errors import ConfigError, ExitCode
from hyperbox.memory.psi import INTERVAL_S
from hyperbox.memory.tuning import TunerOptions
from hyperbox.memory.tuning_options import TUNER
from hyperbox.observability.export_target import target
from hyperbox.settings import add_config

__all__ = ["add_parser"]

_NONE = "none"
_TUNING = [one.name for one in TUNER.settings if one.name != "interval"]  # it has its own


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "daemon",
        help="serve this machine's pressure over HTTP",
        description="Samples this machine's pressure and serves it on a unix socket and on "
        "loopback TCP: /metrics/memory/psi (JSON), /metrics (Prometheus), /healthz, "
        "/openapi.json, and /traces with --trace. SIGTERM ends it within a second and everything "
        "is put back.",
        epilog="exit codes: 0 ended by SIGTERM or SIGHUP, 3 cannot start or put back, "
        "64 bad usage, 130 interrupted (SIGINT)",
    )
    DAEMON.add_options(parser)
    add_config(parser)
    TUNER.add_options(parser, _TUNING)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    settings = DAEMON.resolve(arguments)
    tuner = _tuner(arguments, settings)
    interval_s = tuner.rules.interval_s if tuner else settings.interval
    options = DaemonOptions(
        socket=_socket(settings.socket),
        listen=_addresses(settings.listen),
        remote=settings.allow_remote,
        interval_s=interval_s or INTERVAL_S,
        tuner=tuner,
        traced=_traced(settings),
        lazy_images=IMAGES_SOCKET if settings.lazy_images else None,
    )
    if options.socket is None and not options.listen:
        raise ConfigError("nowhere to listen: both --socket and --listen are none")
    configure(logging.DEBUG if settings.verbose else logging.INFO)
    service = importlib.import_module("hyperbox.daemon.lifetime")  # its packages are an extra
    interrupted = bool(service.run(options))
    return ExitCode.INTERRUPTED if interrupted else ExitCode.PASS


def _traced(settings: DaemonSettings) -> Traced | None:
    """Return what to trace; None if nobody wants it."""
    if not settings.trace:
        if settings.trace_cgroup is not None:
            raise ConfigError("--trace-cgroup is for tracing", hint="add --trace")
        if settings.grpc:
            raise ConfigError("--grpc is for tracing", hint="add --trace")
        return None
    cgroup = None if settings.trace_cgroup is None else Path(settings.trace_cgroup)
    if cgroup is not None and not (cgroup / "cgroup.procs").exists():
        raise ConfigError(f"--trace-cgroup: {cgroup} is not a cgroup v2 directory")
    wanted = os.environ.get("OTEL_TRACES_EXPORTER", "otlp")
    if wanted not in ("otlp", "none", ""):
        raise ConfigError(f"OTEL_TRACES_EXPORTER: {wanted!r} is not known", hint="otlp or none")
    grpc = tuple(Path(one) if "/" in one else parse_address(one) for one in settings.grpc)
    collector = None if wanted == "none" else target(os.environ)
    return Traced(cgroup, collector, grpc, settings.trace_budget / 100)


def _socket(text: str | None) -> Path | None:
    if text is None:
        return default_socket()
    return None if text == _NONE else Path(text).absolute()


def _addresses(texts: Sequence[str]) -> tuple[Address, ...]:
    return tuple(parse_address(text) for text in texts if text != _NONE)


def _tuner(arguments: argparse.Namespace, settings: DaemonSettings) -> TunerOptions | None:
    """Return how to tune; None if nobody wants it."""
    own = {name: value for name, value in vars(arguments).items() if name != "interval"}
    tuner = TUNER.resolve(argparse.Namespace(**own))
    if settings.tune and tuner.dry_run:
        raise ConfigError("--tune and --dry-run exclude each other")
    if settings.tune or tuner.dry_run:
        return replace(tuner, interval=settings.interval or tuner.interval).options()
    given = [name for name in _TUNING if name.replace("-", "_") in arguments]
    if given:
        raise ConfigError(f"--{min(given)} is for tuning", hint="add --tune or --dry-run")
    return None
