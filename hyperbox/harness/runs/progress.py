"""Shows a run's events on standard error: progress bars on a terminal, lines elsewhere."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from rich.progress import (
    BarColumn,
    Progress,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from hyperbox.console import TerminalConsole
from hyperbox.harness.model import Cell
from hyperbox.harness.runs.events import (
    AttemptRecorded,
    BlockMeasured,
    CellResumed,
    CellStarted,
    Event,
    SetupStep,
)
from hyperbox.harness.runs.forecast import Forecast, Left
from hyperbox.harness.runs.plan import Plan

__all__ = ["ProgressDisplay"]


class _Quietening(TerminalConsole):
    """Standard error whose reader may go away: the run goes on in silence."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


class _LeftColumn(TimeRemainingColumn):
    """What is left: by the run's forecast where there is one, else by the bar's own pace."""

    max_refresh = 0.0  # a forecast changes at events, not with time

    def render(self, task: Task) -> Text:
        forecast = task.fields.get("forecast")
        return Text(forecast) if forecast else super().render(task)


class ProgressDisplay:
    """Listens to a run; use as a context manager. Safe to call from any thread."""

    def __init__(self, console: TerminalConsole | None = None) -> None:
        self.console = console or _Quietening(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            _LeftColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            speed_estimate_period=600,
        )
        self._lock = threading.Lock()
        self._steps: dict[int, tuple[str, TaskID]] = {}
        self._cells: dict[Cell, TaskID] = {}
        self._blocks: dict[Cell, int] = {}
        self._done: dict[Cell, int] = {}
        self._overall: TaskID | None = None
        self._forecast: Forecast | None = None

    def __enter__(self) -> ProgressDisplay:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for _, task in self._steps.values():
            self._bars.remove_task(task)
        self._bars.stop()

    def expect(self, plan: Plan, forecast: Forecast | None = None) -> None:
        """Set the whole amount of work: blocks of all cells, and how long they may take."""
        with self._lock:
            self._forecast = forecast
            self._blocks = {cell: plan.experiment(cell.experiment).blocks for cell in plan.cells()}
            self._overall = self._bars.add_task("all blocks", total=sum(self._blocks.values()))

    def step(self, text: str, fraction: float) -> None:
        """Report a step of fetching, building or booting; a laboratory's `progress`."""
        self(SetupStep(text, fraction))

    def __call__(self, event: Event) -> None:
        """Show one event."""
        with self._lock:
            if self._forecast is not None:
                self._forecast.note(event, time.monotonic())
            if isinstance(event, SetupStep):
                self._step(event)
            elif isinstance(event, CellStarted):
                self._started(event)
            elif isinstance(event, BlockMeasured):
                self._progress(event.cell, event.done)
            elif isinstance(event, AttemptRecorded):
                self._recorded(event)
            elif isinstance(event, CellResumed):
                self._say(f"{_name(event.cell)}: on record already")
                self._progress(event.cell, self._blocks.get(event.cell, 0))

    def _step(self, event: SetupStep) -> None:
        """Show one bar a thread: its present step."""
        worker = threading.get_ident()
        text, task = self._steps.get(worker, ("", None))
        if text != event.text:
            if not self.console.is_terminal:
                self._say(event.text)
            if task is not None:
                self._bars.remove_task(task)
            task = self._bars.add_task(event.text, total=1.0)
            self._steps[worker] = (event.text, task)
        assert task is not None
        self._bars.update(task, completed=event.fraction, visible=event.fraction < 1)

    def _started(self, event: CellStarted) -> None:
        again = f", attempt {event.attempt}" if event.attempt > 1 else ""
        description = f"{_name(event.cell)}{again}"
        if not self.console.is_terminal:
            self._say(f"measuring {description}")
        old = self._cells.pop(event.cell, None)
        if old is not None:
            self._bars.remove_task(old)
        self._cells[event.cell] = self._bars.add_task(description, total=event.blocks)
        self._progress(event.cell, 0)

    def _recorded(self, event: AttemptRecorded) -> None:
        reason = f": {event.reason}" if event.reason else ""
        again = "" if event.final else "; trying again"
        left = f"; {self._left()} left" if event.final and self._left() else ""
        self._say(f"{_name(event.cell)}: {event.state}{reason}{again}{left}")
        if event.final:
            self._bars.remove_task(self._cells.pop(event.cell))
            self._progress(event.cell, self._blocks.get(event.cell, 0))

    def _progress(self, cell: Cell, done: int) -> None:
        self._done[cell] = done
        if cell in self._cells:
            self._bars.update(self._cells[cell], completed=done)
        if self._overall is not None:
            self._bars.update(
                self._overall, completed=sum(self._done.values()), forecast=self._left()
            )

    def _left(self) -> str:
        """Say how long the run still takes; empty if that is not known, or nothing."""
        if self._forecast is None:
            return ""
        left = self._forecast.left(time.monotonic())
        return "" if left == Left(0.0, 0) else str(left)

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)


def _name(cell: Cell) -> str:
    return f"{cell.experiment} on {cell.kernel}"
