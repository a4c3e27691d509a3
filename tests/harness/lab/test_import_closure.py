"""What a program needs is read off the source: imports, and what it names to start it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperbox.harness.lab.import_closure import import_closure, named_in

SOURCES = {
    "top/__init__.py": "",
    "top/__main__.py": "from top import plain\n",
    "top/plain.py": "",
    "top/lazy.py": "def f():\n    from top.deep import leaf\n",
    "top/deep/__init__.py": "from top import plain as other\n",
    "top/deep/leaf.py": "import os, top.plain\n",
    "top/starts.py": "ARGV = ['-m', 'top.lazy']\n",
    "top/finds.py": "LOADS = {'x': 'top.plain.THING'}\n",
    "top/joins.py": "X = Path(__file__).parent / 'loads' / 'work.py'\n",
    "top/circle.py": "import top.circle\n",
    "loads/work.py": "print('top.no_such_module', 'leaf.py')\n",
    "loads/unused.py": "",
}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    for name, source in SOURCES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    return {name: tmp_path / name for name in SOURCES}


@pytest.mark.parametrize(
    ("start", "needed"),
    [
        ("top/plain.py", ["top/__init__.py"]),
        (
            "top/lazy.py",
            ["top/__init__.py", "top/deep/__init__.py", "top/deep/leaf.py", "top/plain.py"],
        ),
        (
            "top/starts.py",
            [
                "top/__init__.py",
                "top/deep/__init__.py",
                "top/deep/leaf.py",
                "top/lazy.py",
                "top/plain.py",
            ],
        ),
        ("top/finds.py", ["top/__init__.py", "top/plain.py"]),
        ("top/joins.py", ["loads/work.py", "top/__init__.py"]),
        ("top/circle.py", ["top/__init__.py"]),
        ("loads/work.py", []),
    ],
)
def test_a_program_needs_what_it_imports_or_names(
    files: dict[str, Path], start: str, needed: list[str]
) -> None:
    assert import_closure(files, [start]) == tuple(sorted([start, *needed]))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["python3", "-m", "top.lazy", "{arm}"], ["top/lazy.py"]),
        (["python3", "-m", "top"], ["top/__main__.py"]),
        (["python3", "loads/work.py", "-m"], ["loads/work.py"]),
        (["sh", "-c", "exec python3 loads/work.py | grep top.x"], ["loads/work.py"]),
        (["python3", "-c", "import top.deep.leaf"], ["top/deep/leaf.py"]),
        (["top", "-m"], []),
    ],
)  # fmt: skip
def test_a_command_line_names_files_and_modules(
    files: dict[str, Path], words: list[str], named: list[str]
) -> None:
    assert list(named_in(words, files)) == named
