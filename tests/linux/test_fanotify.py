"""Pre-content events: what a group's bytes say, and events of the machine's own kernel."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.errors import KernelFeatureMissing
from hyperbox.linux.fanotify import (
    AccessEvent,
    deny_lost,
    mark_file,
    open_group,
    parse_events,
    read_events,
    unmark_file,
)


def event(handle: int, offset: int, length: int, pid: int, *, mask: int = 0x100000) -> bytes:
    info = struct.pack("=BBHIQQ", 6, 0, 24, 0, offset, length)
    return struct.pack("=IBBHQii", 48, 3, 0, 24, mask, handle, pid) + info


SMALL = st.integers(0, 2**31 - 1)


@given(st.lists(st.builds(AccessEvent, SMALL, SMALL, SMALL, SMALL), max_size=5))
def test_events_come_in_a_row(events: list[AccessEvent]) -> None:
    data = b"".join(event(one.handle, one.offset, one.length, one.pid) for one in events)
    assert list(parse_events(data)) == events


def test_event_without_range_is_about_all() -> None:
    data = struct.pack("=IBBHQii", 24, 3, 0, 24, 0x100000, 5, 6)
    assert list(parse_events(data)) == [AccessEvent(5, 0, 1 << 62, 6)]


def test_overflow_is_no_access() -> None:
    assert list(parse_events(event(-1, 0, 0, 0, mask=0x4000))) == []


@given(st.binary(max_size=120))
def test_other_bytes_are_refused_or_end(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        list(parse_events(data))


@pytest.fixture
def marked(tmp_path: Path) -> tuple[int, Path]:
    """A file of zeros that a group is asked about."""
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 16))
    try:
        group = open_group()
        mark_file(group, path)
    except KernelFeatureMissing as missing:
        pytest.skip(missing.message)
    return group, path


def reader(path: Path, found: list[object]) -> threading.Thread:
    def read() -> None:
        try:
            found.append(path.read_bytes()[:9])
        except OSError as error:
            found.append(error.errno)

    thread = threading.Thread(target=read)
    thread.start()
    return thread


def next_event(group: int) -> AccessEvent:
    while not (events := read_events(group)):
        time.sleep(0.005)
    return events[0]


@pytest.mark.root
def test_reader_gets_what_was_put_there_meanwhile(marked: tuple[int, Path]) -> None:
    group, path = marked
    found: list[object] = []
    thread = reader(path, found)
    asked = next_event(group)
    os.pwrite(asked.handle, b"meanwhile", 0)
    asked.allow(group)
    os.close(asked.handle)
    unmark_file(group, path)  # later reads ask nobody
    while thread.is_alive():
        for more in read_events(group):
            more.allow(group)
            os.close(more.handle)
        thread.join(0.01)
    os.close(group)
    assert found == [b"meanwhile"]


@pytest.mark.root
def test_denied_and_lost_events_are_errors(marked: tuple[int, Path]) -> None:
    group, path = marked
    found: list[object] = []
    thread = reader(path, found)
    lost = next_event(group)
    os.close(lost.handle)  # as a dead process would
    assert deny_lost(group) == 1
    while thread.is_alive():  # a denied read-ahead is tried again, smaller
        for more in read_events(group):
            more.deny(group)
            os.close(more.handle)
        thread.join(0.01)
    os.close(group)
    assert found == [errno.EIO]
