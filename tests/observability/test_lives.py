"""Lives of processes: numbers used again, reports that were lost, containers."""

from __future__ import annotations

import struct

from hyperbox.linux.process_files import ProcessFacts
from hyperbox.observability.layouts import Stage
from hyperbox.observability.lives import Lives, Outside, container_of, pod_of

SECOND = 1_000_000_000


def record(kind: Stage, time_s: float, process: int, **given: object) -> bytes:
    facts: dict[str, object] = {"start": time_s, "other": 0, "code": 0, "comm": b"", "path": b""}
    facts |= given
    packed = struct.pack(
        "<QQQIIIi16s",
        int(time_s * SECOND),
        int(float(str(facts["start"])) * SECOND),
        0,
        kind,
        process,
        facts["other"],
        facts["code"],
        facts["comm"],
    )
    path = facts["path"]
    assert isinstance(path, bytes)
    return packed + path + b"\0"


def table(known: dict[int, ProcessFacts] | None = None) -> Lives:
    facts = known or {}
    outside = Outside(facts.get, lambda _process, _number: "/group", lambda _process: ())
    return Lives(outside, boot=b"boot")


def test_a_life_from_fork_to_exit() -> None:
    lives = table({1: ProcessFacts(0, 0, "init", "/sbin/init")})
    lives.note(
        [
            record(Stage.FORKED, 1, 7, other=1, comm=b"init"),
            record(Stage.EXECUTED, 2, 7, comm=b"cat", path=b"/bin/cat"),
            record(Stage.RENAMED, 3, 7, comm=b"dog"),
            record(Stage.EXITED, 4, 7, code=3 << 8),
        ]
    )
    parent = lives.at(1, 4 * SECOND)
    (life,) = lives.take_ended()
    assert (life.comm, life.executable, life.executed) == ("dog", "/bin/cat", 1)
    assert (life.start_ns, life.end_ns, life.status) == (SECOND, 4 * SECOND, 3 << 8)
    assert life.parent_ids == (parent.trace_id, parent.span_id)


def test_a_number_that_is_used_again_is_another_life() -> None:
    lives = table()
    lives.note([record(Stage.FORKED, 1, 7), record(Stage.EXITED, 2, 7)])
    lives.note([record(Stage.FORKED, 3, 7), record(Stage.EXITED, 4, 7)])
    first, second = lives.at(7, int(1.5 * SECOND)), lives.at(7, int(3.5 * SECOND))
    assert (first.end_ns, second.end_ns) == (2 * SECOND, 4 * SECOND)
    assert first.trace_id != second.trace_id


def test_an_end_that_was_lost_is_the_next_start() -> None:
    lives = table()
    lives.note([record(Stage.FORKED, 1, 7), record(Stage.FORKED, 3, 7)])
    assert [life.end_ns for life in lives.take_ended() if life.process == 7] == [3 * SECOND]


def test_ids_are_those_of_the_life_whoever_traces_it() -> None:
    """A process that was found in /proc has the ids that its fork would have had."""
    seen, found = table(), table({7: ProcessFacts(1, 100, "cat", "/bin/cat")})
    seen.note([record(Stage.FORKED, 1.001, 7)])
    assert seen.at(7, 2 * SECOND).trace_id == found.at(7, 2 * SECOND).trace_id
    assert len(found.at(7, 2 * SECOND).trace_id) == 16


def test_a_process_nobody_knows_has_ended() -> None:
    lives = table()
    assert lives.at(9, SECOND).end_ns == SECOND
    assert list(lives.running()) == []


def test_two_threads_may_both_be_the_last() -> None:
    lives = table()
    lives.note([record(Stage.FORKED, 1, 7), *[record(Stage.EXITED, 2, 7)] * 2])
    assert [life.process for life in lives.take_ended()].count(7) == 1


def test_containers_and_pods_by_their_cgroup() -> None:
    one = "0123456789abcdef" * 4
    for path in (f"/docker/{one}", f"/system.slice/docker-{one}.scope", f"/x/crio-{one}/init"):
        assert container_of(path) == one
    assert container_of("/system.slice/ssh.service") == ""
    uid = "6bd1a4f5-9e4a-4f34-8c9d-2a6d5c0f7e11"
    path = f"/kubepods.slice/kubepods-besteffort-pod{uid.replace('-', '_')}.slice/cri-{one}.scope"
    assert (pod_of(path), container_of(path)) == (uid, one)
    assert pod_of("/user.slice") == ""
