"""Which of the project's modules a program needs, read off the source: nothing is imported.

Counted as needed are imports wherever they stand in a module (lazy ones too), the packages
around them, and what a module names as text because it starts or imports it by name: a dotted
name ("hyperbox.memory.tune"), one of something in a module ("suites.harness.computing.SWAP"),
or a path ("workloads/stress.py", also as ``directory / "workloads" / "stress.py"``). Names that
are put together at run time cannot be seen: an experiment declares them in ``uses``.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

__all__ = ["import_closure", "named_in"]

_TOKEN = re.compile(r"[\w./-]+")
_MAIN = "__main__"


def import_closure(files: Mapping[str, Path], starts: Iterable[str]) -> tuple[str, ...]:
    """Return the files that the files in `starts` need, themselves included, sorted.

    Parameters
    ----------
    files
        The project's modules: paths below its directory, as ``hyperbox/files.py``, and where
        they are.
    starts
        Some of these paths.
    """
    modules = {_module(path): path for path in files}
    needed: set[str] = set()
    waiting = list(starts)
    while waiting:
        path = waiting.pop()
        if path in needed:
            continue
        needed.add(path)
        package = path.rpartition("/")[0]
        while package:
            waiting += [name for name in (f"{package}/__init__.py",) if name in files]
            package = package.rpartition("/")[0]
        for name in _mentions(files[path].read_text(encoding="utf-8")):
            waiting += _found(name, files, modules)
    return tuple(sorted(needed))


def named_in(words: Sequence[str], files: Mapping[str, Path]) -> tuple[str, ...]:
    """Return the project's files that a command line names: paths, modules, ``-m package``."""
    modules = {_module(path): path for path in files}
    found: list[str] = []
    for before, word in zip(("", *words), words, strict=False):
        for token in _TOKEN.findall(word):
            found += _found(token, files, modules)
            if before == "-m":
                found += _found(f"{token}.{_MAIN}", files, modules) or _exact(token, modules)
    return tuple(dict.fromkeys(found))


def _module(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _exact(name: str, modules: Mapping[str, str]) -> list[str]:
    return [modules[name]] if name in modules else []


def _found(name: str, files: Mapping[str, Path], modules: Mapping[str, str]) -> list[str]:
    """Return the file that a name means: a path, a module, or something in a module."""
    if name in files:
        return [name]
    if "." not in name:  # a word that is also the name of a package says nothing
        return []
    owner = name.rpartition(".")[0]
    found = _exact(name.removesuffix("."), modules)
    return found or (_exact(owner, modules) if "." in owner else [])


@functools.cache
def _mentions(source: str) -> tuple[str, ...]:
    """Return every name in a module's source that may be one of the project's."""
    try:
        tree = ast.parse(source)
    except SyntaxError:  # Python says so better where it is run
        return ()
    names = (name for node in ast.walk(tree) for name in _names_of(node))
    return tuple(dict.fromkeys(names))


def _names_of(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):  # with a dot: what is imported may be a package
        yield from (f"{alias.name}." for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield f"{node.module}."
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        yield "/".join(_joined(node))


def _joined(node: ast.expr) -> list[str]:
    """Return the texts at the end of ``x / "a" / "b"``."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        last = _joined(node.right)
        return [*_joined(node.left), *last] if last else []
    return []
