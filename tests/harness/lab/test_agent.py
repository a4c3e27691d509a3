"""The real agent in a process of its own, spoken to over a socket pair."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperbox.harness.lab.agent import find_port
from hyperbox.harness.lab.protocol import INPUT_WINDOW, Frame, FrameDecoder, FrameType
from hyperbox.paths import project_directory
from hyperbox.processes import spawn, stop

# A guest's agent is the first process, to which orphans come.
SERVE = (
    "import sys; from hyperbox.harness.lab.agent import Agent; "
    "from hyperbox.linux.process_tree import become_subreaper; "
    "become_subreaper(); Agent(int(sys.argv[1])).serve(forever=False)"
)


class Client:
    """Sends frames and waits for answers."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.channel.settimeout(30)
        self.decoder = FrameDecoder()
        self.waiting: list[Frame] = []

    def send(self, kind: FrameType, request: int, payload: bytes = b"") -> None:
        self.channel.sendall(Frame(kind, request, payload).encode())

    def receive(self) -> Frame:
        while not self.waiting:
            self.waiting += self.decoder.feed(self.channel.recv(65536))
        return self.waiting.pop(0)

    def execute(self, request: int, *argv: str, **order: object) -> None:
        self.send(FrameType.EXECUTE, request, json.dumps({"argv": argv, **order}).encode())

    def outcome(self, request: int) -> tuple[dict[str, object], bytes, bytes]:
        streams = {FrameType.STDOUT: b"", FrameType.STDERR: b""}
        while True:
            frame = self.receive()
            assert frame.id == request
            if frame.type is FrameType.EXIT:
                end = frame.json()
                assert end.pop("elapsed_ns", 1) > 0
                assert not end.pop("leapt", False)
                return end, streams[FrameType.STDOUT], streams[FrameType.STDERR]
            streams[frame.type] += frame.payload


@pytest.fixture
def client() -> Iterator[Client]:
    here, there = socket.socketpair()
    with here, there:
        process = spawn(
            [sys.executable, "-c", SERVE, str(there.fileno())],
            pass_fds=[there.fileno()],
            environment={"PYTHONPATH": str(project_directory())},
        )
        there.close()
        try:
            talker = Client(here)
            ready = talker.receive()
            assert ready.type is FrameType.READY
            assert ready.json()["release"] == os.uname().release
            yield talker
        finally:
            stop(process)


def test_streams_and_exit_status_arrive_apart(client: Client) -> None:
    client.execute(7, "sh", "-c", "echo out; echo err >&2; exit 9")
    assert client.outcome(7) == ({"status": 9}, b"out\n", b"err\n")


def test_death_by_signal_is_a_negative_status(client: Client) -> None:
    client.execute(1, "sh", "-c", "kill -SEGV $$")
    assert client.outcome(1)[0]["status"] == -signal.SIGSEGV


def test_unknown_program_is_an_error_not_a_status(client: Client) -> None:
    client.execute(1, "no-such-program")
    end, _, _ = client.outcome(1)
    assert "status" not in end
    assert "no-such-program" in str(end["error"])


def test_orphan_holding_the_pipe_does_not_hold_up_the_end(client: Client) -> None:
    client.execute(1, "sh", "-c", "sleep 60 & echo done")
    assert client.outcome(1) == ({"status": 0}, b"done\n", b"")


# A child that has left its parent's group and session, and writes without end.
WRITER = "setsid sh -c 'echo $$ > pid.new; mv pid.new pid; while :; do echo other; done'"


def test_what_a_program_leaves_running_ends_with_it_and_adds_nothing(
    client: Client, tmp_path: Path
) -> None:
    script = f"cd {tmp_path}; ({WRITER} > /dev/null &); until [ -e pid ]; do :; done; echo mine"
    client.execute(1, "sh", "-c", script)
    assert client.outcome(1) == ({"status": 0}, b"mine\n", b"")
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def test_an_endless_writer_does_not_hold_up_the_end(client: Client, tmp_path: Path) -> None:
    client.execute(1, "sh", "-c", f"cd {tmp_path}; ({WRITER} &); until [ -e pid ]; do :; done")
    end, out, _ = client.outcome(1)
    assert end == {"status": 0}
    assert set(out.split()) <= {b"other"}
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def test_the_end_of_one_command_leaves_the_others_alone(client: Client) -> None:
    client.execute(1, "sh", "-c", "echo up; sleep 600 & wait")
    assert client.receive().payload == b"up\n"
    client.execute(2, "sh", "-c", "setsid sleep 600 & exit 3")
    assert client.outcome(2) == ({"status": 3}, b"", b"")
    client.send(FrameType.KILL, 1)
    assert client.outcome(1)[0]["status"] == -signal.SIGKILL


def test_output_larger_than_any_pipe_arrives_whole(client: Client) -> None:
    client.execute(1, "head", "-c", "3000000", "/dev/zero")
    assert client.outcome(1)[1] == bytes(3_000_000)


