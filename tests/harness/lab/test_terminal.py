from __future__ import annotations

import os
import signal
import termios
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.harness.lab.terminal import LEAVE, EscapeWatch, RawTerminal


@pytest.fixture
def pty() -> Iterator[tuple[int, int]]:
    """Return both ends of a terminal of 30 rows and 90 columns: the user's, the program's."""
    user, program = os.openpty()
    termios.tcsetwinsize(program, (30, 90))
    yield user, program
    os.close(user)
    os.close(program)


@given(st.lists(st.sampled_from([LEAVE, b"a", LEAVE * 2, b""])))
def test_three_escapes_in_a_row_leave_however_they_arrive(pieces: list[bytes]) -> None:
    watch = EscapeWatch()
    left = [watch.feed(piece) for piece in pieces]
    assert any(left) == (LEAVE * 3 in b"".join(pieces))


def test_the_terminal_is_raw_inside_and_as_before_outside(pty: tuple[int, int]) -> None:
    _, program = pty
    before = termios.tcgetattr(program)
    handler = signal.getsignal(signal.SIGWINCH)

    def use() -> None:
        with RawTerminal(program) as raw:
            flags = termios.tcgetattr(program)[3]
            assert not flags & (termios.ECHO | termios.ICANON | termios.ISIG)
            assert raw.size() == (30, 90)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        use()
    assert termios.tcgetattr(program) == before
    assert signal.getsignal(signal.SIGWINCH) == handler


def test_a_terminal_that_was_hung_up_is_left_quietly() -> None:
    user, program = os.openpty()
    with RawTerminal(program):
        os.close(user)
    os.close(program)


def test_what_is_no_terminal_changes_nothing() -> None:
    handler = signal.getsignal(signal.SIGWINCH)
    read, write = os.pipe()
    with pytest.raises(termios.error), RawTerminal(read):
        pass
    assert signal.getsignal(signal.SIGWINCH) == handler
    os.close(read)
    os.close(write)
