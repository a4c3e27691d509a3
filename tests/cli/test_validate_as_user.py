"""A user who is not root: the first command, start to end, and what is said if it cannot be."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hyperbox.harness.lab.guest_image import root_image
from hyperbox.harness.lab.kernel_kit import kernel_kit

pytestmark = pytest.mark.root

PROJECT = Path(__file__).resolve().parents[2]
_UID = 54321
_SUBORDINATE = "tester:600000:65536\n"
# The users of a mount namespace of its own: the machine's stay as they are.
_SCRIPT = """
set -e
for name in passwd group subuid subgid; do mount --bind "$1/etc/$name" "/etc/$name"; done
mount --bind "$2" "$1/project"
cd "$1/home"
exec setpriv --reuid=54321 --regid=54321 --clear-groups env -i "HOME=$1/home" \
    PATH=/usr/bin:/bin "PYTHONPATH=$3" "${@:4}"
"""


@dataclass(frozen=True)
class User:
    """A user with a home; `python` is one that the user may run."""

    place: Path
    python: str

    @property
    def cache(self) -> Path:
        return self.place / "home/.cache/hyperbox"

    def subordinate(self, text: str) -> None:
        """Set the ids that the system has set aside for the user."""
        for name in ("subuid", "subgid"):
            (self.place / "etc" / name).write_text(text)

    def give_kernel(self) -> None:
        """Put a kernel into the user's cache: fetching one is the same for all."""
        kit = kernel_kit("6.12").vmlinuz.parent
        shutil.copytree(kit, self.cache / "kernels/kits" / kit.name)
        for path in (self.place / "home").rglob("*"):
            os.chown(path, _UID, _UID)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run hyperbox as the user."""
        packages = Path(sysconfig.get_path("purelib"))
        if packages.is_relative_to(PROJECT):
            packages = self.place / "project" / packages.relative_to(PROJECT)
        search = f"{self.place / 'project'}:{packages}"
        place, project = os.fspath(self.place), os.fspath(PROJECT)
        start = ["unshare", "--mount", "bash", "-c", _SCRIPT, "-", place, project, search]
        return subprocess.run(
            [*start, self.python, "-m", "hyperbox", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


def _python() -> str:
    """Return a python like ours that is not in a directory of root's alone."""
    mine = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for path in (os.path.realpath(sys.executable), f"/usr/bin/python{mine}"):
        command = ["setpriv", f"--reuid={_UID}", "--clear-groups", "env", path, "-c", ""]
        if subprocess.run(command, check=False, capture_output=True).returncode == 0:
            return path
    pytest.skip(f"no python {mine} that another user may run")


@pytest.fixture
def user() -> Iterator[User]:
    """Make a user whom only the user's own processes see."""
    python = _python()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        place = Path(name)
        place.chmod(0o755)
        for part in ("etc", "home", "project"):
            (place / part).mkdir()
        for kind, line in (("passwd", f"{_UID}::{place}/home:/bin/sh"), ("group", "")):
            number = f"{_UID}:{line}"
            text = Path("/etc", kind).read_text() + f"tester:x:{number}\n"
            (place / "etc" / kind).write_text(text)
        made = User(place, python)
        made.subordinate(_SUBORDINATE)
        os.chown(place / "home", _UID, _UID)
        yield made


@pytest.mark.vm
def test_first_command_of_a_user_works_start_to_end(user: User) -> None:
    user.give_kernel()
    # The cheapest gate: one block decides nothing, and shows that all the way works.
    gate = "harness.false_alarm.processor"
    options = ["--kernel", "6.12", "--lane", "fast", "--blocks", "1", "--json"]
    done = user.run("validate", gate, *options)
    assert "Traceback" not in done.stderr
    document = json.loads(done.stdout)
    assert (done.returncode, document["problems"]) == (document["exit_code"], []), done.stderr
    (verdict,) = document["verdicts"]
    assert (verdict["gate"], verdict["outcome"]) == (gate, "INCONCLUSIVE")
    assert verdict["n"] == 1
    _check_root_image(user)
    owners = {path.lstat().st_uid for path in user.place.glob("home/**/*")}
    assert owners == {_UID}, "no file of a subordinate id is left"


def _check_root_image(user: User) -> None:
    """The guest's root that a user builds is root's, to the byte."""
    (theirs,) = user.cache.glob("guest/root-*.erofs")
    ours = root_image()
    assert theirs.name == ours.path.name
    versions = [
        json.loads(path.with_suffix(".json").read_text())["packages"]
        for path in (theirs, ours.path)
    ]
    if versions[0] == versions[1]:  # the archive may have newer ones since
        assert theirs.read_bytes() == ours.path.read_bytes()


def test_a_user_without_subordinate_ids_is_told_what_to_do(user: User) -> None:
    user.subordinate("")
    done = user.run("doctor", "--json")
    assert done.returncode == 3, done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    check = checks["user ids"]
    assert (check["fine"], check["required"]) == (False, True)
    assert "user tester cannot make a user namespace with subordinate ids" in check["detail"]
    assert "usermod --add-subuids" in check["hint"]


@pytest.mark.vm
def test_what_needs_subordinate_ids_says_so(user: User) -> None:
    user.subordinate("")
    user.give_kernel()
    done = user.run("exec", "--kernel", "6.12", "--", "true")
    assert done.returncode == 3, done.stderr
    message, hint = done.stderr.splitlines()[-2:]
    assert "user tester cannot make a user namespace with subordinate ids" in message
    assert hint.startswith("hint: as root: usermod --add-subuids")
