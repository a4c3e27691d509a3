"""``hyperbox exec`` as people call it; what streams do in detail is in test_session."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.cli.exec import KeptInput, LinePrefix
from hyperbox.cli.main import main
from hyperbox.harness.lab.kernel_kit import kernel_kit

COMMAND = [sys.executable, "-m", "hyperbox", "exec", "--kernel", "6.12"]


@given(st.lists(st.sampled_from([b"a", b"\n", b"b\nc", b"\n\n", b"", b"\r"])))
def test_every_line_has_one_prefix_however_it_arrives(pieces: list[bytes]) -> None:
    out = bytearray()
    prefix = LinePrefix(b"6.1 | ", out.extend)
    for piece in pieces:
        prefix(piece)
    prefix.end()
    whole = b"".join(pieces)
    lines = whole.removesuffix(b"\n").split(b"\n") if whole else []
    assert bytes(out) == b"".join(b"6.1 | " + line + b"\n" for line in lines)


def test_several_get_the_same_input_as_it_comes_and_none_waits_for_its_end() -> None:
    read, write = os.pipe()
    os.set_blocking(read, False)
    with io.FileIO(read) as source, contextlib.closing(KeptInput(source)) as kept:
        os.write(write, b"one")
        assert kept.read(2) == b"on"
        assert kept.fileno() == read
        first = kept.rewound()  # the second starts while the pipe stays open
        assert first.fileno() != read
        assert (first.read(9), first.fileno(), first.read(9)) == (b"on", read, b"e")
        assert first.read(9) is None
        os.close(write)
        assert first.read(9) == b""
        again = kept.rewound()
        assert [again.read(9), again.read(9), again.read(9)] == [b"one", b"", b""]
        assert again.fileno() != read


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--kernel", "6.12"], "the following arguments are required: CMD"),
        (["--kernel", "6.13", "--", "true"], "unknown kernel '6.13'"),
        (["--put", "file", "--", "true"], "--put takes FILE:PATH, not 'file'"),
        (["--put", "/no/file:/tmp/x", "--", "true"], "cannot read /no/file"),
        (["--get", ":x", "--", "true"], "--get takes PATH:FILE, not ':x'"),
        (["--timeout", "0", "--", "true"], "--timeout must be more than 0"),
        (["--timeout", "x", "--", "true"], "invalid float value"),
        (["--memory", "64", "--", "true"], "--memory must be a whole number from 256 up"),
        (["--modules", "/tmp", "--", "true"], "--modules are those of a bzImage"),
        (["--lane", "slow", "--", "true"], "invalid choice: 'slow'"),
        (["--cpus", "0", "--", "true"], "--cpus must be a whole number from 1 up, not '0'"),
        (["--layer", "radis", "--", "true"], "no layer is called 'radis'"),
    ],
)
def test_bad_usage_is_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["exec", *words]) == 64
    lines = capsys.readouterr().err.splitlines()
    assert message in lines[0]
    assert len(lines) <= 2


@pytest.mark.parametrize("kernels", [["6.12", "6.1"], ["default"]])
def test_get_from_several_kernels_is_refused_before_any_is_made(
    kernels: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HYPERBOX_CACHE", "/dev/null/none")  # nothing can be made there
    asked = [word for kernel in kernels for word in ("--kernel", kernel)]
    assert main(["exec", *asked, "--get", "/tmp/x:x", "--", "true"]) == 64
    assert "--get works with one kernel" in capsys.readouterr().err


@pytest.mark.vm
def test_files_streams_and_status_of_one_command(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], no_leftovers: None
) -> None:
    program = tmp_path / "a:program"
    program.write_text(
        "#!/bin/sh\nuname -r; nproc; modprobe nbd; echo err >&2; echo $1 > /tmp/out\n"
        "python3 -c 'import starlette' || exit 5; exit 4\n"
    )
    program.chmod(0o755)
    words = ["--kernel", "6.12", "--json", "--memory", "512", "--layer", "daemon"]
    words += ["--cpus", "2", "--without-module", "nbd"]
    words += ["--put", f"{program}:/tmp/program", "--get", f"/tmp/out:{tmp_path}/b:out"]
    assert main(["exec", *words, "--", "/tmp/program", "--", "-x"]) == 4
    shown = json.loads(capfd.readouterr().out)
    (run,) = shown["runs"]
    assert (shown["exit_code"], shown["lane"], run["status"]) == (4, "fast", 4)
    assert run["stdout"] == f"{kernel_kit('6.12').release}\n2\n"
    assert re.fullmatch(r"modprobe: FATAL: Module nbd not found.*\nerr\n", run["stderr"])
    assert run["kernel"]["label"] == "6.12"
    assert run["error"] is None
    assert (tmp_path / "b:out").read_text() == "--\n"


@pytest.mark.vm
def test_a_dying_machine_is_3_and_one_line_that_leads_to_the_console(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--", "sh", "-c", "echo before; sleep 1; echo c > /proc/sysrq-trigger"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stdout) == (3, "before\n")
    (line,) = done.stderr.splitlines()
    found = re.search(r"crashed: .*\[panic: sysrq_handle_crash < .*\]; console: (\S+)$", line)
    assert found, line
    assert "sysrq triggered crash" in Path(found[1]).read_text()


@pytest.mark.vm
def test_ctrl_c_ends_the_command_and_the_guest() -> None:
    script = "trap 'echo last words; exit' INT; echo ready; sleep 1000 & wait"
    with subprocess.Popen(
        [*COMMAND, "--", "sh", "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "last words\n"
        assert process.stderr.read() == "hyperbox: interrupted\n"
    assert process.returncode == 130
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text()
    assert str(process.pid) not in children.split()
