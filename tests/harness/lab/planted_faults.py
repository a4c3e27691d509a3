"""Kernel modules that break their kernel on purpose, for any kernel of the matrix.

Distribution kernels have no fault injection, and their headers need their own compiler. A
module needs neither: the assembler makes the code, and what differs between kernels (size
and layout of ``struct module``, layout of a BUG's record) is
read off one of the kernel's own modules. They are loaded with ``insmod -f``, which needs no
symbol versions and taints the kernel F, O and E.
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FAULTS", "Template", "assemble"]

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")

FAULTS = {
    "oops": "xor %eax, %eax; mov %eax, (%rax)",
    "bug": "1: ud2; bug_entry 1b, 0",
    "warn": "1: ud2; bug_entry 1b, 0x901",  # BUGFLAG_WARNING, taint W
    "panic": "lea message(%rip), %rdi; xor %eax, %eax; call panic",
    # Halted until the next interrupt: costs no CPU where idle time is skipped.
    "spin": "lea lock(%rip), %rdi; call _raw_spin_lock; 1: hlt; jmp 1b",
    # A reader of RCU that never ends. Where readers can be preempted, others go on and ask for
    # its end; elsewhere the module loader has asked already.
    "stall": ".weak __rcu_read_lock; movabs $__rcu_read_lock, %rax; test %rax, %rax; jz 2f;"
    "call *%rax; 1: hlt; jmp 1b; 2: lea lock(%rip), %rdi; call _raw_spin_lock; jmp 1b",
    "deaf": "cli; 1: hlt; jmp 1b",
    "busy": "cli; 1: pause; jmp 1b",
    "hang": "movabs $0x7fffffffffffffff, %rdi; call schedule_timeout_uninterruptible",
}
"""What each module does when it is loaded, in assembly.

`spin` keeps the processor with interrupts on, `deaf` and `busy` with interrupts off;
`hang` sleeps uninterruptibly for ever.
"""

_SOURCE = """
.macro bug_entry where, flags
.pushsection __bug_table, "aw"
2: .long \\where - 2b
{format_field}
3: .long file - 3b
   .word 42
   .word \\flags
.popsection
.endm
.section .modinfo, "a"
.asciz "license=GPL"
.asciz "name=planted"
.asciz "depends="
.asciz "retpoline=Y"
.section .rodata, "a"
.ascii "src/"
file: .asciz "planted.c"
message: .asciz "planted panic"
.data
lock: .quad 0
.section .gnu.linkonce.this_module, "aw"
.balign 64
this: .skip 24
.asciz "planted"
.org {init}
.quad init_module
.org {size}
.text
.balign 16
.type planted_{fault}, @function
planted_{fault}: {code}
ret
.size planted_{fault}, . - planted_{fault}
.globl init_module
.type init_module, @function
init_module: sub $8, %rsp
call planted_{fault}
xor %eax, %eax
add $8, %rsp
ret
.size init_module, . - init_module
.section .note.GNU-stack, "", @progbits
"""


@dataclass(frozen=True)
class Template:
    """What a module of one kernel has in common with every other."""

    size: int
    init: int
    bug_entry: int

    @classmethod
    def of(cls, module: bytes) -> Template:
        """Read it off a module that has warnings of its own."""
        sections = dict(_sections(module))
        this = ".gnu.linkonce.this_module"
        init = next(
            offset
            for offset, symbol in _relocations(module, sections[f".rela{this}"])
            if _symbol_name(module, sections, symbol) == "init_module"
        )
        records = sorted(offset for offset, _ in _relocations(module, sections[".rela__bug_table"]))
        short = all(offset % 12 in (0, 4) for offset in records)
        return cls(sections[this][5], init, 12 if short else 16)


def assemble(template: Template, fault: str, scratch: Path) -> bytes:
    """Return the module that does one of `FAULTS` in the template's kernel."""
    source = _SOURCE.format(
        format_field="4: .long file - 4b" if template.bug_entry == 16 else "",
        init=template.init,
        size=template.size,
        fault=fault,
        code=FAULTS[fault],
    )
    target = scratch / f"planted_{fault}.ko"
    subprocess.run(["as", "-o", target, "-"], input=source.encode(), check=True)
    return target.read_bytes()


def _sections(module: bytes) -> Iterator[tuple[str, tuple[int, ...]]]:
    header = _HEADER.unpack_from(module)
    start, count, names_index = header[6], header[12], header[13]
    found = [_SECTION.unpack_from(module, start + _SECTION.size * n) for n in range(count)]
    names = _content(module, found[names_index])
    for section in found:
        yield _text(names, section[0]), section


def _content(module: bytes, section: tuple[int, ...]) -> bytes:
    return module[section[4] : section[4] + section[5]]


def _relocations(module: bytes, section: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return offset and number of the symbol of each relocation."""
    entries = _RELOCATION.iter_unpack(_content(module, section))
    return [(offset, info >> 32) for offset, info, _ in entries]


def _symbol_name(module: bytes, sections: dict[str, tuple[int, ...]], number: int) -> str:
    place = sections[".symtab"][4] + number * _SYMBOL.size
    name = _SYMBOL.unpack_from(module, place)[0]
    return _text(_content(module, sections[".strtab"]), name)


def _text(strings: bytes, start: int) -> str:
    return strings[start : strings.index(b"\0", start)].decode()
