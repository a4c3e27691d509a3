"""``hyperbox shell`` on a terminal, and fed by a script."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import termios
import time

import pytest

from hyperbox.harness.lab.guest_image import root_image
from hyperbox.harness.lab.kernel_kit import kernel_kit

PATIENCE_S = 600.0  # a boot on a machine that is busy with others
COMMAND = [sys.executable, "-m", "hyperbox", "shell", "--kernel", "6.12"]


class Screen:
    """A user's terminal, its program's end passed to the command under test."""

    def __init__(self) -> None:
        self.user, self.program = os.openpty()
        termios.tcsetwinsize(self.program, (33, 99))
        self.seen = b""

    def read_until(self, text: bytes) -> None:
        end = time.monotonic() + PATIENCE_S
        while text not in self.seen:
            self._read(end)

    def read_until_end(self, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + PATIENCE_S
        while process.poll() is None:
            assert time.monotonic() < end, self.seen
            self._read(time.monotonic() + 0.1, may_be_silent=True)

    def _read(self, end: float, *, may_be_silent: bool = False) -> None:
        left = max(0.0, end - time.monotonic())
        if select.select([self.user], [], [], left)[0]:
            self.seen += os.read(self.user, 65536)
        else:
            assert may_be_silent, self.seen

    def type(self, text: bytes) -> None:
        self.seen = b""
        os.write(self.user, text)


@pytest.mark.vm
def test_a_console_says_how_to_leave_and_ends_with_the_shells_status() -> None:
    screen = Screen()
    before = termios.tcgetattr(screen.program)
    end = screen.program
    environment = {**os.environ, "TERM": "xterm-256color"}
    process = subprocess.Popen(COMMAND, stdin=end, stdout=end, stderr=end, env=environment)
    try:
        screen.read_until(b"leave with exit or Ctrl-D")
        screen.read_until(b":/opt/hyperbox#")
        screen.type(b"stty size; uname -r; echo $TERM; ls; echo done\r")
        release = kernel_kit("6.12").release
        screen.read_until(b"\ndone")
        for text in ("33 99", release, "xterm-256color", "workloads"):
            assert text.encode() in screen.seen
        # Not the echo of what was typed: an interrupt before the command runs is the shell's.
        screen.type(b"sh -c 'echo run''ning; exec sleep 1000'\r")
        screen.read_until(b"running")
        screen.type(b"\x03")
        screen.read_until(b":/opt/hyperbox#")
        screen.type(b"exit 6\r")
        screen.read_until_end(process)
        assert process.returncode == 6
        assert termios.tcgetattr(screen.program) == before
    finally:
        process.kill()
        process.wait()
        os.close(screen.user)
        os.close(screen.program)


@pytest.mark.vm
def test_a_script_runs_without_a_terminal() -> None:
    kernel_kit("6.12")  # nothing is left to build, and to be reported
    root_image()
    script = "tty; echo $((6 * 7))\nread answer\nthe input\necho got $answer\nexit 5\n"
    done = subprocess.run(COMMAND, input=script, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout == "not a tty\n42\ngot the input\n"
    assert done.returncode == 5
