"""``hyperbox shell`` on a terminal, and fed by a script."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from hyperbox.harness.lab.kernel_kit import kernel_kit

COMMAND = [sys.executable, "-m", "hyperbox", "shell", "--kernel", "6.12"]


class Screen:
    """A user's terminal, its program's end passed to the command under test."""

    def __init__(self) -> None:
        self.user, self.program = os.openpty()
        termios.tcsetwinsize(self.program, (33, 99))
        self.seen = b""

    def read_until(self, text: bytes) -> None:
        end = time.monotonic() + 120
        while text not in self.seen:
            ready, _, _ = select.select([self.user], [], [], end - time.monotonic())
            assert ready, self.seen
            self.seen += os.read(self.user, 65536)

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
        screen.type(b"sleep 1000\r")
        screen.read_until(b"sleep 1000")
        screen.type(b"\x03")
        screen.read_until(b":/opt/hyperbox#")
        screen.type(b"exit 6\r")
        while process.poll() is None:
            ready, _, _ = select.select([screen.user], [], [], 0.1)
            if ready:
                os.read(screen.user, 65536)
        assert process.returncode == 6
        assert termios.tcgetattr(screen.program) == before
    finally:
        process.kill()
        process.wait()
        os.close(screen.user)
        os.close(screen.program)
    assert not list(Path("/dev/shm").glob(f"hyperbox-{process.pid}-*"))


@pytest.mark.vm
def test_a_script_runs_without_a_terminal() -> None:
    script = "tty; echo $((6 * 7))\nread answer\nthe input\necho got $answer\nexit 5\n"
    done = subprocess.run(COMMAND, input=script, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout == "not a tty\n42\ngot the input\n"
    assert done.returncode == 5
