"""The programs that judge lazy mounts, on the machine's own kernel; and that they can fail."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from suites.erofs.lazy_reading import _Tally


def measured(*words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", *words], capture_output=True, text=True, check=False, timeout=300
    )
    said = json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}
    if done.returncode == 77:
        pytest.skip(said["skip"])
    assert done.returncode == 0, done.stderr
    return dict(said)


def test_zeros_and_other_bytes_are_wrong_and_the_rest_is_told_apart() -> None:
    tally = _Tally()
    for found in (b"abcd", None, b"ab", b"", b"ab\0\0", b"abce", b"abcde"):
        tally.add("file", found, b"abcd")
    assert (tally.reads, tally.errors, tally.short, tally.wrong) == (7, 1, 1, 4)


@pytest.mark.root
@pytest.mark.alone
def test_every_mechanism_shows_the_same_files_and_the_first_one_is_chosen() -> None:
    said = measured("suites.erofs.lazy_reading", "--scene", "ladder")
    assert said["metrics"]["mechanisms"] >= 1
    for name in ("wrong", "wrong_choices", "unreadable"):
        assert said["metrics"][name] == 0, said["notes"]


@pytest.mark.root
@pytest.mark.alone
def test_start_of_a_lazy_image_fetches_less_than_the_whole() -> None:
    lazy, whole = (
        measured("suites.erofs.lazy_numbers", way, "--mechanism", "loop")["metrics"]
        for way in ("lazy", "erofs")
    )
    assert 0 < lazy["fetched"] < whole["fetched"] / 2
    assert lazy["memory"] > 0
