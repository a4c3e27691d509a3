"""The documents say only what is so: commands, options, exit codes, paths, gates."""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from hyperbox.cli.main import main
from hyperbox.config import VALIDATE, Settings
from hyperbox.daemon.options import DAEMON
from hyperbox.errors import ExitCode
from hyperbox.foreign import read_toml
from hyperbox.harness.declarations import load_suites
from hyperbox.harness.model import Lane
from hyperbox.memory.tuning_options import TUNER
from hyperbox.runtime.options import CONTAINERS
from hyperbox.storage.image_settings import IMAGES

PROJECT = Path(__file__).resolve().parents[1]
GUIDES = sorted(f"docs/{path.name}" for path in (PROJECT / "docs").glob("*.md"))
DOCUMENTS = ("README.md", "CONTRIBUTING.md", *GUIDES)
TABLES = (VALIDATE, TUNER, DAEMON, CONTAINERS, IMAGES)
FIRST = "./bootstrap hyperbox validate"
SECOND = "./bootstrap pytest"
PLACEHOLDER = re.compile(r"NAME\b|bzImage|staging/")


def text(document: str = "README.md") -> str:
    return (PROJECT / document).read_text()


def blocks(language: str, document: str = "README.md") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text(document), re.DOTALL | re.MULTILINE)


def commands(document: str) -> list[str]:
    return [line for block in blocks("sh", document) for line in block.splitlines()]


