"""The harness's end of a conversation with an agent, over a real socket."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from hyperbox.harness.lab.channel import Channel, ChannelBroken, ChannelDamaged
from hyperbox.harness.lab.protocol import CHUNK, Frame, FrameDecoder, FrameType


@pytest.fixture
def ends() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    channel = Channel(ours, 0.2)
    with theirs, contextlib.closing(channel):
        yield channel, theirs


def _say(theirs: socket.socket, *frames: Frame) -> None:
    theirs.sendall(b"".join(frame.encode() for frame in frames))


def _send_for_ever(channel: Channel) -> None:
    while True:
        channel.send(FrameType.DATA, bytes(CHUNK))


def _soon() -> float:
    return time.monotonic() + 0.1


def test_requests_have_numbers_of_their_own(ends: tuple[Channel, socket.socket]) -> None:
    channel, theirs = ends
    numbers = {channel.number(), channel.send(FrameType.PING), channel.number()}
    assert len(numbers) == 3
    assert channel.send(FrameType.KILL, b"x", 7) == 7
    heard = FrameDecoder().feed(theirs.recv(4096))
    assert [(frame.type, frame.payload) for frame in heard] == [
        (FrameType.PING, b""),
        (FrameType.KILL, b"x"),
    ]


def test_frames_of_others_wait_their_turn(ends: tuple[Channel, socket.socket]) -> None:
    channel, theirs = ends
    other, mine = Frame(FrameType.STDOUT, 1, b"a"), Frame(FrameType.PING, 2, b"b")
    last = Frame(FrameType.EXIT, 1, b"c")
    _say(theirs, other, Frame(FrameType.STDOUT, 2, b"not asked"), mine, last)
    assert channel.answer(2, FrameType.PING, _soon()) == mine
    assert channel.next(_soon()) == other
    assert [frame.payload for frame in channel.arrived()] == [b"not asked", b"c"]


def test_waiting_ends_and_loses_nothing(ends: tuple[Channel, socket.socket]) -> None:
    channel, theirs = ends
    with pytest.raises(TimeoutError):
        channel.next(_soon())
    frame = Frame(FrameType.STDOUT, 1, b"a")
    encoded = frame.encode()
    theirs.sendall(encoded[:5])
    with pytest.raises(TimeoutError):
        channel.answer(2, None, _soon())
    theirs.sendall(encoded[5:])
    with pytest.raises(TimeoutError):
        channel.answer(2, None, _soon())
    assert channel.next(_soon()) == frame


def test_an_end_that_hangs_up_or_takes_nothing_is_broken(
    ends: tuple[Channel, socket.socket],
) -> None:
    channel, theirs = ends
    with pytest.raises(ChannelBroken, match="timed out"):
        _send_for_ever(channel)
    theirs.close()
    assert channel.readable(0)
    with pytest.raises(ChannelBroken, match="went away"):
        channel.next(_soon())
    with pytest.raises(ChannelBroken, match="broke"):
        channel.send(FrameType.PING)


def test_what_is_no_frame_is_damage(ends: tuple[Channel, socket.socket]) -> None:
    channel, theirs = ends
    theirs.sendall(b"\xff" * 64)
    with pytest.raises(ChannelDamaged, match="damaged"):
        channel.arrived()
