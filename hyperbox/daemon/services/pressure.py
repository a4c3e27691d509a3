"""The pressure service: a thread samples pressure and feeds the tuner; requests are answered.

Totals in an answer are read from the kernel at that moment and so equal it; history and
averages come from the samples. A request costs the sampling thread nothing: it hands over
snapshots that never change.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from prometheus_client import Metric
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hyperbox.daemon.logs import fields
from hyperbox.daemon.service import Endpoint, Parameter, ServiceState, Status
from hyperbox.daemon.services import pressure_answer, pressure_metrics
from hyperbox.daemon.services.pressure_answer import Sampling
from hyperbox.errors import HyperboxError, KernelFeatureMissing, WorkloadError
from hyperbox.linux.pressure import PROC_PRESSURE, PressureFile, system_files
from hyperbox.memory.psi import HISTORY, INTERVAL_S, PressureHistory, PressureSample, Sampler, watch

__all__ = ["PressureService", "SampleListener"]

_LOG = logging.getLogger(__name__)
_SOON_S = 0.4  # for the thread to end; a sample takes far below a millisecond
_PATIENCE_S = 8.0  # for a step of the tuner, which may wait for the kernel
_READABLE = (ServiceState.RUNNING, ServiceState.FAILED)  # without its tuner, for example
_OFF: Mapping[str, object] = {"mode": "off"}


class SampleListener(Protocol):
    """What the service adds to each sample, for example the tuner."""

    def sampled(self, snapshot: PressureHistory) -> None:
        """Use the newest sample; runs in the sampling thread.

        Raises
        ------
        HyperboxError
            If it cannot go on: the service has failed.
        """

    def report(self) -> Mapping[str, object]:
        """Return what it says of itself as JSON values; from any thread."""

    def metrics(self) -> Iterable[Metric]:
        """Return its metric families; from any thread."""

    def close(self) -> None:
        """Put back everything that it changed; the sampling thread has ended."""


class PressureService:
    """Samples this machine's pressure and serves it.

    Parameters
    ----------
    directory
        Where the pressure files are; the machine's own by default.
    interval_s, history
        Seconds between samples, and how many are kept.
    listener
        Makes what listens to the samples, once there is pressure to listen to.
    """

    name = "pressure"

    def __init__(
        self,
        directory: Path = PROC_PRESSURE,
        *,
        interval_s: float = INTERVAL_S,
        history: int = HISTORY,
        listener: Callable[[], SampleListener] | None = None,
    ) -> None:
        self._directory = directory
        self._interval_s = interval_s
        self._history = history
        self._make_listener = listener
        self._listener: SampleListener | None = None
        self._tuner_is = _OFF  # where there is no listener, or it has ended
        self._files: tuple[PressureFile, ...] = ()
        self._reading = threading.Lock()  # files are not closed while one is read
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._snapshot = PressureHistory(history=history)
        self._status = Status(ServiceState.STOPPED)
        self._started = 0.0
        self._sampling = Sampling(interval_s)
        self._deaf = False
        self._not_put_back: HyperboxError | None = None

    def start(self) -> None:
        """Open the pressure files and begin to sample; see `Service.start`."""
        try:
            self._files = system_files(self._directory)
        except KernelFeatureMissing as error:
            self._status = Status(ServiceState.UNAVAILABLE, error.message, error.hint)
            raise
        self._listen()
        self._started = time.monotonic()
        self._status = Status.running()
        self._thread = threading.Thread(target=self._sample, name="pressure", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End sampling; the thread lets the listener put things back. See `Service.stop`.

        Raises
        ------
        HyperboxError
            If the listener hangs, or could not put something back.
        """
        self._ended.set()
        if self._status.state is ServiceState.RUNNING:
            self._status = Status(ServiceState.STOPPED)
        if self._thread is not None:
            self._join(self._thread)
        with self._reading:
            files, self._files = self._files, ()
            for file in files:
                file.close()
        if self._not_put_back is not None:
            raise self._not_put_back

    def status(self) -> Status:
        """Say how it is; see `Service.status`."""
        return self._status

    def endpoints(self) -> Sequence[Endpoint]:
        """Return ``/metrics/memory/psi``; see `Service.endpoints`."""
        samples = Parameter(
            "samples",
            f"How many of the last samples, 0 to {self._history}; all by default.",
            {"type": "integer", "minimum": 0, "maximum": self._history, "default": self._history},
        )
        return [
            Endpoint(
                "/metrics/memory/psi",
                "Pressure of this machine now, its last samples, and what the tuner does.",
                self._answer,
                {"application/json": pressure_answer.SCHEMA},
                description="Where there is no pressure to read the status is 200 and "
                "`available` is false with the reason: no monitor should raise an alarm "
                "because a kernel was built without it.",
                parameters=[samples],
            )
        ]

    def metrics(self) -> Iterable[Metric]:
        """Return pressure as metric families; see `Service.metrics`."""
        now = self._read()
        if now is None:
            return
        yield from pressure_metrics.families(now, self._snapshot, self._now_sampling())
        if self._listener is not None:
            yield from self._listener.metrics()

    async def _answer(self, request: Request) -> Response:
        rows = self._rows(request.query_params.get("samples"))
        now = self._read()
        if now is None:
            return JSONResponse(pressure_answer.unavailable(self._status))
        tuner = dict(self._listener.report()) if self._listener is not None else {}
        if self._listener is None or self._deaf:
            tuner |= self._tuner_is
        return JSONResponse(
            pressure_answer.answer(now, self._snapshot, self._now_sampling(), tuner, rows)
        )

    def _listen(self) -> None:
        """Make the listener; what it lacks (its cgroup's pressure, say) costs no reading."""
        if self._make_listener is None:
            return
        try:
            self._listener = self._make_listener()
        except KernelFeatureMissing as error:
            self._tuner_is = {"mode": "unavailable", "reason": error.message, "hint": error.hint}
            _LOG.warning("tuner unavailable", extra=fields(service=self.name, why=error.message))

    def _join(self, thread: threading.Thread) -> None:
        thread.join(_SOON_S)
        if thread.is_alive():
            _LOG.warning("a step of the tuner takes long", extra=fields(service=self.name))
            thread.join(_PATIENCE_S)
        if thread.is_alive():
            raise WorkloadError(
                f"the tuner hangs for {_PATIENCE_S:g} s, and what it changed stays",
                hint="`hyperbox doctor --repair` puts it back",
            )

    def _rows(self, text: str | None) -> int:
        if text is None:
            return self._history
        # A length first: int() of a long text takes time that grows with its square.
        if not (text.isascii() and text.isdigit() and len(text) <= 9):
            raise HTTPException(400, f"samples is a whole number from 0 to {self._history}")
        if int(text) > self._history:
            raise HTTPException(400, f"samples is at most {self._history}, what is kept")
        return int(text)

    def _read(self) -> PressureSample | None:
        """Read everything now; None if this service does not run (any more)."""
        unix_s, began = time.time(), time.monotonic_ns()
        try:
            with self._reading:
                pressure = {file.resource: file.read() for file in self._files}
        except HyperboxError as error:
            self._fail(error.message, error.hint)
            return None
        if not pressure or self._status.state not in _READABLE:
            return None
        return PressureSample(began, time.monotonic_ns() - began, unix_s, pressure)

    def _now_sampling(self) -> Sampling:
        known = self._sampling
        running_s = time.monotonic() - self._started
        return Sampling(known.interval_s, known.taken, running_s, known.cpu_s)

    def _sample(self) -> None:
        """Sample until the service stops, then let the listener put things back: the thread's work.

        It has the listener to itself, from its first sample to its end.
        """
        # Not closed here: its files are the service's, requests read them too.
        sampler = Sampler(self._files, history=self._history)
        try:
            watch(sampler, self._sampled, interval_s=self._interval_s, stop=self._ended)
        except Exception as error:
            self._broken("sampling", error)
        finally:
            if self._listener is not None:
                self._closed(self._listener)

    def _sampled(self, sampler: Sampler) -> None:
        self._snapshot = sampler.snapshot()
        if self._listener is not None and not self._deaf:
            try:
                self._listener.sampled(self._snapshot)
            except Exception as error:
                self._broken("the tuner", error)
                self._tuner_is = {"mode": "ended", "reason": self._status.reason}
                self._deaf = True  # sampling goes on without it
                self._closed(self._listener)
        # The thread's own clock, read in the thread: what monitoring costs.
        self._sampling = Sampling(
            self._interval_s, self._sampling.taken + 1, cpu_s=time.thread_time()
        )

    def _closed(self, listener: SampleListener) -> None:
        try:
            listener.close()
        except HyperboxError as error:
            self._not_put_back = error
        except Exception as error:
            self._broken("putting back", error)

    def _broken(self, what: str, error: Exception) -> None:
        """Record that something has ended that should go on; the trace only if it is a bug."""
        expected = isinstance(error, HyperboxError)
        reason = error.message if isinstance(error, HyperboxError) else f"a bug: {error!r}"
        _LOG.error(
            f"{what} has ended",
            exc_info=None if expected else error,
            extra=fields(service=self.name, why=reason),
        )
        self._fail(
            f"{what} has ended: {reason}", error.hint if isinstance(error, HyperboxError) else ""
        )

    def _fail(self, reason: str, hint: str = "") -> None:
        if self._status.state is ServiceState.RUNNING:
            self._status = Status(ServiceState.FAILED, reason, hint)
