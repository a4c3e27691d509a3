"""Seccomp filters as the kernel runs them: classic BPF over ``struct seccomp_data``.

Follows Documentation/userspace-api/seccomp_filter.rst, <linux/filter.h> and the checks of
``seccomp_check_filter`` in kernel/seccomp.c, which says which instructions a filter may have. Pure.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = [
    "AUDIT_ARCH_I386",
    "AUDIT_ARCH_X86_64",
    "Call",
    "Instruction",
    "decoded",
    "executes",
    "run",
    "steps",
]

AUDIT_ARCH_X86_64 = 0xC000003E  # <linux/audit.h>
AUDIT_ARCH_I386 = 0x40000003
_SECCOMP_RET_LOG = 0x7FFC0000
_SECCOMP_RET_ALLOW = 0x7FFF0000
_ACTION = 0xFFFF0000  # SECCOMP_RET_ACTION_FULL
_WORD = 0xFFFFFFFF


class Instruction(NamedTuple):
    """``struct sock_filter``."""

    code: int
    jt: int
    jf: int
    k: int


@dataclass(frozen=True)
class Call:
    """``struct seccomp_data``: what a filter sees of a system call."""

    number: int
    architecture: int = AUDIT_ARCH_X86_64
    arguments: tuple[int, ...] = field(default=(0,) * 6)
    instruction_pointer: int = 0

    def packed(self) -> bytes:
        """Return it as it lies in memory of a little-endian machine."""
        arguments = (*self.arguments, *(0,) * (6 - len(self.arguments)))
        return struct.pack(
            "<IIQ6Q", self.number & _WORD, self.architecture, self.instruction_pointer, *arguments
        )


def decoded(program: bytes) -> tuple[Instruction, ...]:
    """Return the instructions of a filter as ``seccomp_export_bpf`` writes it.

    Raises
    ------
    ValueError
        If the length is not a multiple of 8 bytes.
    """
    if len(program) % 8:
        raise ValueError(f"a filter of {len(program)} bytes, which is not a multiple of 8")
    return tuple(Instruction(*fields) for fields in struct.iter_unpack("<HBBI", program))


def executes(result: int) -> bool:
    """Return whether a filter's result lets the kernel execute the call."""
    return result & _ACTION in (_SECCOMP_RET_ALLOW, _SECCOMP_RET_LOG)


def run(program: Sequence[Instruction], call: Call) -> int:
    """Return what a filter returns for a call: ``SECCOMP_RET_*`` and its data.

    Raises
    ------
    ValueError
        For an instruction that the kernel refuses in a filter.
    """
    return _run(program, call)[0]


def steps(program: Sequence[Instruction], call: Call) -> int:
    """Return how many instructions a filter executes for a call.

    From Linux 5.11 on (8e01b51a31a1) a call that is allowed whatever its arguments
    executes none: the kernel keeps a bitmap of them.
    """
    return _run(program, call)[1]


def _run(program: Sequence[Instruction], call: Call) -> tuple[int, int]:
    machine = _Registers(call.packed())
    place = count = 0
    while True:
        code, jt, jf, k = program[place]
        place += 1
        count += 1
        kind = code & 0x07
        if kind == _BPF_JMP:
            if code == _BPF_JA:
                place += k
            else:
                operand = machine.index if code & _BPF_X else k
                place += jt if _JUMPS[code & 0xF0](machine.accumulator, operand) else jf
        elif kind == _BPF_RET:
            return (machine.accumulator if code & 0x18 else k), count
        elif code == _BPF_DIV_X and not machine.index:
            return 0, count  # as bpf_convert_filter() makes of it
        else:
            machine.do(code, k)


class _Registers:
    """Accumulator, index register and scratch memory of one run."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.accumulator = self.index = 0
        self.memory = [0] * 16

    def do(self, code: int, k: int) -> None:
        if code == _BPF_LD_ABS:
            (self.accumulator,) = _WORD_AT.unpack_from(self.data, k)
        elif code & 0x07 == _BPF_ALU:
            operand = self.index if code & _BPF_X else k
            self.accumulator = _OPERATIONS[code & 0xF0](self.accumulator, operand) & _WORD
        elif code in _LOADS:
            self.accumulator = _LOADS[code](self, k)
        elif code in _INDEX_LOADS:
            self.index = _INDEX_LOADS[code](self, k)
        elif code in _STORES:
            self.memory[k] = self.accumulator if code == _BPF_ST else self.index
        else:
            raise ValueError(f"code {code:#x} is not one of a filter")


_BPF_ALU, _BPF_JMP, _BPF_RET = 0x04, 0x05, 0x06  # classes
_BPF_X = 0x08
_BPF_JA = 0x05
_BPF_LD_ABS = 0x20  # BPF_LD | BPF_W | BPF_ABS
_BPF_DIV_X = 0x3C
_BPF_ST, _BPF_STX = 0x02, 0x03
_WORD_AT = struct.Struct("<I")
_JUMPS: Mapping[int, Callable[[int, int], bool]] = {
    0x10: operator.eq,
    0x20: operator.gt,
    0x30: operator.ge,
    0x40: lambda left, right: bool(left & right),  # BPF_JSET
}
_OPERATIONS: Mapping[int, Callable[[int, int], int]] = {
    0x00: operator.add,
    0x10: operator.sub,
    0x20: operator.mul,
    0x30: operator.floordiv,
    0x40: operator.or_,
    0x50: operator.and_,
    # The eBPF that the kernel makes of a filter uses the lowest five bits of a count.
    0x60: lambda left, right: left << (right & 31),
    0x70: lambda left, right: left >> (right & 31),
    0x80: lambda left, _: -left,
    0xA0: operator.xor,
}
_LOADS: Mapping[int, Callable[[_Registers, int], int]] = {
    0x00: lambda _, k: k,  # BPF_LD | BPF_IMM
    0x60: lambda registers, k: registers.memory[k],  # BPF_LD | BPF_MEM
    0x80: lambda registers, _: len(registers.data),  # BPF_LD | BPF_W | BPF_LEN
    0x87: lambda registers, _: registers.index,  # BPF_MISC | BPF_TXA
}
_INDEX_LOADS: Mapping[int, Callable[[_Registers, int], int]] = {
    0x01: lambda _, k: k,  # BPF_LDX | BPF_IMM
    0x61: lambda registers, k: registers.memory[k],  # BPF_LDX | BPF_MEM
    0x81: lambda registers, _: len(registers.data),  # BPF_LDX | BPF_W | BPF_LEN
    0x07: lambda registers, _: registers.accumulator,  # BPF_MISC | BPF_TAX
}
_STORES = (_BPF_ST, _BPF_STX)
