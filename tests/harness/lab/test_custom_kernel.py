from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.errors import ConfigError
from hyperbox.harness.lab.custom_kernel import custom_kernel, image_release

RELEASE = "6.14.0-rc2+"


def bzimage(release: str = RELEASE, *, protocol: int = 0x20F, body: int = 64) -> bytes:
    setup = bytearray(5 * 512)
    setup[0x1F1] = 4
    struct.pack_into("<I", setup, 0x1F4, body // 16)
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, protocol)
    struct.pack_into("<H", setup, 0x20E, 0x300)
    text = f"{release} (me@here) #1 SMP".encode() + b"\0"
    setup[0x500 : 0x500 + len(text)] = text
    return bytes(setup) + bytes(body)


def test_release_is_read_from_the_header() -> None:
    assert image_release(bzimage()) == RELEASE


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", "too short"),
        (b"\x7fELF" + bytes(4096), "no Linux boot header"),
        (bzimage(protocol=0x1FF), "too old"),
        (bzimage()[:-1], "cut short"),
        (bzimage("???"), "not readable"),
        (bzimage("../../etc"), "not readable"),
        (bzimage("6.1/../../x"), "not readable"),
    ],
)
def test_corrupt_images_say_why(image: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        image_release(image)


@given(st.integers(0, 5 * 512 - 1), st.integers(0, 255))
def test_no_single_wrong_byte_makes_it_crash(where: int, value: int) -> None:
    image = bytearray(bzimage())
    image[where] = value
    with contextlib.suppress(ValueError):
        assert image_release(bytes(image))


@pytest.mark.parametrize("content", [b"", b"not a kernel", bytes(100_000)])
def test_a_wrong_file_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bzImage"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="is not a bootable kernel") as caught:
        custom_kernel(path)
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_absent_files_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        custom_kernel(tmp_path / "bzImage")
    with pytest.raises(ConfigError, match="not a regular file"):
        custom_kernel(Path("/dev/zero"))
    with pytest.raises(ConfigError, match="Is a directory"):
        custom_kernel(tmp_path)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "build/arch/x86/boot/bzImage"
    path.parent.mkdir(parents=True)
    path.write_bytes(bzimage())
    return path


@pytest.mark.parametrize("given_as", ["", RELEASE, None])
def test_modules_are_found_in_the_usual_layouts(
    tmp_path: Path, image: Path, given_as: str | None
) -> None:
    own = tmp_path / "root/lib/modules" / RELEASE
    own.mkdir(parents=True)
    given_path = tmp_path / "root" if given_as is None else own.parent / given_as
    assert custom_kernel(image, given_path).modules == own


def test_modules_of_another_kernel_are_refused(tmp_path: Path, image: Path) -> None:
    (tmp_path / "6.1.0").mkdir()
    with pytest.raises(ConfigError, match=r"no modules of kernel 6\.14"):
        custom_kernel(image, tmp_path / "6.1.0")
    with pytest.raises(ConfigError, match="does not exist"):
        custom_kernel(image, tmp_path / "absent")


def test_configuration_is_found_in_a_build_tree_and_beside_the_image(
    tmp_path: Path, image: Path
) -> None:
    assert custom_kernel(image).config is None
    (tmp_path / "build/.config").write_text("CONFIG_X=y\n")
    assert custom_kernel(image).config == tmp_path / "build/.config"
    beside = image.with_name(f"config-{RELEASE}")
    beside.write_text("CONFIG_Y=y\n")
    assert custom_kernel(image).config == beside
