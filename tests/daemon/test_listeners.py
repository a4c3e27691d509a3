"""Listeners: addresses, modes, races for one socket, sockets that are somebody else's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.daemon.listeners import (
    Address,
    ListenError,
    default_socket,
    parse_address,
    tcp_listener,
    unix_listener,
)
from hyperbox.errors import ConfigError


@given(st.ip_addresses(), st.integers(0, 65_535))
def test_addresses_are_read_as_they_are_written(host: object, port: int) -> None:
    address = Address(str(host), port)
    assert parse_address(str(address)) == address


@given(st.text(alphabet="0123456789.:[]abcdef localhost%-+", max_size=30) | st.text(max_size=20))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        address = parse_address(text)
    except ConfigError:
        return
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost:80", Address("127.0.0.1", 80)),
        ("[::1]:0", Address("::1", 0)),
        ("[0:0::1]:9", Address("::1", 9)),
    ],
)
def test_names_and_long_forms(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "80", ":80", "::1:80", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "a.b:1"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError, match="not an address"):
        parse_address(text)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1"])
def test_addresses_that_others_reach_need_leave(host: str) -> None:
    with pytest.raises(ConfigError, match="other machines"), tcp_listener(Address(host, 0)):
        pass


def test_an_address_that_is_not_here() -> None:
    with (
        pytest.raises(ListenError, match=r"cannot listen on 192\.0\.2\.1:0"),
        tcp_listener(Address("192.0.2.1", 0), remote=True),
    ):
        pass


def test_answers_do_not_wait_for_acknowledgements() -> None:
    async def without_delay(listener: socket.socket) -> bool:
        accepted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            wire = writer.get_extra_info("socket")
            accepted.set_result(bool(wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))
            writer.close()

        async with await asyncio.start_server(serve, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            writer.close()
            return await accepted

    with tcp_listener(Address("127.0.0.1", 0)) as listener:
        assert asyncio.run(without_delay(listener))


def test_taken_port() -> None:
    with tcp_listener(Address("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(ListenError) as caught, tcp_listener(Address("127.0.0.1", port)):
            pass
    assert "another program listens there" in caught.value.hint


def test_socket_is_for_owner_and_group_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with unix_listener(tmp_path / "s"):
            assert stat.S_IMODE((tmp_path / "s").lstat().st_mode) == 0o660
            assert os.umask(0) == 0
    finally:
        os.umask(before)


def test_of_many_that_start_on_a_stale_socket_one_wins(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    settled = threading.Barrier(8)

    def start(_: int) -> bool:
        try:
            with unix_listener(path):
                settled.wait(60)
                return True
        except ListenError:
            settled.wait(60)
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(start, range(8))) == 1
    assert not path.exists()


def test_a_socket_that_has_taken_our_place_stays(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as other:
        with unix_listener(path):
            path.unlink()
            other.bind(str(path))
        assert path.exists()


def test_symlinks_are_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("data")
    (tmp_path / "s").symlink_to(precious)
    with pytest.raises(ListenError, match="is not a socket"), unix_listener(tmp_path / "s"):
        pass
    assert precious.read_text() == "data"


def test_path_that_is_too_long_or_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too long"), unix_listener(tmp_path / ("x" * 120)):
        pass
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ListenError, match="cannot listen on"),
        unix_listener(tmp_path / "file" / "s"),
    ):
        pass


def test_default_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/one:/run/two")
    assert default_socket() == Path("/run/one/hyperbox.sock")
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    with contextlib.suppress(AssertionError):
        assert os.geteuid() == 0
        assert default_socket() == Path("/run/hyperbox/hyperbox.sock")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert default_socket() == Path("/run/user/7/hyperbox/hyperbox.sock")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert default_socket() == Path("/run/user/1000/hyperbox/hyperbox.sock")
