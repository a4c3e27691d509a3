"""The group: starts and stops services, and knows how each is."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from hyperbox.daemon.logs import fields
from hyperbox.daemon.service import Service, ServiceState, Status
from hyperbox.errors import HyperboxError, KernelFeatureMissing

__all__ = ["ServiceGroup"]

_LOG = logging.getLogger(__name__)


class ServiceGroup:
    """Services with one life: all start, in order, before anything is served; all stop, in reverse.

    A service that this machine cannot have is unavailable with its reason, and the rest goes
    on. Use it as a context manager.

    Raises
    ------
    HyperboxError
        On entering, if a service cannot start; the ones before it have been stopped.
    """

    def __init__(self, services: Sequence[Service]) -> None:
        self.services = tuple(services)
        self.started_unix_s = time.time()
        self._open: list[Service] = []
        self._stopping = threading.Lock()

    def __enter__(self) -> ServiceGroup:
        try:
            for service in self.services:
                self._start(service)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop every service that was started, even if one of them fails; harmless twice.

        Raises
        ------
        HyperboxError
            The first failure, after all have been stopped.
        """
        failures: list[HyperboxError] = []
        with self._stopping:
            while self._open:
                service = self._open.pop()
                try:
                    service.stop()
                except HyperboxError as error:
                    failures.append(error)
                    _LOG.error(
                        "service did not stop",
                        extra=fields(service=service.name, why=error.message),
                    )
                else:
                    self._note("service stopped", service)
        if failures:
            raise failures[0]

    def statuses(self) -> dict[str, Status]:
        """Say how every service is, by name."""
        return {service.name: service.status() for service in self.services}

    def ready(self, statuses: Mapping[str, Status] | None = None) -> bool:
        """Return whether everything that this machine can do runs, as the statuses have it."""
        healthy = (ServiceState.RUNNING, ServiceState.UNAVAILABLE)
        found = self.statuses() if statuses is None else statuses
        return all(status.state in healthy for status in found.values())

    def _start(self, service: Service) -> None:
        # Before it starts: one that fails half-way is stopped like the others.
        self._open.append(service)
        try:
            service.start()
        except KernelFeatureMissing as error:
            self._open.remove(service)
            service.stop()
            _LOG.warning(
                "service unavailable", extra=fields(service=service.name, why=error.message)
            )
        else:
            self._note("service started", service)

    @staticmethod
    def _note(event: str, service: Service) -> None:
        """Log it; of a service that nobody asked for only where all is wanted."""
        wanted = service.status().state is not ServiceState.UNAVAILABLE
        _LOG.log(
            logging.INFO if wanted else logging.DEBUG, event, extra=fields(service=service.name)
        )
