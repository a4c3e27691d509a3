from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperbox.harness.lab.initramfs import CpioEntry, initramfs, load_order, newc

NAMES = st.from_regex(r"[a-z0-9_.+-]{1,12}", fullmatch=True).filter(
    lambda name: name not in (".", "..") and not name.startswith("-")
)
ENTRIES = st.lists(
    st.builds(
        CpioEntry,
        NAMES,
        st.one_of(st.none(), st.binary(max_size=70)),
        st.sampled_from([0o755, 0o644, 0o700]),
    ),
    max_size=8,
    unique_by=lambda entry: entry.name,
)


@settings(max_examples=60, deadline=None)
@given(ENTRIES)
def test_cpio_reads_back_what_was_encoded(
    tmp_path_factory: pytest.TempPathFactory, entries: list[CpioEntry]
) -> None:
    archive = newc(entries)
    command = ["cpio", "-t", "--quiet"]
    listing = subprocess.run(command, input=archive, capture_output=True, check=True)
    assert listing.stderr == b""
    assert listing.stdout.decode().split() == sorted(entry.name for entry in entries)
    target = tmp_path_factory.mktemp("cpio")
    command = ["cpio", "-i", "--quiet", "-m"]
    subprocess.run(command, input=archive, cwd=target, check=True)
    for entry in entries:
        path = target / entry.name
        assert stat.S_IMODE(path.stat().st_mode) == entry.mode
        assert path.is_dir() if entry.data is None else path.read_bytes() == entry.data
        assert path.stat().st_mtime == 0


@given(ENTRIES)
def test_order_of_entries_does_not_matter(entries: list[CpioEntry]) -> None:
    assert newc(entries) == newc(list(reversed(entries)))
    assert len(newc(entries)) % 512 == 0


@pytest.mark.parametrize("names", [["a", "a"], [""], ["a\0b"]])
def test_impossible_names_are_refused(names: list[str]) -> None:
    with pytest.raises(ValueError):
        newc([CpioEntry(name, b"", 0o644) for name in names])


def test_initramfs_has_what_init_expects(tmp_path: Path) -> None:
    archive = initramfs(b"#!init", b"busybox", [("b.ko", b"2"), ("a.ko", b"1")])
    command = ["cpio", "-i", "--quiet"]
    subprocess.run(command, input=archive, cwd=tmp_path, check=True)
    assert (tmp_path / "modules.order-to-load").read_text() == "b.ko\na.ko\n"
    assert (tmp_path / "modules/a.ko").read_bytes() == b"1"
    assert (tmp_path / "bin/busybox").stat().st_mode & 0o111
    for name in ("dev", "proc", "sys", "newroot", "rw"):
        assert (tmp_path / name).is_dir()


DEPENDS = """\
kernel/drivers/virtio/virtio_pci.ko: kernel/virtio/legacy.ko kernel/virtio/ring.ko kernel/virtio.ko
kernel/virtio.ko:
kernel/virtio/ring.ko: kernel/virtio.ko
kernel/virtio/legacy.ko:
kernel/fs/erofs/erofs.ko: kernel/lib/lz4-x.ko
kernel/lib/lz4-x.ko:
"""


def test_modules_load_after_what_they_need() -> None:
    order, missing = load_order(
        DEPENDS, "kernel/drivers/nd-pmem.ko\n", ("virtio_pci", "nd_pmem", "erofs", "i6300esb")
    )
    assert missing == ("i6300esb",)
    names = [path.rpartition("/")[2] for path in order]
    assert names == [
        "virtio.ko", "ring.ko", "legacy.ko", "virtio_pci.ko", "lz4-x.ko", "erofs.ko",
    ]  # fmt: skip


def test_no_modules_at_all() -> None:
    assert load_order("", "", ("erofs",)) == ((), ("erofs",))