def spans(document: str) -> list[str]:
    """Inline code outside of code blocks."""
    prose = re.sub(r"^```.*?^```$", "", text(document), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", prose)


def hyperbox_lines() -> list[str]:
    """Every use of the hyperbox command in the documents, from its verb on."""
    lines = []
    for document in DOCUMENTS:
        for line in [*commands(document), *spans(document)]:
            found = re.match(r"(?:\./bootstrap )?hyperbox ([a-z].*)", line)
            if found:
                lines.append(found.group(1))
    return sorted(set(lines))


@cache
def help_of(*verb: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as ended:
        main([*verb, "--help"])
    assert ended.value.code == 0
    return out.getvalue()


def verb_of(words: list[str]) -> tuple[str, ...]:
    deep = (
        len(words) > 1
        and words[0] in ("guests", "images", "kernels", "psi", "seccomp")
        and not words[1].startswith("-")
    )
    return tuple(words[:2]) if deep else tuple(words[:1])


def test_the_two_commands_come_first_and_once() -> None:
    assert [block.strip() for block in blocks("sh")[:2]] == [FIRST, SECOND]
    assert commands("README.md").count(FIRST) == 1
    assert commands("README.md").count(SECOND) == 1


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_run_in_a_fresh_clone(document: str) -> None:
    strange = [c for c in commands(document) if not c.startswith(("./bootstrap ", ".ci/run"))]
    assert strange == []
    assert all(shlex.split(command) for command in commands(document))


@pytest.mark.parametrize("line", hyperbox_lines())
def test_verbs_and_options_exist(line: str) -> None:
    words = shlex.split(line)
    described = help_of(*verb_of(words))
    own = itertools.takewhile(lambda word: word != "--", words)  # what follows is another command's
    for option in (word.partition("=")[0] for word in own if word.startswith("--")):
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", described), option


@pytest.mark.parametrize(
    "option", sorted({s for d in DOCUMENTS for s in spans(d) if s.startswith("--")})
)
def test_options_in_the_prose_exist(option: str) -> None:
    verbs = [
        ("validate",),
        ("report",),
        ("doctor",),
        ("daemon",),
        ("kernels", "fetch"),
        ("run",),
        ("seccomp", "generate"),
        ("kernels", "lock"),
        ("pull",),
        ("push",),
        ("trace",),
    ]
    pattern = rf"(?<![\w-]){re.escape(option.split(maxsplit=1)[0])}(?![\w-])"
    assert any(re.search(pattern, help_of(*verb)) for verb in verbs)


def test_values_in_commands_are_known() -> None:
    """Kernels, gates and sets that the examples name can be asked for."""
    matrix = read_toml(PROJECT / "vm-images/matrix.toml")
    kernels = {entry["series"] for entry in matrix["kernel"]} | set(matrix["sets"]) | {"all"}
    gates = {gate.id for suite in load_suites() for gate in suite.gates}
    gates |= {suite.id for suite in load_suites()}
    for line in hyperbox_lines():
        words = shlex.split(line)
        for before, word in itertools.pairwise(words):
            if PLACEHOLDER.search(word) or word.startswith("-"):
                continue
            if before == "--kernel" or words[:2] in (["kernels", "fetch"], ["kernels", "update"]):
                assert word in kernels | {"fetch", "update"}, line
            elif words[0] == "validate":
                assert before.startswith("--") or word in gates, line


def test_exit_codes_are_all_listed() -> None:
    listed = re.findall(r"^\| (\d+) \|", text(), re.MULTILINE)
    assert [int(code) for code in listed] == [code.value for code in ExitCode]


def test_lanes_are_all_listed() -> None:
    table = text("docs/lanes.md").split("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)`", table, re.MULTILINE)
    assert {*listed} == {*Lane} - {Lane.HOST} | {"auto", "real"}
    assert "| `exact` (default)" in table
    assert Settings().lane == "exact"


def test_settings_of_the_example_file_exist(tmp_path: Path) -> None:
    (example,) = blocks("toml", "docs/configuration.md")
    path = tmp_path / "hyperbox.toml"
    path.write_text(example)
    named = argparse.Namespace(config=path)
    for table in TABLES:
        assert table.resolve(named, {}) != table.declares()
        for setting in table.settings:
            line = re.search(rf"^{setting.name} = .*#(.*)$", example, re.MULTILINE)
            if line and setting.name in read_toml(path)[table.name]:
                assert f"{setting.option}, {table.variable(setting)}" in line[1]


def test_gates_are_those_of_the_suites() -> None:
    tables = text("docs/psi.md").partition("\n## What was measured")[0]
    tables += "".join(
        text(f"docs/{name}.md") for name in ("verdicts", "seccomp", "tracing", "lazy", "images")
    )
    listed = re.findall(r"^\| `([a-z]+\.[\w.]+)`", tables, re.MULTILINE)
    assert listed
    gates = {gate.id for suite in load_suites() for gate in suite.gates}
    families = (
        "harness.",
        "seccomp.profile_size.",
        "seccomp.filter_size.",
        "seccomp.false_negatives.",
        "seccomp.no_regression.",
        "seccomp.enforced_run.",
        "seccomp.deterministic.",
        "seccomp.complete.",
        "seccomp.crossed.",
        "seccomp.slowdown.",
        "erofs.lazy_recovery.",
        "erofs.pull_time.",
        "erofs.first_use.",
        "erofs.full_read.",
        "erofs.converted_pull_time.",
        "erofs.converted_first_use.",
        "erofs.converted_full_read.",
        "erofs.lazy_pull_time.",
        "erofs.lazy_first_use.",
        "erofs.lazy_full_read.",
        "erofs.lazy_warm.",
        "ebpf.cpu_overhead.",
        "ebpf.memory.",
    )
    many = {gate for gate in gates if gate.startswith(families)}
    kinds = {".".join(gate.split(".")[:2]) + ".NAME" for gate in many}
    assert {*listed} == gates - many | kinds


def test_variables_exist_in_the_source() -> None:
    source = "".join(path.read_text() for path in (PROJECT / "hyperbox").rglob("*.py"))
    settings = {table.variable(one) for table in TABLES for one in table.settings}
    for document in DOCUMENTS:
        for variable in set(re.findall(r"HYPERBOX_[A-Z_]+", text(document))):
            assert variable in settings or variable in source, variable


@pytest.mark.parametrize("document", [*DOCUMENTS, "CHANGELOG.md"])
def test_links_lead_somewhere(document: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", text(document)):
        if not target.startswith("https://"):
            assert (PROJECT / document).parent.joinpath(target).exists(), target


def test_every_guide_is_linked_and_the_readme_is_short() -> None:
    linked = set(re.findall(r"\]\((docs/[^)#]+)\)", text()))
    assert linked == set(GUIDES)
    assert len(text().split()) <= 1_300
    assert FIRST in text().splitlines()[:40]


def test_licence_is_the_declared_one() -> None:
    assert read_toml(PROJECT / "pyproject.toml")["project"]["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0" in text("LICENSE")
