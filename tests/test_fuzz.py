"""Whatever stands in a file that others wrote: it is read, or refused in one line.

Ten thousand inputs a parser; what campaigns have found before stands beside each as an example.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings

from hyperbox.config import VALIDATE
from hyperbox.errors import ConfigError, HyperboxError
from hyperbox.foreign import parse_toml
from hyperbox.harness.declarations import parse_suite
from hyperbox.harness.lab.debian_archive import debian_mirror
from hyperbox.harness.lab.guest_lock import GuestLock, guest_lock_document, parse_guest_lock
from hyperbox.harness.lab.kernel_lock import read_lock
from hyperbox.harness.lab.kernel_matrix import (
    compare_versions,
    lock_document,
    packages_in,
    parse_lock,
    parse_matrix,
    releases,
    unlisted_releases,
)
from hyperbox.harness.lab.point_releases import find_release, point_releases
from hyperbox.memory import audit
from hyperbox.memory.decisions import Action, Decision, TunerState
from hyperbox.memory.readings import GroupCounters, Reading
from hyperbox.memory.traces import as_line as trace_line
from hyperbox.memory.traces import parse_trace
from hyperbox.memory.tuning_options import options_from
from hyperbox.paths import project_directory
from hyperbox.records import Change, Owner, announcement, line, parse
from tests.mutation import batches

FLAVOUR = "cloud-amd64"
PROJECT = project_directory()
DEEP = "[" * 20_000
DIGITS = "9" * 5000

thorough = settings(max_examples=200, deadline=None)  # of 50 inputs each


@pytest.fixture(scope="module")
def memory_file() -> Iterator[Path]:
    """A regular file that costs no disk."""
    handle = os.memfd_create("settings")
    yield Path(f"/proc/self/fd/{handle}")
    os.close(handle)


def refused_or_read(parser: Callable[[str], object], texts: list[str]) -> None:
    """Parse each; what is refused must be so in words of ours."""
    for text in texts:
        try:
            with contextlib.suppress(HyperboxError):
                parser(text)
        except Exception as error:
            error.add_note(f"the input: {text[:2000]!r}")
            raise


def locked(**changes: object) -> str:
    document = json.loads(json.dumps(lock_document({"6.12": read_lock()["6.12"]})))
    document["kernels"]["6.12"]["packages"][0].update(changes)
    return json.dumps(document)


@thorough
@example([locked(name="linux"), locked(name=""), locked(name=7), locked(listed="no")])
@example([locked(size=True), locked(size=-1), locked(version="1\n2"), locked(sha256=None)])
@example([DEEP, '{"format": ' + DIGITS, '{"format": 1e999}', '{"format": 1, "kernels": []}'])
@example(
    ['{"format": 1, "kernels": {"../..": {"release": "../x", "version": "", "packages": []}}}']
)
@given(batches([locked(), (PROJECT / "vm-images/kernels.lock.json").read_text()[:4000]]))
def test_lock_file(texts: list[str]) -> None:
    refused_or_read(parse_lock, texts)


MATRIX = (PROJECT / "vm-images/matrix.toml").read_text()
GUESTS = json.dumps(
    guest_lock_document(
        GuestLock({one.name: one for one in read_lock()["6.12"].packages}, {"root": ()})
    )
)


@thorough
@example([DEEP, '{"format": 1e999}', '{"format": 1, "packages": [], "parts": {"root": [[]]}}'])
@example(['{"format": 1, "packages": [], "parts": {"root": 5}}', "[]", "5"])
@given(batches([GUESTS]))
def test_guest_lock_file(texts: list[str]) -> None:
    refused_or_read(parse_guest_lock, texts)


SMALL_MATRIX = """\
flavour = "cloud-amd64"
suites = ["trixie", "trixie-security"]
[sets]
default = ["6.1"]
[[kernel]]
series = "6.1"
why = "old"
[[kernel]]
series = "6.12"
why = "new"
"""


@thorough
@example([f"flavour = {DEEP}", f"flavour = {DIGITS}", "a." * 2000 + "b = 1", "kernel = 5"])
@example([MATRIX.replace('"6.12"', f'"6.{DIGITS}"'), MATRIX.replace('"6.12"', '"6.\u00b2"')])
@given(batches([SMALL_MATRIX]))
def test_matrix(texts: list[str]) -> None:
    refused_or_read(lambda text: parse_matrix(text).expand(["all"]), texts)


SUITE = """\
id = "demo"
title = "Demonstration"
[[experiment]]
id = "demo.load"
title = "a load"
program = ["python3", "{arm}"]
arms = [{ id = "stock", title = "stock" }, { id = "tuned", title = "tuned" }]
metrics = [{ id = "time", title = "time", unit = "s", better = "lower" }]
blocks = 4
[[gate]]
id = "demo.load"
experiment = "demo.load"
title = "no worse"
metric = "time"
rule = "no_worse"
margin = 0.05
"""


@thorough
@example([f"id = {DEEP}", f"id = {DIGITS}", f"id.{'a.' * 2000}b = 1", "id = nan"])
@example([SUITE.replace("0.05", "1e999"), SUITE.replace("4", "1e308")])
@given(batches([SUITE]))
def test_suite(texts: list[str]) -> None:
    def suite(text: str) -> object:
        try:
            table = parse_toml(text)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return parse_suite(table, Path("suite.toml"))

    refused_or_read(suite, texts)


PACKAGES = "\n\n".join(
    f"Package: linux-{part}-{release}-{FLAVOUR}\nVersion: {version}\nFilename: pool/x/{part}.deb\n"
    f"Size: 30000000\nSHA256: {'a' * 64}\nDescription: kernel\n more: text"
    for part, release, version in (
        ("image", "6.12.118+deb13", "6.12.118-1"),
        ("image", "6.1.0-56", "6.1.192-2"),
        ("binary", "7.1.13+deb13", "7.1.13-1~bpo13+1"),
        ("modules", "7.1.13+deb13", "7.1.13-1~bpo13+1"),
        ("binary", "7.2.1", "7.2.1-1"),
    )
)


@thorough
@example([PACKAGES.replace("6.12.118-1", f"6.{DIGITS}-1"), PACKAGES.replace("6.1.192", "\u00b2:1")])
@example([PACKAGES.replace("30000000", DIGITS), PACKAGES.replace("a" * 64, "../x")])
@given(batches([PACKAGES]))
def test_package_lists(texts: list[str]) -> None:
    def kernels(text: str) -> object:
        packages = tuple(packages_in(text, "trixie", FLAVOUR))
        found = point_releases(packages, FLAVOUR, releases(packages, FLAVOUR))
        unlisted_releases("7.2", packages, FLAVOUR)
        return find_release("6.12", found, {})

    refused_or_read(kernels, texts)


@thorough
@example(["1:" + DIGITS, "0" * 9000 + "1", "\u00b2:1", "\u0663:1", ""])
@given(batches(["6.12.118-1~bpo13+1", "1:2.0+b1-3", "5.10.0-46"]))
def test_versions(texts: list[str]) -> None:
    for one in texts:
        assert compare_versions(one, one) == 0
        ordered = compare_versions(one, "6.12.118-1")
        assert compare_versions("6.12.118-1", one) == -ordered


@thorough
@example(["http://[::1", "http://x/debian\ndeb [trusted=yes] http://evil y z", "http://\ud800"])
@given(batches(["http://[::1]:8080/debian", "file:///srv/debian", "https://user@host/debian"]))
def test_mirror(texts: list[str]) -> None:
    refused_or_read(lambda text: debian_mirror(text or "-"), texts)


OWNER = Owner(1, 2, 3, "boot")
CHANGE = Change(OWNER, 1, "knob", "/sys/x", 5, {"before": "60", "after": "100", "groups": ["a"]})
JOURNAL = "".join(
    line(entry).decode()
    for entry in (
        announcement(CHANGE),
        announcement(replace(CHANGE, number=2)),
        {"change": 1, "facts": {"more": "x"}},
        {"change": 2, "done": True},
    )
)


@thorough
@example(['{"change": 1e999}', DEEP, f'{{"change": {DIGITS}}}', '{"change": 1, "at": 1e999}'])
@example(['{"change": 1, "kind": 1, "subject": 1, "at": 1e308, "facts": {"a": 1e999}}'])
@example(['{"change": 1, "kind": "a", "subject": "", "at": 1, "facts": 5}', "5", "null"])
@given(batches([JOURNAL]))
def test_journal(texts: list[str]) -> None:
    for text in texts:
        for change in parse(text, OWNER):
            assert isinstance(change.number, int)
            line(announcement(change))  # goes back through JSON


DECISION = Decision(
    10**9, TunerState.ACT, Action.APPLY, "swappiness", "pressure", 4.5, 1.0, 2.0, 3.0, ("a: 1",)
)
TRAIL = "\n".join(
    audit.as_line(audit.AuditEntry(1.7e9 + second, 5, replace(DECISION, action=action)))
    for second, action in enumerate((Action.APPLY, Action.KEEP, Action.RESTORE))
)


@thorough
@example([TRAIL.replace("1700000000.0", "1e300"), TRAIL.replace("1700000000.0", "1e999")])
@example([TRAIL.replace("1700000000.0", "-1e12"), TRAIL.replace("1700000000.0", DIGITS), DEEP])
@given(batches([TRAIL]))
def test_trail(texts: list[str]) -> None:
    for text in texts:
        for story in audit.stories(audit.parse_trail(text)):
            json.dumps(story.as_json(), allow_nan=False)


GROUP = GroupCounters(1, 1)
TRACE = "\n".join(
    trace_line(replace(Reading(1, 1, 1, 1), time_ns=second, groups={"a": GROUP}))
    for second in range(3)
)


@thorough
@example([DEEP, TRACE.replace(":1", ":1e999"), TRACE.replace(":1", f":{DIGITS}"), "[]", "{}"])
@given(batches([TRACE]))
def test_trace(texts: list[str]) -> None:
    refused_or_read(lambda text: [*parse_trace(re.split("\n", text))], texts)


SETTINGS = '[validate]\nkernel = ["6.12"]\nlane = "exact"\nblocks = 4\nseed = 1\nstrict = true\n'


@thorough
@example([f"seed = {DEEP}", f"seed.{'a.' * 2000}b = 1", "validate = 5", "[validate]\nseed = 1e999"])
@example([f"[validate]\nseed = {DIGITS}", "[validate]\nblocks = nan", "[[validate]]\nseed = 1"])
@given(batches([SETTINGS]))
def test_settings(memory_file: Path, texts: list[str]) -> None:
    def settings_of(text: str) -> object:
        memory_file.write_bytes(text.encode(errors="surrogatepass"))
        return VALIDATE.resolve(argparse.Namespace(config=memory_file), {})

    refused_or_read(settings_of, texts)


TUNER = '[tuner]\nact = 10.5\ndry-run = true\nstreaming = ["/a"]\nfast-swap = "zram"\n'


@thorough
@example([f"[tuner]\nact = {'9' * 400}", "[tuner]\nact = nan", "tuner = 5", f"tuner = {DEEP}"])
@given(batches([TUNER]))
def test_tuner_settings(memory_file: Path, texts: list[str]) -> None:
    def options(text: str) -> object:
        memory_file.write_bytes(text.encode(errors="surrogatepass"))
        return options_from(argparse.Namespace(config=memory_file), {})

    refused_or_read(options, texts)
