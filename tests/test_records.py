"""Records on disk: processes told apart, lines cut short."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.records import Owner, file_name, parse, read_directory, sweep, this_process

OWNER = Owner(1, 2, 3, "boot")


def test_this_process_lives_and_knows_itself() -> None:
    owner = this_process()
    assert owner.pid == os.getpid()
    assert owner.start > 0
    assert owner.lives()
    assert owner.booted_now()


def test_a_recycled_number_is_another_process() -> None:
    owner = this_process()
    assert not replace(owner, start=owner.start - 1).lives()


def test_nothing_lives_on_after_a_boot() -> None:
    owner = replace(this_process(), boot="00000000-0000-0000-0000-000000000000")
    assert not owner.lives()
    assert not owner.booted_now()


def test_a_process_of_another_pid_namespace_may_live() -> None:
    assert replace(this_process(), pid=1 << 30, namespace=1).lives()


def test_a_killed_process_is_dead_before_it_is_reaped() -> None:
    process = subprocess.Popen(["sleep", "600"])
    here = this_process()
    start = _start(process.pid)
    owner = Owner(process.pid, start, here.namespace, here.boot)
    assert owner.lives()
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
    assert not owner.lives()
    process.wait()
    assert not owner.lives()


def test_a_directory_named_like_a_journal_is_passed_over(tmp_path: Path) -> None:
    dead = replace(this_process(), start=this_process().start - 1)
    place = tmp_path / file_name(dead)
    place.mkdir()
    before = len([*Path("/proc/self/fd").iterdir()])
    assert read_directory(tmp_path) == ()
    sweep(tmp_path)
    assert place.is_dir()
    assert len([*Path("/proc/self/fd").iterdir()]) == before


def test_a_forked_child_is_itself() -> None:
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writable, str(this_process().pid).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(readable, 32)) == child
    os.close(readable)
    os.close(writable)


def _start(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


@pytest.mark.root
def test_a_process_of_another_user_lives() -> None:
    process = subprocess.Popen(["sleep", "600"], user=65534)
    try:
        here = this_process()
        assert Owner(process.pid, _start(process.pid), here.namespace, here.boot).lives()
    finally:
        process.kill()
        process.wait()


facts = st.dictionaries(
    st.text(max_size=5), st.text() | st.integers() | st.lists(st.text(max_size=3)), max_size=3
)
steps = st.lists(st.tuples(st.sampled_from(["begin", "note", "done"]), st.integers(1, 4), facts))


def _written(plan: list[tuple[str, int, dict[str, object]]]) -> tuple[str, list[dict[int, object]]]:
    """Write lines as a journal does; return them with what is outstanding after each."""
    lines, known, history = [], {}, [{}]  # type: ignore[var-annotated]
    for step, number, given_facts in plan:
        entry: dict[str, object] = {"change": number}
        if step == "begin" and number not in known:
            entry |= {"kind": "k", "subject": "s", "at": 5, "facts": given_facts}
            known[number] = given_facts
        elif step == "note" and number in known:
            entry["facts"] = given_facts
            known[number] = known[number] | given_facts
        elif step == "done" and number in known:
            entry["done"] = True
            del known[number]
        else:
            continue
        lines.append(json.dumps(entry) + "\n")
        history.append(dict(known))
    return "".join(lines), history


@given(steps, st.data())
def test_a_journal_cut_anywhere_tells_what_was_on_disk(
    plan: list[tuple[str, int, dict[str, object]]], data: st.DataObject
) -> None:
    text, history = _written(plan)
    cut = data.draw(st.integers(0, len(text)))
    whole = text[:cut].count("\n")
    found = {change.number: change.facts for change in parse(text[:cut], OWNER)}
    assert found in (history[whole], history[min(whole + 1, len(history) - 1)])


@given(st.text())
def test_nonsense_is_passed_over(text: str) -> None:
    good = '{"change":1,"kind":"k","subject":"s","at":5,"facts":{}}'
    assert len(parse(f"{good}\n{text}", OWNER)) <= 2
    for line in ("[]", "1", '"x"', "null", '{"change":null}', '{"change":1,"facts":7}'):
        assert len(parse(f"{good}\n{line}\n", OWNER)) == 1
