"""Signals that come where Python drops what their handlers raise."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from hyperbox import interruption

PROGRAM = """
import signal, sys, weakref
from hyperbox import interruption

class Thing: pass

def lose(*_):
    signal.raise_signal(signal.SIGTERM)

def end(number, _frame):
    signal.signal(number, signal.SIG_IGN)
    raise {raised}

signal.signal(signal.SIGTERM, end)
with interruption.reraise_lost_signals():
    {how}
    while True:
        signal.pause()
"""
LOSING = {
    "weak reference": "thing = Thing(); kept = weakref.ref(thing, lose); del thing",
    "finalizer": "Thing.__del__ = lose; Thing()",
    "twice": "Thing.__del__ = lose; Thing(); Thing.__del__ = lambda _: signal.pause(); Thing()",
}


@pytest.mark.parametrize("how", LOSING.values(), ids=LOSING)
@pytest.mark.parametrize(
    ("raised", "status"), [("SystemExit(5)", 5), ("KeyboardInterrupt", -signal.SIGINT)]
)
def test_lost_signal_is_heard_all_the_same(how: str, raised: str, status: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(how=how, raised=raised)],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status
    assert b"ignored" not in done.stderr


class Failing:
    def __init__(self, fail: Callable[[], None]) -> None:
        self.fail = fail

    def __del__(self) -> None:
        self.fail()


def test_other_errors_are_said_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: said.append(lost.exc_type))

    def fail() -> None:
        raise ValueError

    with interruption.reraise_lost_signals():
        Failing(fail)
        gc.collect()
    assert said == [ValueError]


def test_everything_is_as_before_afterwards() -> None:
    def state() -> tuple[object, ...]:
        timer = signal.getitimer(signal.ITIMER_REAL)[0] > 0  # the limit of a test uses it
        return sys.unraisablehook, signal.getsignal(signal.SIGALRM), timer

    before = state()
    with interruption.reraise_lost_signals():
        assert sys.unraisablehook is not before[0]
        assert state()[1:] == before[1:]
    assert state() == before


def test_threads_have_no_handlers_to_hear() -> None:
    hooks = []

    def enter() -> None:
        with interruption.reraise_lost_signals():
            hooks.append(sys.unraisablehook)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert hooks == [sys.unraisablehook]


def test_what_is_lost_just_before_the_end_does_not_come_after_it() -> None:
    program = PROGRAM.format(how=LOSING["finalizer"], raised="KeyboardInterrupt").replace(
        "    while True:\n        signal.pause()\n",
        "    pass\nimport time; time.sleep(0.1); print(int(signal.getsignal(signal.SIGALRM)))\n",
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip()) in (
        (0, b"0"),
        (-signal.SIGINT, b""),  # a slow machine was still within
    )
