"""The interpreter of seccomp filters agrees with the kernel and refuses what it refuses."""

from __future__ import annotations

import errno
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.isolation.classic_bpf import (
    AUDIT_ARCH_X86_64,
    Call,
    Instruction,
    decoded,
    executes,
    run,
    steps,
)
from hyperbox.isolation.default_profile import DEFAULTS, default_profile
from hyperbox.isolation.libseccomp_filter import compile_profile
from hyperbox.linux.syscalls import Abi, numbers

ALLOW, ERRNO = 0x7FFF0000, 0x00050000
LOAD_NUMBER = Instruction(0x20, 0, 0, 0)
WORDS = st.integers(0, 2**32 - 1)

# Loads the profile, then makes each call with arguments that cannot do harm if it is let through.
PROBE = """
import ctypes, json, sys
from hyperbox.isolation.default_profile import default_profile
from hyperbox.isolation.seccomp_gen import apply
calls = json.loads(sys.argv[2])
libc = ctypes.CDLL(None, use_errno=True)
apply(default_profile(sys.argv[1]))
found = []
for number, arguments in calls:
    ctypes.set_errno(0)
    result = libc.syscall(number, *(ctypes.c_ulong(one) for one in arguments))
    found.append(ctypes.get_errno() if result == -1 else 0)
print(json.dumps(found))
"""
PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF, 0x1234, 0x40000)
CALLS = [
    ("getpid", ()),
    ("bpf", (0xFFFF, 0, 0)),
    ("keyctl", (0xFFFF, 0, 0)),
    ("clone3", (0, 0)),
    ("unshare", (0x10000000,)),
    ("mount", (0, 0, 0, 0, 0)),
    ("socket", (38, 5, 0)),  # AF_ALG
    ("socket", (40, 1, 0)),  # AF_VSOCK
    ("socket", (1, 1, 0)),  # AF_UNIX
    ("io_uring_setup", (0, 0)),
    ("userfaultfd", (0xFFFF,)),
    *(("personality", (value,)) for value in PERSONALITIES),
]


@pytest.mark.parametrize("name", DEFAULTS)
def test_interpreter_agrees_with_the_kernel(name: str) -> None:
    table = numbers(Abi.X86_64)
    calls = [(table[call], list(arguments)) for call, arguments in CALLS]
    probe = [sys.executable, "-c", PROBE, name, json.dumps(calls)]
    done = subprocess.run(probe, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    program = compile_profile(default_profile(name)).instructions
    stopped = []
    for (number, arguments), error in zip(calls, found, strict=True):
        predicted = run(program, Call(number, arguments=tuple(arguments)))
        if executes(predicted):
            assert error not in (errno.EPERM, errno.ENOSYS), number
        else:
            assert predicted == ERRNO | error, number
            stopped.append(number)
    assert stopped
    assert table["getpid"] not in stopped


def test_steps_count_what_is_executed() -> None:
    program = [LOAD_NUMBER, Instruction(0x15, 0, 1, 39), Instruction(0x06, 0, 0, ALLOW)]
    program.append(Instruction(0x06, 0, 0, ERRNO | 1))
    assert steps(program, Call(39)) == 3
    assert steps(program, Call(40)) == 3
    assert (run(program, Call(39)), run(program, Call(40))) == (ALLOW, ERRNO | 1)


@given(WORDS, WORDS)
def test_words_are_taken_apart_and_put_together(first: int, second: int) -> None:
    """A scratch register, both ways to load, and operations with either operand."""
    program = [
        Instruction(0x20, 0, 0, 16),  # A = low word of argument 0
        Instruction(0x02, 0, 0, 3),  # M[3] = A
        Instruction(0x61, 0, 0, 3),  # X = M[3]
        Instruction(0x20, 0, 0, 20),  # A = its high word
        Instruction(0xAC, 0, 0, 0),  # A ^= X
        Instruction(0x16, 0, 0, 0),  # return A
    ]
    assert run(program, Call(0, arguments=(first | second << 32,))) == first ^ second


@given(st.integers(0, 2**16 - 1), WORDS)
def test_what_is_no_instruction_is_refused(code: int, k: int) -> None:
    program = [Instruction(code, 0, 0, k), Instruction(0x06, 0, 0, ALLOW)]
    known = {0x00, 0x01, 0x02, 0x03, 0x06, 0x07, 0x0E, 0x16, 0x20, 0x60, 0x61, 0x80, 0x81, 0x87}
    if code & 0x07 in (0x04, 0x05, 0x06) or code in known:
        return
    with pytest.raises(ValueError, match="not one of a filter"):
        run(program, Call(0))


def test_division_by_zero_ends_the_filter() -> None:
    program = [Instruction(0x00, 0, 0, 7), Instruction(0x3C, 0, 0, 0), Instruction(0x16, 0, 0, 0)]
    assert run(program, Call(0)) == 0


def test_a_call_lies_as_in_seccomp_data() -> None:
    packed = Call(2, AUDIT_ARCH_X86_64, (1, 2**63), 5).packed()
    assert len(packed) == 64
    assert packed[:8] == b"\x02\x00\x00\x00\x3e\x00\x00\xc0"
    assert packed[24:32] == b"\x00" * 7 + b"\x80"


def test_a_filter_of_odd_length_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 8"):
        decoded(b"\x00" * 9)
