"""Crashes are found in real kernel console texts, and ordinary texts are not crashes."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from hyperbox.harness.lab.crash import find_crash, find_warnings

SYSRQ_OOPS = """\
[   12.881334] sysrq: Trigger a crash
[   12.881901] Kernel panic - not syncing: sysrq triggered crash
[   12.882414] CPU: 0 PID: 214 Comm: sh Not tainted 6.1.0-40-cloud-amd64 #1  Debian 6.1.153-1
[   12.883190] Hardware name: QEMU Standard PC (i440FX + PIIX, 1996), BIOS 1.16.2-debian-1.16.2-1
[   12.883983] Call Trace:
[   12.884212]  <TASK>
[   12.884414]  dump_stack_lvl+0x44/0x5c
[   12.884753]  panic+0x118/0x2ed
[   12.885044]  sysrq_handle_crash+0x16/0x20
[   12.885415]  __handle_sysrq.cold+0xa0/0x115
[   12.885817]  write_sysrq_trigger+0x24/0x40
"""
NULL_DEREFERENCE = """\
BUG: kernel NULL pointer dereference, address: 0000000000000000
#PF: supervisor write access in kernel mode
Oops: 0002 [#1] PREEMPT SMP NOPTI
RIP: 0010:sysrq_handle_crash+0xd/0x20
Call Trace:
 ? __die_body.cold+0x1a/0x1f
 __handle_sysrq+0x9e/0x160
Kernel panic - not syncing: Fatal exception
"""
INIT_DIED = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\n"


def test_panic_is_named_by_its_stack() -> None:
    crash = find_crash(SYSRQ_OOPS)
    assert crash is not None
    assert crash.kind == "panic"
    assert crash.message == "Kernel panic - not syncing: sysrq triggered crash"
    assert (
        crash.fingerprint == "panic: sysrq_handle_crash < __handle_sysrq.cold < write_sysrq_trigger"
    )


def test_first_report_wins_over_the_panic_that_follows() -> None:
    crash = find_crash(NULL_DEREFERENCE)
    assert crash is not None
    assert crash.kind == "oops"
    assert crash.fingerprint.startswith("oops: sysrq_handle_crash < ")


def test_panic_without_a_stack_is_named_by_its_words() -> None:
    crash = find_crash(INIT_DIED)
    assert crash is not None
    assert crash.fingerprint == "panic: Attempted to kill init! exitcode=0x00000100"


def test_carriage_returns_and_timestamps_do_not_matter() -> None:
    plain = re.sub(r"^\[ *[\d.]+\] ?", "", SYSRQ_OOPS, flags=re.MULTILINE)
    assert find_crash(SYSRQ_OOPS.replace("\n", "\r\n")) == find_crash(plain)


def test_ordinary_boot_is_no_crash() -> None:
    text = "[    0.00] Linux version 6.12\n[    0.51] debug: BUGs are everywhere\n"
    assert find_crash(text) is None
    assert find_warnings(text) == ()


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    find_crash(text)
    find_warnings(text)


def test_warnings_are_listed_in_order() -> None:
    text = (
        "[ 1.0] WARNING: CPU: 0 PID: 1 at mm/vmscan.c:12 shrink_node+0x1/0x2\n"
        "[ 2.0] Out of memory: Killed process 12 (stress)\n"
    )
    assert find_warnings(text) == (
        "mm/vmscan.c:12 shrink_node+0x1/0x2",
        "Out of memory: Killed process 12 (stress)",
    )