def test_kill_ends_the_whole_group(client: Client) -> None:
    client.execute(1, "sh", "-c", "sleep 60 | sleep 60")
    time.sleep(0.2)
    client.send(FrameType.KILL, 1)
    assert client.outcome(1)[0]["status"] == -signal.SIGKILL


def test_environment_reaches_the_command(client: Client) -> None:
    client.execute(1, "sh", "-c", "echo $HYPERBOX_SEED", environment={"HYPERBOX_SEED": "12"})
    assert client.outcome(1)[1] == b"12\n"


def test_ping_answers_with_monotonic_time(client: Client) -> None:
    before = time.monotonic_ns()
    client.send(FrameType.PING, 3)
    frame = client.receive()
    (answer,) = struct.unpack("<Q", frame.payload)
    assert frame.id == 3
    assert before <= answer <= time.monotonic_ns()


def test_files_go_there_and_back(client: Client, tmp_path: Path) -> None:
    data = os.urandom(700_000)
    target = tmp_path / "new" / "file"
    client.send(FrameType.PUT, 4, str(target).encode())
    for offset in range(0, len(data), 100_000):
        client.send(FrameType.DATA, 4, data[offset : offset + 100_000])
    client.send(FrameType.END, 4)
    assert client.receive() == Frame(FrameType.END, 4)
    assert target.read_bytes() == data
    client.send(FrameType.GET, 5, str(target).encode())
    received = b""
    while (frame := client.receive()).type is FrameType.DATA:
        received += frame.payload
    assert received == data
    assert frame == Frame(FrameType.END, 5)


@pytest.mark.parametrize("kind", [FrameType.GET, FrameType.PUT])
def test_impossible_paths_are_answered_with_the_reason(client: Client, kind: FrameType) -> None:
    client.send(kind, 6, b"/proc/no/such/file")
    if kind is FrameType.PUT:
        client.send(FrameType.DATA, 6, b"x")
        client.send(FrameType.END, 6)
    frame = client.receive()
    assert frame.type is FrameType.END
    assert b"/proc/no" in frame.payload


def transferred(client: Client, kind: FrameType, path: bytes) -> bytes:
    """Put or get a file; return the reason why that failed, or nothing."""
    client.send(kind, 7, path)
    if kind is FrameType.PUT:
        client.send(FrameType.DATA, 7, b"x")
        client.send(FrameType.END, 7)
    while (frame := client.receive()).type is FrameType.DATA:
        pass
    assert frame.type is FrameType.END
    return frame.payload


