"""Commands and consoles in a real guest, their streams passed on while they run."""

from __future__ import annotations

import dataclasses
import errno
import io
import os
import signal
import termios
import threading
from pathlib import Path

import pytest

from hyperbox.errors import GuestCrash, MachineLost
from hyperbox.harness.lab import session
from hyperbox.harness.lab.session import (
    CommandOverdue,
    CommandUnstartable,
    ConsoleLeft,
    Streams,
    converse,
    keep_console,
)
from hyperbox.harness.lab.snapshot import Snapshot
from hyperbox.harness.lab.terminal import LEAVE, RawTerminal
from hyperbox.harness.lab.vm import VirtualMachine
from hyperbox.harness.model import Lane


def streams(stdin: int | None = None) -> tuple[Streams, bytearray, bytearray]:
    out, err = bytearray(), bytearray()
    source = None if stdin is None else io.FileIO(stdin, closefd=False)
    return Streams(out.extend, err.extend, source), out, err


@pytest.mark.vm
def test_streams_and_statuses_come_apart_and_the_guest_goes_on(snapshot: Snapshot) -> None:
    with snapshot.clone() as machine:
        to, out, err = streams()
        assert converse(machine, ["sh", "-c", "echo out; echo err >&2; exit 5"], to) == 5
        assert (bytes(out), bytes(err)) == (b"out\n", b"err\n")
        assert converse(machine, ["sh", "-c", "kill -TERM $$"], to) == -signal.SIGTERM
        with pytest.raises(CommandUnstartable, match="no-such-program") as caught:
            converse(machine, ["no-such-program"], to)
        assert caught.value.errno == errno.ENOENT
        with pytest.raises(CommandOverdue, match="no end after 1 s"):
            converse(machine, ["sleep", "100000"], to, timeout=1)
        assert converse(machine, ["true"], to) == 0


@pytest.mark.vm
def test_a_guest_has_what_programs_expect_of_a_machine(snapshot: Snapshot) -> None:
    script = (
        "echo $# ${#1} $(cat /dev/stdin) > /dev/stdout; echo err > /dev/stderr; ls /dev/fd/2;"
        "hostname; getent hosts $(hostname) | cut -d' ' -f1;"
        "stat --file-system --format=%T /sys/kernel/debug /sys/kernel/tracing /sys/fs/bpf"
    )
    read, write = os.pipe()
    os.write(write, b"typed")
    os.close(write)
    with snapshot.clone() as machine:
        to, out, err = streams(read)
        long = ["x" * 120_000] * 10
        assert converse(machine, ["sh", "-c", script, "sh", *long], to) == 0
        with pytest.raises(OSError, match="character device is not copied") as caught:
            machine.get("/dev/zero")
        assert not isinstance(caught.value, FileNotFoundError)
        assert machine.get("/proc/kmsg")  # which would wait for the next message
        machine.put("/tmp/\udcff", b"bytes")
        assert machine.get("/tmp/\udcff") == b"bytes"
    os.close(read)
    assert bytes(err) == b"err\n"
    first, handle, name, address, *kinds = out.decode().splitlines()
    assert (first, handle) == ("10 120000 typed", "/dev/fd/2")
    assert (name, address) == ("hyperbox", "127.0.0.1")
    assert kinds == ["debugfs", "tracefs", "bpf_fs"]


@pytest.mark.vm
def test_output_arrives_before_the_command_ends_and_input_reaches_it(snapshot: Snapshot) -> None:
    """The command waits for an answer to what it printed: collected output would hang."""
    read, write = os.pipe()
    seen = bytearray()

    def answer(data: bytes) -> None:
        seen.extend(data)
        if seen == b"name?\n":
            os.write(write, b"box\n")
            os.close(write)

    talk = Streams(answer, seen.extend, io.FileIO(read, closefd=False))
    with snapshot.clone() as machine:
        status = converse(machine, ["sh", "-c", "echo name?; read a; echo hello $a; cat"], talk)
    os.close(read)
    assert (status, bytes(seen)) == (0, b"name?\nhello box\n")


@pytest.mark.vm
def test_more_input_than_fits_anywhere_arrives_whole(snapshot: Snapshot) -> None:
    data = os.urandom(1 << 20)
    read, write = os.pipe()

    def fill() -> None:
        with os.fdopen(write, "wb") as pipe:
            pipe.write(data)

    feeder = threading.Thread(target=fill)
    feeder.start()
    to, out, _ = streams(read)
    with snapshot.clone() as machine:
        assert converse(machine, ["sh", "-c", "sleep 1; cat"], to) == 0
    feeder.join()
    os.close(read)
    assert out == data


