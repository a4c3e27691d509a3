"""A bisection carried out: kernels tried one after the other until there is an answer."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hyperbox.config import Settings
from hyperbox.errors import (
    BootTimeout,
    ConfigError,
    GuestCrash,
    HarnessError,
    HyperboxError,
    MachineLost,
)
from hyperbox.files import write_bytes, write_text
from hyperbox.harness.lab.debian_archive import HashMismatch, PackageGone
from hyperbox.harness.lab.kernel_kit import kernel_kit
from hyperbox.harness.lab.session import (
    CommandOverdue,
    Streams,
    converse,
    give_file,
    open_guest,
)
from hyperbox.harness.lab.vm import VirtualMachine
from hyperbox.harness.lab.vm_laboratory import choose_lane
from hyperbox.harness.model import MachineRequest, Outcome
from hyperbox.harness.runs.bisection import Answer, Mark, answer, next_try, refusal
from hyperbox.harness.runs.bisection_log import BisectionLog, Candidate, Question, Try
from hyperbox.harness.runs.loading import load_run
from hyperbox.harness.runs.validation import ProgressListener, validate

__all__ = ["Judge", "Judgement", "NothingToBisect", "bisect", "judge_for"]

_CANNOT_TELL = 125  # git bisect run's status for "skip"
_MARKS = {Outcome.PASS: Mark.GOOD, Outcome.FAIL: Mark.BAD}


class NothingToBisect(HarnessError):
    """An end of the row is not what it was said to be."""


@dataclass(frozen=True)
class Judgement:
    """What a try found: the mark and its reason."""

    mark: Mark
    reason: str


Judge = Callable[[Candidate, Path], Judgement]
"""Tries a kernel and leaves the evidence in a directory, which may hold what a killed try of
the same kernel left."""


def bisect(log: BisectionLog, judge: Judge, report: Callable[[Try], None]) -> Answer:
    """Go on with a bisection to its end; `report` is called with each new try.

    Raises
    ------
    NothingToBisect
        If the good end is not good or the bad one not bad.
    HyperboxError
        If a try cannot be made at all; the bisection can be resumed.
    """
    count = len(log.row)
    with log.exclusive():
        while True:
            wrong = refusal(count, log.marks())
            if wrong is not None:
                raise _nothing(log, wrong)
            place = next_try(count, log.marks())
            if place is None:
                return answer(count, log.marks())
            began = time.monotonic()
            found = _judged(judge, log, place)
            report(log.add(place, found.mark, found.reason, time.monotonic() - began))


def judge_for(question: Question, listening: ProgressListener) -> Judge:
    """Return the judge that a question asks for."""
    return _GateJudge(question, listening) if question.gate else _CommandJudge(question, listening)


@dataclass(frozen=True)
class _GateJudge:
    """One run of the gate's experiment on one kernel; PASS is good and FAIL is bad."""

    question: Question
    listening: ProgressListener

    def __call__(self, kernel: Candidate, directory: Path) -> Judgement:
        asked = self.question
        assert asked.gate is not None
        if (directory / "run.json").exists():
            validate(Settings(resume=directory), (), self.listening)
        else:
            settings = Settings(
                kernel=(kernel.version,),
                lane=asked.lane,
                blocks=asked.blocks,
                seed=asked.seed,
                run_directory=directory,
            )
            validate(settings, [asked.gate], self.listening)
        verdict = next(v for v in load_run(directory).verdicts if v.gate == asked.gate)
        mark = _MARKS.get(verdict.outcome, Mark.SKIP)
        return Judgement(mark, f"{verdict.outcome}: {verdict.reason}")


@dataclass(frozen=True)
class _CommandJudge:
    """A command in a fresh guest: 0 is good, 125 is undecided, everything else is bad."""

    question: Question
    listening: ProgressListener

    def __call__(self, kernel: Candidate, directory: Path) -> Judgement:
        said = bytearray()
        try:
            status = self._run(kernel, said)
        except CommandOverdue as error:
            return Judgement(Mark.BAD, error.message)
        except (GuestCrash, BootTimeout, MachineLost) as error:
            write_text(directory / "console.log", error.console)
            crashed = isinstance(error, GuestCrash)
            mark = Mark(self.question.crash) if crashed else Mark.SKIP
            trace = f" [{error.fingerprint}]" if error.fingerprint else ""
            return Judgement(mark, error.message + trace)
        finally:
            write_bytes(directory / "output.log", bytes(said))
        if status == _CANNOT_TELL:
            return Judgement(Mark.SKIP, "the command could not decide (status 125)")
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return Judgement(Mark.BAD if status else Mark.GOOD, f"the command ended with {how}")

    def _run(self, kernel: Candidate, said: bytearray) -> int:
        asked = self.question
        kit = kernel_kit(kernel.version, progress=self.listening.step)
        lane = choose_lane(asked.lane, [kit]).lane
        wanted = MachineRequest(memory_mib=asked.memory or MachineRequest.memory_mib)
        with open_guest(kit, lane, wanted=wanted, progress=self.listening.step) as machine:
            for here, there in asked.files:
                _put(machine, Path(here), there)
            streams = Streams(said.extend, said.extend)
            return converse(machine, asked.command, streams, timeout=asked.timeout)


def _judged(judge: Judge, log: BisectionLog, place: int) -> Judgement:
    """Judge a kernel; one that cannot be had any more is skipped, other trouble goes up."""
    again = f"go on with: hyperbox bisect --resume {shlex.quote(str(log.directory))}"
    try:
        return judge(log.row[place], log.place_of_evidence(place))
    except (PackageGone, HashMismatch) as error:
        return Judgement(Mark.SKIP, error.message)
    except HyperboxError as error:
        own = error.hint.partition("go on with:")[0].rstrip("; ")  # not the try's own run
        error.hint = f"{own}; {again}" if own else again
        raise
    except KeyboardInterrupt:
        raise KeyboardInterrupt(again) from None


def _nothing(log: BisectionLog, place: int) -> NothingToBisect:
    said = Mark.GOOD if place == 0 else Mark.BAD
    found = next(one for one in log.tries if one.place == place)
    text = f"nothing to bisect: {log.row[place].version} is said to be {said}, but "
    text += "cannot be judged" if found.mark is Mark.SKIP else f"is {found.mark}"
    crashed = found.mark is Mark.SKIP and (log.directory / found.directory / "console.log").exists()
    hint = "with --crash bad a kernel that crashes is bad" if crashed else "choose other ends"
    return NothingToBisect(f"{text} ({found.reason})", hint=hint)


def _put(machine: VirtualMachine, here: Path, there: str) -> None:
    try:
        data = here.read_bytes()
    except OSError as error:
        raise ConfigError(f"--put: cannot read {here}: {error.strerror}") from error
    give_file(machine, there, data, program=os.access(here, os.X_OK))