@pytest.mark.parametrize("kind", [FrameType.GET, FrameType.PUT])
def test_what_a_transfer_could_wait_for_is_refused(
    client: Client, kind: FrameType, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    for name in ("fifo", "link", "socket"):
        assert b"a pipe or socket is not copied" in transferred(
            client, kind, os.fsencode(tmp_path / name)
        )
    for device in (b"/dev/zero", b"/dev/full"):
        assert b"a character device is not copied" in transferred(client, kind, device)
    assert b"Is a directory" in transferred(client, kind, os.fsencode(tmp_path))
    client.execute(8, "true")
    assert client.outcome(8)[0] == {"status": 0}


def test_names_are_bytes(client: Client, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff\xfe"
    assert transferred(client, FrameType.PUT, path) == b""
    assert transferred(client, FrameType.GET, path) == b""
    client.execute(9, "cat", os.fsdecode(path))
    assert client.outcome(9) == ({"status": 0}, b"x", b"")
    assert b"No such file" in transferred(client, FrameType.GET, path + b"\xfd")


def test_as_many_arguments_as_the_kernel_takes(client: Client) -> None:
    client.execute(10, "sh", "-c", "echo $# ${#9}", "sh", *["\x01" * 120_000] * 10)
    assert client.outcome(10) == ({"status": 0}, b"10 120000\n", b"")
    client.execute(11, "true", *["x" * 120_000] * 50)
    assert client.outcome(11)[0] == {"error": "true: Argument list too long", "errno": errno.E2BIG}


def test_perturbed_start_runs_as_usual(client: Client) -> None:
    client.execute(1, "echo", "started", noise_pages=64)
    assert client.outcome(1) == ({"status": 0}, b"started\n", b"")


def test_port_is_found_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "vport0p1").mkdir()
    (tmp_path / "vport0p1" / "name").write_text("hyperbox.agent\n")
    assert find_port("hyperbox.agent", directory=tmp_path) == Path("/dev/vport0p1")
    with pytest.raises(FileNotFoundError, match="other"):
        find_port("other", directory=tmp_path)


def feed(client: Client, request: int, data: bytes) -> bytes:
    """Send input within the window, then its end; return standard output."""
    output, in_flight, offset = b"", 0, 0
    client.execute(request, "cat", stdin=True)
    while offset < len(data) or in_flight:
        while offset < len(data) and in_flight < INPUT_WINDOW:
            piece = data[offset : offset + INPUT_WINDOW - in_flight]
            client.send(FrameType.STDIN, request, piece)
            offset, in_flight = offset + len(piece), in_flight + len(piece)
        frame = client.receive()
        if frame.type is FrameType.STDIN:
            in_flight -= struct.unpack("<I", frame.payload)[0]
        else:
            assert frame.type is FrameType.STDOUT
            output += frame.payload
    client.send(FrameType.STDIN, request)
    end, rest, _ = client.outcome(request)
    assert end["status"] == 0
    return output + rest


@pytest.mark.parametrize("size", [0, 1, 500_000])
def test_input_arrives_whole_and_ends(client: Client, size: int) -> None:
    data = os.urandom(size)
    assert feed(client, 3, data) == data


def test_without_input_a_command_reads_nothing(client: Client) -> None:
    client.execute(1, "cat")
    assert client.outcome(1) == ({"status": 0}, b"", b"")


def test_input_that_nobody_reads_is_reported_as_taken(client: Client) -> None:
    client.execute(1, "sh", "-c", "exec <&-; echo closed; sleep 60", stdin=True)
    assert client.receive() == Frame(FrameType.STDOUT, 1, b"closed\n")
    client.send(FrameType.STDIN, 1, b"x" * 10)
    assert client.receive() == Frame(FrameType.STDIN, 1, struct.pack("<I", 10))
    client.send(FrameType.STDIN, 1, b"x" * 20)
    assert client.receive() == Frame(FrameType.STDIN, 1, struct.pack("<I", 20))
    client.send(FrameType.KILL, 1)
    assert client.outcome(1)[0]["status"] == -signal.SIGKILL


def test_input_for_a_command_that_has_ended_is_harmless(client: Client) -> None:
    client.execute(1, "true", stdin=True)
    assert client.outcome(1)[0]["status"] == 0
    for kind in (FrameType.STDIN, FrameType.WINDOW, FrameType.KILL):
        client.send(kind, 1, b"\x01\x00\x01\x00")
    client.send(FrameType.PING, 2)
    assert client.receive().type is FrameType.PING


def test_kill_can_name_the_signal(client: Client) -> None:
    client.execute(1, "sh", "-c", "trap 'echo caught; exit 4' INT; echo ready; sleep 60 & wait")
    assert client.receive().payload == b"ready\n"
    client.send(FrameType.KILL, 1, bytes([signal.SIGINT]))
    assert client.outcome(1) == ({"status": 4}, b"caught\n", b"")


def test_a_pipeline_whose_reader_leaves_ends_quietly(client: Client) -> None:
    client.execute(1, "bash", "-c", "yes | head -n 1; echo ${PIPESTATUS[0]}")
    out = f"y\n{128 + signal.SIGPIPE}\n".encode()
    assert client.outcome(1) == ({"status": 0}, out, b"")


def until(client: Client, text: bytes) -> bytes:
    """Read a terminal's output until `text` is in it."""
    seen = b""
    while text not in seen:
        frame = client.receive()
        if frame.type is FrameType.STDOUT:
            seen += frame.payload
        else:
            assert frame.type is FrameType.STDIN, frame
    return seen


def test_a_terminal_has_its_size_and_controls_its_command(client: Client) -> None:
    script = (
        "tty; stty size; trap 'stty size' WINCH; echo go; while read line; do echo =$line; done"
    )
    client.execute(1, "bash", "-c", script, tty=[31, 77])
    assert re.search(rb"/dev/pts/\d+\r\n31 77\r\n", until(client, b"go\r\n"))
    client.send(FrameType.STDIN, 1, b"abc\r")
    assert b"abc\r\n=abc\r\n" in until(client, b"=abc\r\n")
    client.send(FrameType.WINDOW, 1, struct.pack("<HH", 40, 100))
    client.send(FrameType.STDIN, 1, b"def\r")
    # No child of the shell may be left: it would make Ctrl-C its own affair.
    assert b"40 100\r\n" in until(client, b"=def\r\n")
    client.send(FrameType.STDIN, 1, b"\x03")  # Ctrl-C
    until(client, b"^C")
    while (frame := client.receive()).type is not FrameType.EXIT:
        pass
    assert frame.json()["status"] == -signal.SIGINT


def test_hanging_up_a_terminal_ends_what_runs_there(client: Client) -> None:
    client.execute(1, "bash", "-c", "echo up; sleep 60; echo not reached", tty=[24, 80])
    until(client, b"up\r\n")
    client.send(FrameType.STDIN, 1)
    while (frame := client.receive()).type is not FrameType.EXIT:
        assert b"not reached" not in frame.payload
    assert frame.json()["status"] == -signal.SIGHUP


def test_the_end_of_a_terminals_command_is_reported_with_all_its_output(client: Client) -> None:
    client.execute(1, "bash", "-c", "seq 20000; exit 7", tty=[24, 80])
    end, out, _ = client.outcome(1)
    assert end["status"] == 7
    assert out.split() == [str(n).encode() for n in range(1, 20001)]


def test_a_terminal_for_an_unknown_program_is_an_error(client: Client) -> None:
    client.execute(1, "no-such-program", tty=[24, 80])
    assert client.outcome(1)[0]["errno"] == errno.ENOENT
