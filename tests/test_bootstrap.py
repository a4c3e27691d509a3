"""The real script, in small projects of its own: no network, the machine stays as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
SCRIPT = PROJECT / "bootstrap"
NOBODY = 65534

PYPROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "tiny"
version = "1"
"""

# A build backend without dependencies: pip runs for real and needs no network.
BACKEND = '''\
"""Builds an editable wheel of nothing."""
import os, pathlib, zipfile

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    with open("builds", "a") as log:
        log.write("x")
    if os.path.exists("broken"):
        raise SystemExit("the backend is broken")
    name = "tiny-1-py3-none-any.whl"
    extra = pathlib.Path("requires").read_text() if os.path.exists("requires") else ""
    files = {
        "METADATA": "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1\\nProvides-Extra: dev\\n"
        + extra,
        "WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as wheel:
        for file, text in files.items():
            wheel.writestr("tiny-1.dist-info/" + file, text)
    return name
'''


def make_project(directory: Path, packages: str = "") -> Path:
    (directory / "vm-images").mkdir(parents=True)
    (directory / "vm-images/host-packages.txt").write_text(f"# nothing else\n{packages}")
    (directory / "pyproject.toml").write_text(PYPROJECT)
    (directory / "backend.py").write_text(BACKEND)
    shutil.copy(SCRIPT, directory / "bootstrap")
    return directory