@pytest.mark.vm
def test_an_interruption_reaches_the_command_first(snapshot: Snapshot) -> None:
    said = bytearray()

    def interrupt(data: bytes) -> None:
        said.extend(data)
        if data == b"ready\n":
            raise KeyboardInterrupt

    script = "trap 'echo last words; exit' INT; echo ready; sleep 100000 & wait"
    with snapshot.clone() as machine, pytest.raises(KeyboardInterrupt):
        converse(machine, ["sh", "-c", script], Streams(interrupt, said.extend))
    assert said == b"ready\nlast words\n"


@pytest.mark.vm
def test_a_guest_that_stands_still_in_the_exact_lane_is_lost(
    snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_HEARTBEAT", 0.2)
    monkeypatch.setattr("hyperbox.harness.lab.vm._STANDSTILL", 1.0)
    to, _, _ = streams()

    def hang(_data: bytes) -> None:
        machine.monitor("stop")

    with snapshot.clone() as machine, pytest.raises(MachineLost, match="stood still"):
        converse(machine, ["sh", "-c", "echo; sleep 100000"], dataclasses.replace(to, out=hang))


@pytest.mark.vm
def test_a_guest_that_hangs_is_lost(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_HEARTBEAT", 0.2)
    monkeypatch.setattr(session, "_ANSWER_LIMIT", 10.0)  # of a busy host, until it is stopped
    to, _, _ = streams()

    def hang(_data: bytes) -> None:
        machine.monitor("stop")

    with snapshot.clone() as machine:
        machine.hardware = dataclasses.replace(machine.hardware, lane=Lane.FAST)
        with pytest.raises(MachineLost, match="has not answered"):
            converse(machine, ["sh", "-c", "echo; sleep 100000"], dataclasses.replace(to, out=hang))


class Desk:
    """A user's terminal: types when the guest has said something."""

    def __init__(self, answers: dict[bytes, bytes]) -> None:
        self.user, self.program = os.openpty()
        termios.tcsetwinsize(self.program, (30, 90))
        self.seen = bytearray()
        self._answers = answers

    def run(self, machine: VirtualMachine, script: str) -> int:
        """Run a script on the terminal; it must be as before afterwards."""
        before = termios.tcgetattr(self.program)
        try:
            with RawTerminal(self.program) as raw:
                talk = Streams(
                    self._hear, self.seen.extend, io.FileIO(self.program, closefd=False), raw
                )
                return converse(machine, ["bash", "--norc", "-c", script], talk)
        finally:
            assert termios.tcgetattr(self.program) == before
            os.close(self.user)
            os.close(self.program)

    def _hear(self, data: bytes) -> None:
        self.seen += data
        for text in [text for text in self._answers if text in self.seen]:
            typed = self._answers.pop(text)
            if typed == b"resize":
                termios.tcsetwinsize(self.program, (40, 120))
                os.kill(os.getpid(), signal.SIGWINCH)
            else:
                os.write(self.user, typed)


@pytest.mark.vm
def test_a_console_has_a_terminal_that_follows_the_users(snapshot: Snapshot) -> None:
    script = """
        stty size; trap 'stty size; echo resized' WINCH; echo waiting
        until read -r -t 1 line; do :; done; echo "<$line>"
        trap 'echo caught; exit 7' INT; echo looping; while :; do sleep 1; done
    """
    desk = Desk({b"waiting": b"resize", b"resized\r\n": b"word\r", b"looping\r\n": b"\x03"})
    with snapshot.clone() as machine:
        assert desk.run(machine, script) == 7
    lines = [line for line in desk.seen.decode().splitlines() if line != "word"]
    assert lines == ["30 90", "waiting", "40 120", "resized", "<word>", "looping", "^Ccaught"]


@pytest.mark.vm
def test_a_hanging_console_can_be_left(snapshot: Snapshot) -> None:
    desk = Desk({b"spinning": LEAVE * 3})
    with snapshot.clone() as machine, pytest.raises(ConsoleLeft):
        desk.run(machine, "stty raw -echo; echo spinning; while :; do :; done")


@pytest.mark.vm
def test_a_console_whose_guest_dies_gives_the_terminal_back(snapshot: Snapshot) -> None:
    desk = Desk({})
    with snapshot.clone() as machine, pytest.raises(GuestCrash, match="sysrq triggered crash"):
        desk.run(machine, "echo c > /proc/sysrq-trigger")


def test_consoles_are_kept_where_they_are_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPERBOX_CACHE", str(tmp_path))
    monkeypatch.setattr(session, "_KEPT_CONSOLES", 3)
    paths = [keep_console("6.12", f"boot {number}") for number in range(5)]
    assert [path.exists() for path in paths] == [False, False, True, True, True]
    assert paths[-1].read_text() == "boot 4"
    assert paths[-1].is_relative_to(tmp_path)
