"""Crashes are found in real kernel console texts, and ordinary texts are not crashes."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings

from hyperbox.harness.lab.crash import OOM_KILL, WARN, find_crash, find_reports
from tests.mutation import batches

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
    crash = find_crash("Kernel panic - not syncing: Fatal machine check\n")
    assert crash is not None
    assert crash.fingerprint == "panic: Fatal machine check"


def test_death_of_the_agent_has_a_name_of_its_own() -> None:
    crash = find_crash(INIT_DIED)
    assert crash is not None
    assert crash.kind == "agent death"
    assert crash.fingerprint.startswith("agent death: exitcode=")


def test_carriage_returns_and_timestamps_do_not_matter() -> None:
    plain = re.sub(r"^\[ *[\d.]+\] ?", "", SYSRQ_OOPS, flags=re.MULTILINE)
    assert find_crash(SYSRQ_OOPS.replace("\n", "\r\n")) == find_crash(plain)


def test_ordinary_boot_is_no_crash() -> None:
    text = "[    0.00] Linux version 6.12\n[    0.51] debug: BUGs are everywhere\n"
    assert find_crash(text) is None
    assert find_reports(text) == ()


def test_a_flood_is_one_report_more_that_nothing_allows() -> None:
    for text in ("WARNING: a\n" * 20_000, "\n" + "x" * (5 << 20) + "\n"):
        *reports, last = find_reports(text)
        assert len(reports) in (0, 1000)
        assert last.kind == "flood of messages"
        assert not last.survivable
        assert find_crash(text) is None
        assert find_crash(f"{text}{INIT_DIED}") == find_crash(INIT_DIED)


@pytest.mark.parametrize(
    "text",
    [
        "BUG: x\n" * 20_000,
        "BUG: soft lockup - CPU#0\n<IRQ>\n" * 5_000,
        f"BUG: soft lockup - CPU#0\n{'<IRQ>' * 30_000}",
        f"BUG: x\n{'a: 0000 [#1]' * 10_000}",
        "BUG: x\n" + "a: 0000 [#1]\n" * 10_000,
        "INFO: task a:1 <" * 10_000,
        f"INFO: task {':1' * 70_000}",
        f"BUG: x\n{chr(10) * 140_000}",
    ],
)
def test_text_that_a_program_wrote_takes_no_longer_than_its_length(text: str) -> None:
    """Each of these took minutes or hours, since parts of it were looked at again and again."""
    assert len(find_reports(text)) <= 1001
    assert all(len(report.fingerprint) < 400 for report in find_reports(text))


def test_a_report_without_a_stack_has_the_next_one_that_was_printed() -> None:
    text = "BUG: scheduling while atomic\nWARNING: nothing\n kfree+0x1/0x2\n"
    assert [report.fingerprint for report in find_reports(text)] == ["BUG: kfree", "WARN: kfree"]


CONSOLES = [
    *(SYSRQ_OOPS, NULL_DEREFERENCE, INIT_DIED),
    "[ 1.0] WARNING: CPU: 0 PID: 1 at mm/vmscan.c:12 shrink_node+0x1/0x2\r\n",
    "watchdog: BUG: soft lockup - CPU#0\n <IRQ>\n a+0x6b/0x83\n </IRQ>\n b+0x1/0x2\n",
    "rcu: INFO: rcu_preempt self-detected stall on CPU\nRIP: 0010:spin+0xd/0x10\n",
    "INFO: task insmod:124 <writer> blocked for more than 120 seconds.\n",
]


@settings(max_examples=200)  # of 50 inputs each
@example(["INFO: task a:1 <" * 5000, "BUG: x\n" * 20_000, "BUG: x\n" + "\n" * 140_000])
@given(batches(CONSOLES))
def test_any_text_is_read(texts: list[str]) -> None:
    for text in texts:
        reports = find_reports(text)
        assert all(len(report.fingerprint) < 400 for report in reports)
        assert not any("\n" in report.fingerprint + report.message for report in reports)
        crash = next((report for report in reports if not report.survivable), None)
        assert find_crash(text) == crash


def test_warnings_are_listed_in_order_and_are_no_crash() -> None:
    text = (
        "[ 1.0] WARNING: CPU: 0 PID: 1 at mm/vmscan.c:12 shrink_node+0x1/0x2\n"
        "[ 1.0] RIP: 0010:shrink_node+0x1/0x2\n"
        "[ 2.0] Out of memory: Killed process 12 (stress) total-vm:1kB\n"
        "[ 3.0] Memory cgroup out of memory: Killed process 13 (walk)\n"
        "[ 4.0] WARNING: mm/swap.c:7 at drain+0x3/0x9, CPU#0: insmod/12\n"
    )
    found = find_reports(text)
    assert [report.kind for report in found] == [WARN, OOM_KILL, OOM_KILL, WARN]
    assert found[0].fingerprint == "WARN: shrink_node"
    assert found[3].fingerprint == "WARN: mm/swap.c:7 at drain, CPU#0: insmod/12"
    assert all(report.survivable for report in found)
    assert find_crash(text) is None


def test_a_lockup_is_named_by_what_the_processor_was_doing() -> None:
    text = (
        "watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [insmod:124]\n"
        "RIP: 0010:planted_spin+0xd/0x10 [planted]\n"
        "Call Trace:\n do_one_initcall+0x41/0x1e0\n"
        "Kernel panic - not syncing: softlockup: hung tasks\n"
        "Call Trace:\n <IRQ>\n dump_stack+0x6b/0x83\n watchdog_timer_fn.cold+0xc/0x16\n </IRQ>\n"
    )
    lockup, panic = find_reports(text)
    assert lockup.fingerprint == "soft lockup: planted_spin < do_one_initcall"
    assert panic.kind == "panic"


def test_a_stopped_guest_is_named_by_what_the_interrupt_found() -> None:
    text = (
        "Kernel panic - not syncing: NMI: Not continuing\n"
        "Call Trace:\n <NMI>\n panic+0x114/0x2f1\n nmi_panic.cold+0xc/0xc\n"
        "RIP: 0010:planted_deaf+0x2/0x5 [planted]\n </NMI>\n init_module+0x9/0xffb\n"
    )
    crash = find_crash(text)
    assert crash is not None
    assert crash.fingerprint == "stopped answering: planted_deaf < init_module"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("invalid opcode: 0000 [#1] SMP NOPTI", "oops"),
        ("Oops: general protection fault, probably for address 1: 0000 [#1]", "oops"),
        ("rcu: INFO: rcu_preempt self-detected stall on CPU", "RCU stall"),
        ("rcu: INFO: rcu_sched detected stalls on CPUs/tasks:", "RCU stall"),
        ("INFO: task insmod:124 blocked for more than 120 seconds.", "hung task"),
        ("BUG: scheduling while atomic: a/1/0x2", "BUG"),
        ("BUG: Bad page state in process a", "bad page"),
        ("BUG: workqueue lockup - pool cpus=0", "workqueue lockup"),
        ("Kernel panic - not syncing: System is deadlocked on memory", "out of memory"),
        ('Kernel panic - not syncing: VFS: Unable to mount root fs on ""', "no root"),
    ],
)
def test_kinds_of_crashes(line: str, kind: str) -> None:
    crash = find_crash(f"[    1.0] {line}\n")
    assert crash is not None
    assert crash.kind == kind
    assert crash.fingerprint.startswith(f"{kind}: ")


@pytest.mark.parametrize(
    "line",
    [
        "traps: python3[12] general protection fault ip:7f sp:7f error:0 in libc.so",
        "Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on",
        "python3[5]: segfault at 0 ip 00007f sp 00007f error 4",
    ],
)
def test_what_a_program_did_is_no_trouble_of_the_kernel(line: str) -> None:
    assert find_reports(f"[    1.0] {line}\n") == ()
