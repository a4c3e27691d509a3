"""The gate x kernel matrix of a run: what every report form shows, and the headline.

Pure. Cells differ by kernel, experiment and lane. A gate without a verdict on a
kernel is an entry too, so that no hole looks clean.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from hyperbox.errors import ExitCode
from hyperbox.harness.model import Gate, Lane, Metric, Outcome, Rule, Sample, Verdict
from hyperbox.harness.report.data import CellData, RunData
from hyperbox.harness.report.outcome_styles import OutcomeStyle, style_of
from hyperbox.harness.verdicts.explanation import summary_remarks
from hyperbox.harness.verdicts.gates import exit_code
from hyperbox.harness.verdicts.release import release
from hyperbox.harness.verdicts.targets import limit_of, limits_of
from hyperbox.harness.verdicts.wording import number, relative, relative_interval, with_unit

__all__ = [
    "BlockValue",
    "Column",
    "Headline",
    "MatrixEntry",
    "block_values",
    "by_gate",
    "columns",
    "entries",
    "headline",
    "not_passed",
    "release_headline",
    "untested_count",
    "urgency",
]


_TILE = 14  # characters that a cell of the matrix holds beside its symbol
_URGENT_FIRST = (
    Outcome.ERROR,
    Outcome.FAIL,
    None,  # untested
    Outcome.INCONCLUSIVE,
    Outcome.SKIP,
    Outcome.PASS,
)


@dataclass(frozen=True)
class Column:
    """A kernel in a lane. `label` names the lane only where a run has several."""

    kernel: str
    lane: Lane
    label: str


@dataclass(frozen=True)
class MatrixEntry:
    """One gate on one kernel in one lane; `verdict` is None if untested.

    `metric` is None if the run has no experiment that declares it; `cell` is None if the
    run did not plan to measure it there.
    """

    gate: Gate
    column: Column
    metric: Metric | None
    verdict: Verdict | None
    cell: CellData | None = None

    @property
    def kernel(self) -> str:
        """Label of the kernel."""
        return self.column.kernel

    @property
    def lane(self) -> Lane:
        """The lane it was, or would be, measured in."""
        return self.column.lane

    @cached_property
    def blocks(self) -> tuple[BlockValue, ...]:
        """The blocks of its cell as the gate sees them, in run order."""
        return block_values(self.cell, self.gate) if self.cell else ()

    @property
    def style(self) -> OutcomeStyle:
        """The look of the entry's outcome."""
        return style_of(self.verdict.outcome if self.verdict else None)

    @property
    def unit(self) -> str:
        """Unit of estimate and limit: "%" for ratio rules, else the metric's."""
        if self.gate.is_ratio:
            return "%"
        return self.metric.unit if self.metric else ""

    @property
    def limit(self) -> float:
        """The target's limit in the verdict's terms."""
        return limit_of(self.gate, self.metric) if self.metric else self.gate.margin

    @property
    def limits(self) -> tuple[float | None, float | None]:
        """The target's lower and upper limit in the verdict's terms; None: no such limit."""
        return limits_of(self.gate, self.metric) if self.metric else (None, self.gate.margin)

    @property
    def limit_text(self) -> str:
        """The limit as people read it: "≤ -5.0 %", "-1.96 … 2.0 %"."""
        low, high = self.limits
        if low is not None and high is not None:
            return f"{self._with_unit(low)} … {self._with_unit(high)}"
        sign = {Rule.AT_LEAST: "≥", Rule.NON_INFERIOR: "<"}.get(self.gate.rule, "≤")
        if self.gate.rule is Rule.NON_INFERIOR and self.limit < 0:
            sign = ">"
        return f"{sign} {self._with_unit(self.limit)}"

    @property
    def estimate_text(self) -> str:
        """The estimate with unit, or "" if there is none."""
        verdict = self.verdict
        if verdict is None or verdict.estimate is None:
            return ""
        if self.gate.is_ratio and verdict.low is not None and verdict.high is not None:
            # The same decimals as the interval's.
            text = relative_interval(verdict.estimate, verdict.low, verdict.high)
            return text[: text.index(" (")]
        return self._with_unit(verdict.estimate)

    @property
    def short_text(self) -> str:
        """Symbol and estimate in few characters, for a cell of the matrix."""
        found = self.estimate_text or self.style.word.lower()
        texts = (found, found.removesuffix(f" {self.unit}"))
        fitting = next((text for text in texts if len(text) <= _TILE), "")
        return f"{self.style.symbol} {fitting}".rstrip()

    @property
    def interval_text(self) -> str:
        """The interval without unit, or "" if there is none."""
        verdict = self.verdict
        if verdict is None or verdict.low is None or verdict.high is None:
            return ""
        if self.gate.is_ratio:
            text = relative_interval(verdict.estimate or 0.0, verdict.low, verdict.high)
            return text[text.index("(") + 1 : -1]
        return f"{number(verdict.low)} … {number(verdict.high)}"

    @property
    def power_text(self) -> str:
        """Power as a percentage, or "" where it is not on record."""
        power = self.verdict.details.get("power") if self.verdict else None
        return "" if power is None or not math.isfinite(power) else f"{100 * power:.0f} %"

    @property
    def reason(self) -> str:
        """Why the outcome is what it is, in one line."""
        return self.verdict.reason if self.verdict else "no verdict was recorded"

    @property
    def remarks(self) -> tuple[str, ...]:
        """All remarks of the verdict, for the details."""
        return self.verdict.remarks if self.verdict else ()

    @property
    def summary_remarks(self) -> tuple[str, ...]:
        """The remarks that stand beside the verdict in a table of many."""
        return summary_remarks(self.verdict) if self.verdict else ()

    def _with_unit(self, value: float) -> str:
        return relative(value) if self.gate.is_ratio else with_unit(value, self.unit)


