"""What pip installs without extras runs the product; a missing extra is one line."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from hyperbox.errors import ExitCode

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
FEATURES = ("harness", "daemon", "tracing", "storage", "containers")


def modules(requirements: list[str]) -> set[str]:
    """Return the modules that requirements install: by their own names, but for a prefix."""
    names = (re.split(r"[^\w.-]", line)[0] for line in requirements)
    found = {name.partition(".")[0].replace("-", "_") for name in names if name != "hyperbox"}
    return {"grpc" if name == "grpcio" else name for name in found}


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a verb as if no extra were installed."""
    absent = {name for extra in FEATURES for name in modules(EXTRAS[extra])} | {"pandas", "h11"}
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted(absent)!r}))\n"
        f"from hyperbox.cli.main import main; sys.exit(main({list(words)!r}))"
    )
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )


def test_the_base_install_is_the_products() -> None:
    assert modules(PROJECT["dependencies"]) == {"rich"}
    assert {"numpy", "scipy", "pandas", "matplotlib"} < modules(EXTRAS["harness"])
    (everything,) = EXTRAS["all"]
    assert set(re.findall(r"\w+", everything)) - {"hyperbox"} == set(FEATURES)
    assert "hyperbox[all]" in EXTRAS["dev"]  # what ./bootstrap installs


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["psi", "--json"],
        ["psi", "tune", "--help"],
        ["psi", "decisions", "--help"],
        ["daemon", "--help"],
        ["kernels", "list", "--json"],
    ],
)
def test_the_product_needs_no_extra(words: list[str]) -> None:
    done = run(*words)
    assert (done.returncode, done.stderr) == (0, "")


def test_doctor_needs_no_extra_and_says_what_is_missing() -> None:
    done = run("doctor", "--json")
    assert done.returncode in (ExitCode.PASS, ExitCode.HARNESS_ERROR)
    assert done.stderr == ""
    assert '"name": "harness packages"' in done.stdout


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        *(([verb, "--help"], "harness") for verb in ("validate", "reproduce", "report", "bisect")),
        *(([verb, "--help"], "harness") for verb in ("calibrate", "compare", "merge")),
        (["exec", "--kernel", "6.12", "true"], "harness"),
        (["shell", "--kernel", "6.12"], "harness"),
        (["daemon", "--socket", "none", "--listen", "127.0.0.1:0"], "daemon"),
    ],
)
def test_a_missing_extra_is_one_line_and_the_command(words: list[str], extra: str) -> None:
    done = run(*words)
    assert done.returncode == ExitCode.HARNESS_ERROR
    said, hint = done.stderr.splitlines()
    assert re.fullmatch(
        rf"hyperbox: error: hyperbox {words[0]} needs the Python package \w+, "
        "which is not installed",
        said,
    )
    assert hint == f"hint: pip install 'hyperbox[{extra}]'"
