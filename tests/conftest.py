"""What all tests share: skips with their reason, turns, a check that guests leave nothing."""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

_EVERY = "test_architecture.py"
TESTS_OF = {
    "daemon": ("daemon/*", "cli/test_daemon*"),
    "ground": ("test_*", "cli/test_main*", "cli/test_extras*"),
    "harness": (
        "harness/*",
        "suites/test_harness*",
        "examples/*",
        *(f"cli/test_{name}*" for name in ("bad_input", "bisect", "calibrate", "doctor")),
        *(f"cli/test_{name}*" for name in ("exec", "guest_options", "kernels", "reporting")),
        *(f"cli/test_{name}*" for name in ("shell", "validate")),
    ),
    "isolation": ("isolation/*", "runtime/*", "suites/test_seccomp*"),
    "memory": (
        "memory/*",
        "linux/*",
        "workloads/*",
        "suites/test_psi*",
        "cli/test_psi*",
        "daemon/test_tuner*",
    ),
    "observability": ("observability/*", "suites/test_ebpf*", "cli/test_trace*"),
    "storage": ("storage/*", "suites/test_erofs*", "cli/test_images*"),
}
"""Whose tests are where, below tests/; who works on one feature runs `pytest --feature NAME`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--feature``."""
    parser.addoption(
        "--feature",
        action="append",
        choices=sorted(TESTS_OF),
        help="collect the tests of this feature only, and the architecture's; may be repeated",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the files of other features."""
    chosen = config.getoption("--feature")
    if not chosen or not collection_path.is_file() or collection_path.name == _EVERY:
        return None
    name = collection_path.relative_to(Path(__file__).parent).as_posix()
    return not any(belongs(name, feature) for feature in chosen) or None


def belongs(name: str, feature: str) -> bool:
    """Whether a file below tests/ is a feature's."""
    return any(
        fnmatch.fnmatchcase(name, pattern) and ("/" in pattern or "/" not in name)
        for pattern in TESTS_OF[feature]
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip by marker what needs root or QEMU and cannot have it here."""
    lacking = {}
    if os.geteuid() != 0:
        lacking["root"] = pytest.mark.skip(reason="needs root")
    if shutil.which("qemu-system-x86_64") is None:
        lacking["vm"] = pytest.mark.skip(reason="needs qemu-system-x86_64")
    for item in items:
        for marker, skip in lacking.items():
            if item.get_closest_marker(marker):
                item.add_marker(skip)
    if hasattr(items[0].config if items else None, "workerinput"):
        _longest_first(items)


def _longest_first(items: list[pytest.Item]) -> None:
    """Put files that boot guests first: in the end no worker waits long for another one's."""
    slow = {item.path for item in items if item.get_closest_marker("vm")}
    items.sort(key=lambda item: item.path not in slow)


# A script's background job is started with SIGINT ignored, nohup's with SIGHUP, and children
# inherit that: tests that end programs by these signals would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# No test is a stopwatch: on a busy machine a deadline says nothing about the code.
hypothesis.settings.register_profile("hyperbox", deadline=None)
hypothesis.settings.load_profile("hyperbox")


def _open_files_of_guests() -> set[tuple[str, str]]:
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found.add((link.name, str(link.readlink())))
    return {(name, target) for name, target in found if target.startswith("/memfd:hyperbox-")}


@pytest.fixture
def no_leftovers() -> Iterator[None]:
    """Fail if the test leaves files of guests open: they have no names, but take memory."""
    before = _open_files_of_guests()
    yield
    assert _open_files_of_guests() <= before


@pytest.fixture(autouse=True)
def _in_turn(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Let a test that must be alone wait for those of other workers, and them for it."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    alone = request.node.get_closest_marker("alone") is not None
    shared = tmp_path_factory.getbasetemp().parent
    with (shared / "queue").open("w") as queue, (shared / "turn").open("w") as turn:
        # Who waits for its turn keeps the queue: tests that may run together do not overtake.
        fcntl.flock(queue, fcntl.LOCK_EX)
        fcntl.flock(turn, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(queue, fcntl.LOCK_UN)
        yield