@dataclass(frozen=True)
class Headline:
    """The run in one sentence; `outcome` gives it its colour, `code` is the exit code."""

    outcome: Outcome
    text: str
    code: ExitCode = ExitCode.PASS


@dataclass(frozen=True)
class BlockValue:
    """One block as a gate sees it: relative change or level; `baseline_first` is the order."""

    block: int
    value: float
    baseline_first: bool


def columns(run: RunData) -> tuple[Column, ...]:
    """Return kernels and lanes of the run, in matrix order; strays of the verdicts come last."""
    planned = [(str(kernel.get("label", "?")), run.lane) for kernel in run.kernels]
    measured = [(cell.cell.kernel, cell.cell.lane) for cell in run.cells]
    strays = [(verdict.kernel, verdict.lane) for verdict in run.verdicts]
    kernels = list(dict.fromkeys(kernel for kernel, _ in (*planned, *measured, *strays)))
    lanes = list(dict.fromkeys(lane for _, lane in (*measured, *strays)))
    found = {(kernel, lane) for kernel, lane in (*measured, *strays)}
    found |= {pair for pair in planned if not any((pair[0], lane) in found for lane in lanes)}
    return tuple(
        Column(kernel, lane, kernel if len(lanes) < 2 else f"{kernel} {lane}")
        for kernel in kernels
        for lane in lanes or [run.lane]
        if (kernel, lane) in found
    )


def entries(run: RunData) -> tuple[MatrixEntry, ...]:
    """Return every gate on every kernel in every lane, kernel by kernel.

    A gate that is neither planned nor decided in a lane is missing there, unless it is
    missing in all lanes of that kernel: then it is an untested entry of the first.
    """
    verdicts = {(v.gate, v.kernel, v.lane): v for v in run.verdicts}
    cells = {(c.cell.experiment, c.cell.kernel, c.cell.lane): c for c in run.cells}
    experiments = {cell.experiment.id: cell.experiment for cell in run.cells}
    metrics = {(e.id, metric.id): metric for e in experiments.values() for metric in e.metrics}
    shown = columns(run)
    lanes_of: dict[str, list[Column]] = {}
    for column in shown:
        lanes_of.setdefault(column.kernel, []).append(column)

    def entry(gate: Gate, column: Column) -> MatrixEntry:
        place = (column.kernel, column.lane)
        return MatrixEntry(
            gate,
            column,
            metrics.get((gate.experiment, gate.metric)),
            verdicts.get((gate.id, *place)),
            cells.get((gate.experiment, *place)),
        )

    found = []
    for column in shown:
        beside = lanes_of[column.kernel]
        for gate in run.gates:
            one = entry(gate, column)
            if one.verdict or one.cell or (column is beside[0] and _nowhere(entry, gate, beside)):
                found.append(one)
    return tuple(found)


