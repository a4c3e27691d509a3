"""Writes are whole or absent, whatever interrupts them."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox import files
from hyperbox.errors import HarnessError


@given(data=st.binary(max_size=4096))
def test_round_trip_of_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("write") / "file"
    files.write_bytes(path, data)
    assert path.read_bytes() == data


def test_an_error_in_the_block_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_text(path, "old")
    with pytest.raises(TypeError), files.atomic_writer(path) as stream:
        stream.write("text is not bytes")  # type: ignore[call-overload]
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_directories_are_made_and_the_mode_is_set(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    files.write_text(path, "x", mode=0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_json_is_sorted_ends_with_a_newline_and_refuses_nan(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    files.write_json(path, {"b": "ä", "a": [1, None]})
    text = path.read_text()
    assert text.endswith("\n")
    assert text.index('"a"') < text.index('"b"')
    assert json.loads(text) == {"b": "ä", "a": [1, None]}
    with pytest.raises(ValueError):
        files.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"b": "ä", "a": [1, None]}


def test_sha256_is_that_of_the_standard_tool(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(100_000))
    said = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout
    assert files.sha256_file(path) == said.split()[0]


def test_a_directory_that_cannot_be_written_is_named_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HarnessError, match=r"cannot write .*file/below"):
        files.write_text(tmp_path / "file" / "below", "x")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a tmpfs of 64 KiB."""
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", mount], check=True)
    yield mount
    subprocess.run(["umount", mount], check=True)


@pytest.mark.root
def test_a_full_disk_is_one_clear_error_and_leaves_the_old_file(small_disk: Path) -> None:
    path = small_disk / "file"
    files.write_text(path, "old")
    with pytest.raises(HarnessError, match="No space left on device") as caught:
        files.write_bytes(path, bytes(1 << 20))
    assert "free some space" in caught.value.hint
    assert path.read_text() == "old"
    assert list(small_disk.iterdir()) == [path]


_WRITER = """
import itertools, sys
from pathlib import Path
from hyperbox import files
for number in itertools.count():
    files.write_bytes(Path(sys.argv[1]), bytes([number % 256]) * 200_000)
"""


def test_kill_at_random_points_never_leaves_a_half_written_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for delay in (0.0, 0.003, 0.01, 0.02, 0.031):
        process = subprocess.Popen([sys.executable, "-c", _WRITER, path], cwd=Path.cwd())
        while not path.exists() and process.poll() is None:
            time.sleep(0.001)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        content = path.read_bytes()
        assert len(content) == 200_000
        assert len(set(content)) == 1


def test_a_lock_that_cannot_be_had_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "lock", tmp_path / "file" / "below" / "lock", tmp_path):
        with pytest.raises(HarnessError, match="cannot write") as caught, files.locked(path):
            pass
        assert caught.value.hint


def test_what_fails_under_the_lock_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), files.locked(tmp_path / "lock"):
        (tmp_path / "absent").read_text()


def _count_up(directory: Path) -> None:
    for _ in range(50):
        with files.locked(directory / "lock"):
            counter = directory / "counter"
            files.write_text(counter, str(int(counter.read_text()) + 1))


def test_the_lock_excludes_other_processes(tmp_path: Path) -> None:
    (tmp_path / "counter").write_text("0")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_count_up, args=(tmp_path,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert (tmp_path / "counter").read_text() == "100"


def test_a_link_keeps_pointing_and_its_target_is_replaced_whole(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    target, near, far = tmp_path / "below" / "file", tmp_path / "near", tmp_path / "far"
    near.symlink_to("below/file")
    far.symlink_to(near)
    for number, path in enumerate((near, far, near)):  # the first time it points to nothing
        before = target.stat().st_ino if number else None
        files.write_text(path, f"text {number}")
        assert target.read_text() == f"text {number}"
        assert target.stat().st_ino != before
    assert (near.readlink(), far.readlink()) == (Path("below/file"), near)
    assert list((tmp_path / "below").iterdir()) == [target]


def test_links_in_a_circle_are_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(HarnessError, match="symbolic links"):
        files.write_text(tmp_path / "a", "x")


@pytest.mark.root
def test_a_link_that_another_user_planted_is_not_followed(tmp_path: Path) -> None:
    shared, victim = tmp_path / "tmp", tmp_path / "victim"
    shared.mkdir()
    shared.chmod(0o1777)
    link = shared / "link"
    link.symlink_to(victim)
    os.chown(link, 65534, 65534, follow_symlinks=False)
    with pytest.raises(HarnessError, match="a link that another user made"):
        files.write_text(link, "x")
    assert not victim.exists()
    os.chown(link, 0, 0, follow_symlinks=False)
    files.write_text(link, "x")
    assert victim.read_text() == "x"


@pytest.mark.root
def test_a_device_is_written_to_and_stays_one(tmp_path: Path) -> None:
    null, full, link = tmp_path / "null", tmp_path / "full", tmp_path / "link"
    os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(full, stat.S_IFCHR | 0o666, os.makedev(1, 7))
    link.symlink_to(null)
    files.write_text(null, "x")
    files.write_text(link, "x")
    with pytest.raises(HarnessError, match=f"cannot write {full}: No space left"):
        files.write_text(full, "x")
    assert stat.S_ISCHR(null.stat().st_mode)
    assert stat.S_ISCHR(full.stat().st_mode)
    assert link.is_symlink()
    assert sorted(tmp_path.iterdir()) == [full, link, null]


def test_a_fifo_is_written_to_and_stays_one(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(["cat", fifo], stdout=subprocess.PIPE) as reader:
        files.write_text(fifo, "text")
        assert reader.stdout is not None
        assert reader.stdout.read() == b"text"
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_a_pipe_that_nobody_reads_is_one_clear_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with pytest.raises(HarnessError, match="Broken pipe"):
            files.write_text(Path(f"/dev/fd/{writing}"), "x")
    finally:
        os.close(writing)


_TO_OUTPUT = """
import sys
from pathlib import Path
from hyperbox import files
print("before", flush=True)
files.write_text(Path(sys.argv[1]), "middle\\n")
print("after")
"""


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_standard_output_by_name_is_the_one_that_is_open(name: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/stdout")
    command = [sys.executable, "-c", _TO_OUTPUT, str(tmp_path / name)]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said.stdout == "before\nmiddle\nafter\n"
    with (tmp_path / "file").open("w") as stream:
        subprocess.run(command, stdout=stream, check=True)
    assert (tmp_path / "file").read_text() == "before\nmiddle\nafter\n"


def test_a_sealed_document_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "document"
    files.write_sealed(path, {"b": [1, 2.5, None], "a": "\N{SNOWMAN}"})
    assert files.read_sealed(path) == {"b": [1, 2.5, None], "a": "\N{SNOWMAN}"}


def test_one_changed_byte_of_a_sealed_document_is_seen_wherever_it_is(tmp_path: Path) -> None:
    path = tmp_path / "document"
    files.write_sealed(path, {"number": 7, "text": "abc"})
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert files.read_sealed(path) in (None, {"number": 7, "text": "abc"})
        path.write_bytes(whole[:place])
        assert files.read_sealed(path) is None or place == len(whole) - 1
    assert files.read_sealed(tmp_path / "absent") is None