def bootstrap(
    project: Path,
    *words: str,
    before: Sequence[str] = (),
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the project's script to its end."""
    variables = os.environ | {"PIP_RETRIES": "0"} | (environment or {})
    argv = [*before, os.fspath(project / "bootstrap"), *words]
    return subprocess.run(
        argv, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def builds(project: Path) -> int:
    """Number of times that pip installed the project."""
    log = project / "builds"
    return len(log.read_text()) if log.exists() else 0


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that has not been set up."""
    return make_project(tmp_path / "project")


@pytest.fixture(scope="module")
def set_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has been set up once; only for what changes nothing."""
    directory = make_project(tmp_path_factory.mktemp("set-up") / "project")
    done = bootstrap(directory, "true")
    assert done.returncode == 0, done.stderr
    return directory


@pytest.fixture
def changeable(set_up: Path, tmp_path: Path) -> Path:
    """The same, renamed into place, so that it may be changed."""
    target = tmp_path / "project"
    shutil.copytree(set_up, target, symlinks=True)
    stamp = target / ".venv/.bootstrap"
    stamp.write_text(stamp.read_text().replace(os.fspath(set_up), os.fspath(target)))
    return target


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """A directory that other users can enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_nothing_to_run_is_bad_usage() -> None:
    done = bootstrap(PROJECT)
    assert done.returncode == 64
    assert done.stdout == ""
    assert done.stderr.startswith("usage: ./bootstrap COMMAND")


def test_unknown_option_is_bad_usage() -> None:
    assert bootstrap(PROJECT, "--frobnicate").returncode == 64


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_goes_to_standard_output(option: str) -> None:
    done = bootstrap(PROJECT, option)
    assert done.returncode == 0
    assert "./bootstrap hyperbox validate" in done.stdout
    assert done.stderr == ""


def test_fresh_checkout_gets_an_environment_and_runs_the_command(project: Path) -> None:
    done = bootstrap(project, "python", "-c", "import sys; print(sys.prefix, sys.version_info)")
    assert done.returncode == 0, done.stderr
    prefix, _, version = done.stdout.partition(" ")
    assert prefix == os.fspath(project / ".venv")
    assert "major=3" in version
    assert builds(project) == 1


def test_quiet_when_nothing_is_to_be_done(set_up: Path) -> None:
    before = builds(set_up)
    done = bootstrap(set_up, "echo", "a word", "--option")
    assert (done.returncode, done.stdout, done.stderr) == (0, "a word --option\n", "")
    assert builds(set_up) == before


@pytest.mark.parametrize("status", [1, 2, 3, 64, 130])
def test_exit_status_of_the_command_is_kept(set_up: Path, status: int) -> None:
    assert bootstrap(set_up, "sh", "-c", f"exit {status}").returncode == status


def test_command_runs_where_the_user_stands(set_up: Path, tmp_path: Path) -> None:
    done = bootstrap(set_up, "pwd", before=("env", "-C", os.fspath(tmp_path)))
    assert done.stdout.strip() == os.fspath(tmp_path)


def test_changed_pyproject_installs_again(changeable: Path) -> None:
    before = builds(changeable)
    with (changeable / "pyproject.toml").open("a") as stream:
        stream.write("# changed\n")
    assert bootstrap(changeable, "true").returncode == 0
    assert bootstrap(changeable, "true").stderr == ""
    assert builds(changeable) == before + 1


def test_changed_bpf_program_installs_again(changeable: Path) -> None:
    before = builds(changeable)
    program = changeable / "hyperbox" / "isolation" / "recorder.bpf.c"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text("/* new */")
    assert bootstrap(changeable, "true").returncode == 0
    assert builds(changeable) == before + 1
    assert bootstrap(changeable, "true").stderr == ""


def test_failed_installation_is_not_taken_for_done(changeable: Path) -> None:
    (changeable / "pyproject.toml").write_text(PYPROJECT + "# changed\n")
    (changeable / "broken").touch()
    failed = bootstrap(changeable, "echo", "never")
    assert failed.returncode == 3
    assert failed.stdout == ""
    assert "bootstrap: error: pip could not install" in failed.stderr
    (changeable / "broken").unlink()
    mended = bootstrap(changeable, "echo", "now")
    assert (mended.returncode, mended.stdout) == (0, "now\n"), mended.stderr
    assert "making .venv" in mended.stderr, "what a broken installation left is not built upon"


def test_index_that_does_not_answer_is_explained(changeable: Path) -> None:
    (changeable / "pyproject.toml").write_text(PYPROJECT + "# changed\n")
    wanted = "hyperbox-absent-from-every-index"
    (changeable / "requires").write_text(f"Requires-Dist: {wanted}\n")
    nowhere = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_EXTRA_INDEX_URL": "",
    }
    done = bootstrap(changeable, "echo", "never", environment=nowhere)
    assert done.returncode == 3
    assert wanted in done.stderr
    assert done.stderr.splitlines()[-1].startswith("bootstrap: hint: check the network")


def test_moved_checkout_gets_a_new_environment(set_up: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(set_up, moved, symlinks=True)
    done = bootstrap(moved, "python", "-c", "import sys; print(sys.prefix)")
    assert done.stdout.strip() == os.fspath(moved / ".venv")
    assert "making .venv" in done.stderr


def test_two_at_once_install_once(project: Path) -> None:
    argv = [os.fspath(project / "bootstrap"), "python", "-c", "print('ran')"]
    both = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0] for process in both] == ["ran\n", "ran\n"]
    assert builds(project) == 1


@pytest.mark.parametrize(
    "fault", ["exit 1", "exec /usr/bin/python3 -I -S -c 'raise SystemExit(1)'"]
)
def test_unusable_first_python_is_passed_over(project: Path, tmp_path: Path, fault: str) -> None:
    """As with a version manager whose python is too old: the next candidate is taken."""
    if subprocess.run(["/usr/bin/python3", "-c", "import ensurepip, venv"], check=False).returncode:
        pytest.skip("/usr/bin/python3 cannot make environments")
    shim = tmp_path / "bin/python3"
    shim.parent.mkdir()
    shim.write_text(f"#!/bin/sh\n{fault}\n")
    shim.chmod(0o755)
    path = f"{shim.parent}:/usr/bin:/bin"
    done = bootstrap(project, "python", "-c", "print('ran')", environment={"PATH": path})
    assert (done.returncode, done.stdout) == (0, "ran\n"), done.stderr
    assert "making .venv with /usr/bin/python3" in done.stderr


def test_unreadable_package_list_is_no_empty_list(project: Path) -> None:
    (project / "vm-images/host-packages.txt").unlink()
    done = bootstrap(project, "true")
    assert done.returncode == 3
    assert "cannot read" in done.stderr


def test_without_root_the_apt_line_is_printed(public_directory: Path) -> None:
    packages = "dpkg  # there\nhyperbox-no-such-b  # why\nhyperbox-no-such-a\n"
    project = make_project(public_directory / "project", packages)
    drop = [] if os.geteuid() else ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}"]
    drop += ["--clear-groups"] if drop else []
    done = bootstrap(project, "echo", "never", before=drop)
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1] == (
        "bootstrap: hint: sudo apt-get update && sudo apt-get install -y "
        "--no-install-recommends hyperbox-no-such-b hyperbox-no-such-a"
    )
    assert not (project / ".venv").exists()


@pytest.mark.root
def test_package_that_apt_cannot_find_is_explained(project: Path, tmp_path: Path) -> None:
    (project / "vm-images/host-packages.txt").write_text("hyperbox-no-such  # why\n")
    settings = tmp_path / "apt.conf"
    lists = tmp_path / "lists"
    (lists / "partial").mkdir(parents=True)
    settings.write_text(
        'Dir::Etc::sourcelist "/dev/null";\n'
        'Dir::Etc::sourceparts "/dev/null";\n'
        f'Dir::State::lists "{lists}";\n'
        f'Dir::Cache "{tmp_path}";\n'
    )
    done = bootstrap(project, "true", environment={"APT_CONFIG": os.fspath(settings)})
    assert done.returncode == 3
    assert "bootstrap: installing system packages: hyperbox-no-such" in done.stderr
    assert "bootstrap: error: apt-get could not install: hyperbox-no-such" in done.stderr
    assert not (project / ".venv").exists()


def test_package_list_gives_a_reason_for_each() -> None:
    lines = (PROJECT / "vm-images/host-packages.txt").read_text().splitlines()
    entries = [line.split("#", 1) for line in lines if line and not line.startswith("#")]
    assert entries
    assert all(len(entry) == 2 and entry[1].strip() for entry in entries)
    names = [entry[0].strip() for entry in entries]
    assert len(set(names)) == len(names)