def _nowhere(
    entry: Callable[[Gate, Column], MatrixEntry], gate: Gate, beside: Sequence[Column]
) -> bool:
    """Whether a gate is neither planned nor decided in any lane of a kernel."""
    around = [entry(gate, column) for column in beside]
    return not any(one.verdict or one.cell for one in around)


def by_gate(
    matrix: Sequence[MatrixEntry],
) -> tuple[tuple[Gate, tuple[MatrixEntry | None, ...]], ...]:
    """Return a row for each gate with its entry in every column of the matrix, None if it has none.

    The columns are those of the matrix, in the order of their first entry.
    """
    shown = list(dict.fromkeys(entry.column for entry in matrix))
    rows: dict[str, dict[Column, MatrixEntry]] = {}
    for entry in matrix:
        rows.setdefault(entry.gate.id, {})[entry.column] = entry
    return tuple(
        (next(iter(row.values())).gate, tuple(row.get(column) for column in shown))
        for row in rows.values()
    )


def not_passed(matrix: Sequence[MatrixEntry]) -> tuple[MatrixEntry, ...]:
    """Return the entries that are not PASS, those first that most call for a reader."""
    found = [entry for entry in matrix if entry.style.word != Outcome.PASS]
    return tuple(sorted(found, key=urgency))


def urgency(entry: MatrixEntry) -> int:
    """Return how early an entry is to be shown: 0 first."""
    return _URGENT_FIRST.index(entry.verdict.outcome if entry.verdict else None)


def untested_count(matrix: Sequence[MatrixEntry]) -> int:
    """Count the entries without a verdict."""
    return sum(1 for entry in matrix if entry.verdict is None)


def headline(run: RunData) -> Headline:
    """Say what the run shows; the worst news first, the lanes that decide nothing last."""
    deciding = _deciding_headline(run)
    beside = [entry for entry in entries(run) if entry.lane is not run.lane]
    lanes = dict.fromkeys(entry.lane for entry in beside)
    passed = {
        lane: [entry.style.word == Outcome.PASS for entry in beside if entry.lane is lane]
        for lane in lanes
    }
    others = "".join(
        f" Beside it, the {lane} lane: {sum(words)} of {len(words)} pass."
        for lane, words in passed.items()
    )
    unanswered = release(run.deciding).unanswered
    named = _listed(_shortened(unanswered, "gates"))
    nowhere = f" Skipped on every kernel: {named}." if unanswered else ""
    return replace(deciding, text=deciding.text + nowhere + others)


def _deciding_headline(run: RunData) -> Headline:
    matrix = [entry for entry in entries(run) if entry.lane is run.lane]
    code = exit_code(run.deciding, strict=False)
    counts = Counter(entry.verdict.outcome for entry in matrix if entry.verdict)
    untested = untested_count(matrix)
    total, passed = len(matrix), counts[Outcome.PASS]
    kernels = _counted(len({column.kernel for column in columns(run)}), "kernel")
    holes = sum(1 for entry in matrix if entry.verdict and entry.verdict.is_hole)
    tail = f"{passed} of {total} verdicts on {kernels} pass{_also(counts, untested, holes)}."
    if counts[Outcome.ERROR]:
        where = _where(matrix, Outcome.ERROR)
        return Headline(Outcome.ERROR, f"Incomplete: {where} could not be measured; {tail}", code)
    if counts[Outcome.FAIL]:
        return Headline(Outcome.FAIL, f"Failed: {_where(matrix, Outcome.FAIL)}; {tail}", code)
    if not passed:
        return Headline(Outcome.INCONCLUSIVE, f"Nothing was decided: {tail}", code)
    if counts[Outcome.INCONCLUSIVE] or untested or holes:
        return Headline(Outcome.INCONCLUSIVE, f"Nothing failed, with gaps: {tail}", code)
    if passed == total:
        all_of_them = f"all {total} verdicts" if total > 1 else "the one verdict"
        passes = "pass" if total > 1 else "passes"
        return Headline(Outcome.PASS, f"Passed: {all_of_them} on {kernels} {passes}.", code)
    return Headline(Outcome.PASS, f"Passed: {tail}", code)


