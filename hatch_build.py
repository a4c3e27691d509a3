"""Build hook: compiles the BPF programs, so that nobody needs a compiler at run time."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_FLAGS = ("-target", "bpf", "-O2", "-g", "-Wall", "-Wextra", "-Werror")


class BpfBuildHook(BuildHookInterface):  # type: ignore[type-arg,misc] # hatchling has no types here
    """Compiles every ``*.bpf.c`` of the package to a ``*.bpf.o`` beside it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the wheel, or the editable install, is put together."""
        del version
        root = Path(self.root)
        for source in sorted((root / "hyperbox").rglob("*.bpf.c")):
            compile_program(root, source.relative_to(root))
        build_data["artifacts"].append("hyperbox/**/*.bpf.o")


def compile_program(root: Path, source: Path) -> None:
    """Compile one program; `source` is relative to `root`, so that no path of this machine stays.

    Raises
    ------
    RuntimeError
        If clang or a header is missing, or the program has a warning.
    """
    made = root / source.with_suffix(".o")
    partial = made.with_suffix(".partial")
    # <asm/types.h> lies in Debian's directory of the architecture, which -target bpf leaves out.
    headers = f"-I/usr/include/{platform.machine()}-linux-gnu"
    command = ["clang", *_FLAGS, headers, "-fdebug-compilation-dir=.", "-c", str(source), "-o"]
    try:
        done = subprocess.run(
            [*command, str(partial)], cwd=root, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise RuntimeError(
            "clang is missing, which compiles the BPF programs: apt-get install clang libbpf-dev"
        ) from None
    if done.returncode:
        raise RuntimeError(f"clang could not compile {source}:\n{done.stderr}")
    os.replace(partial, made)  # noqa: PTH105 # whole or absent
