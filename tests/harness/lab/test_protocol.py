"""Frames survive any cutting of the stream; damaged streams are refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hyperbox.harness.lab.protocol import (
    MAX_PAYLOAD,
    Frame,
    FrameDecoder,
    FrameType,
    ProtocolError,
)
from tests.mutation import batches

frames = st.builds(
    Frame,
    st.sampled_from(FrameType),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=300),
)


@given(st.lists(frames, max_size=8), st.lists(st.integers(1, 50), min_size=1))
def test_any_cutting_gives_the_same_frames(sent: list[Frame], cuts: list[int]) -> None:
    stream = b"".join(frame.encode() for frame in sent)
    decoder = FrameDecoder()
    received: list[Frame] = []
    position = turn = 0
    while position < len(stream):
        size = cuts[turn % len(cuts)]
        received += decoder.feed(stream[position : position + size])
        position += size
        turn += 1
    assert received == sent


STREAM = (
    Frame(FrameType.READY, 0, b'{"release": "6.12", "monotonic_ns": 1}').encode()
    + Frame(FrameType.STDOUT, 7, b"out\n").encode()
    + Frame(FrameType.EXIT, 7, b'{"status": 0, "elapsed_ns": 5, "leapt": false}').encode()
)
DEEP = Frame(FrameType.EXIT, 1, b"[" * 100_000).encode()
LONG = Frame(FrameType.EXIT, 1, b'{"status": ' + b"9" * 5000 + b"}").encode()


@settings(max_examples=200)  # of 50 inputs each
@example([DEEP.decode("latin-1"), LONG.decode("latin-1")])
@given(batches([STREAM.decode("latin-1")]))
def test_any_stream_is_frames_or_damaged(texts: list[str]) -> None:
    for data in (text.encode("latin-1", errors="replace") for text in texts):
        decoder, frames = FrameDecoder(), list[Frame]()
        with contextlib.suppress(ProtocolError):
            for frame in decoder.feed(data):
                frames.append(frame)
        assert data.startswith(b"".join(frame.encode() for frame in frames))
        for frame in frames:
            with contextlib.suppress(ProtocolError):
                assert isinstance(frame.json(), dict)


def test_unknown_type_is_refused() -> None:
    with pytest.raises(ProtocolError, match="type 200"):
        list(FrameDecoder().feed(b"\0\0\0\0\xc8\0\0\0\0"))


def test_impossible_length_is_refused_before_it_is_waited_for() -> None:
    header = (MAX_PAYLOAD + 1).to_bytes(4, "little") + b"\x02\0\0\0\0"
    with pytest.raises(ProtocolError, match="impossible frame header"):
        list(FrameDecoder().feed(header))


def test_oversized_payload_is_not_sent() -> None:
    with pytest.raises(ProtocolError):
        Frame(FrameType.DATA, 1, bytes(MAX_PAYLOAD + 1)).encode()


@pytest.mark.parametrize("payload", [b"", b"{", b"[1]", b"\xff"])
def test_payload_that_is_no_json_object_is_refused(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        Frame(FrameType.EXIT, 1, payload).json()