def release_headline(run: RunData) -> Headline:
    """Say what the whole matrix means for a release: error rates kept over all its verdicts.

    A hole in the matrix keeps a release from passing.
    """
    found = release(run.deciding)
    untested = untested_count([entry for entry in entries(run) if entry.lane is run.lane])
    outcome, reason = found.outcome, found.reason
    are = "is" if untested == 1 else "are"
    if untested and outcome is Outcome.PASS:
        outcome, reason = Outcome.INCONCLUSIVE, f"{reason}, but {untested} {are} untested"
    elif untested:
        reason = f"{reason}; {untested} more {are} untested"
    return Headline(outcome, f"Release: {outcome}. {reason[:1].upper()}{reason[1:]}.")


def block_values(cell: CellData, gate: Gate) -> tuple[BlockValue, ...]:
    """Return the complete blocks of a cell as the gate sees them, in run order.

    Blocks that the gate cannot use (a hole, no positive values for a ratio) are left
    out: the verdict's reason names them.
    """
    blocks: dict[int, dict[str, Sample]] = {}
    for sample in cell.samples:
        if sample.metric == gate.metric:
            blocks.setdefault(sample.block, {})[sample.arm] = sample
    values = []
    for block, arms in sorted(blocks.items()):
        tuned = arms.get(gate.arm)
        baseline = arms.get(gate.baseline or "")
        if tuned is None:
            continue
        if not gate.is_paired:
            values.append(BlockValue(block, tuned.value, baseline_first=False))
        elif baseline is not None:
            change = _change(gate, baseline.value, tuned.value)
            if change is not None:
                values.append(BlockValue(block, change, baseline.position < tuned.position))
    return tuple(values)


def _change(gate: Gate, baseline: float, tuned: float) -> float | None:
    """Compare two arms as the gate does: relatively, or by their difference."""
    if not gate.is_ratio:
        return tuned - baseline
    if baseline <= 0 or tuned <= 0 or not math.isfinite(tuned / baseline):
        return None
    return tuned / baseline - 1


def _where(matrix: Sequence[MatrixEntry], outcome: Outcome) -> str:
    """Name the gates with this outcome and their kernels: "psi.x on 5.10 and 7.3"."""
    kernels: dict[str, list[str]] = {}
    for entry in matrix:
        if entry.verdict and entry.verdict.outcome is outcome:
            kernels.setdefault(entry.gate.id, []).append(entry.column.label)
    named = [f"{gate} on {_listed(_shortened(where))}" for gate, where in kernels.items()]
    if len(named) > 3:
        named = [*named[:3], f"{len(named) - 3} more gates"]
    return _listed(named)


def _also(counts: Counter[Outcome], untested: int, holes: int) -> str:
    parts = (
        (counts[Outcome.INCONCLUSIVE], "inconclusive"),
        (counts[Outcome.SKIP] - holes, "skipped where another gate passes in their place"),
        (holes, "skipped with no gate in their place"),
        (untested, "untested"),
    )
    return "".join(f", {count} {words}" for count, words in parts if count)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _shortened(words: Sequence[str], noun: str = "kernels") -> Sequence[str]:
    """Keep a sentence a sentence: beyond five words, the first three and a count."""
    return words if len(words) <= 5 else [*words[:3], f"{len(words) - 3} more {noun}"]


def _listed(words: Sequence[str]) -> str:
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
