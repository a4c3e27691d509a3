"""Running a notebook as Jupyter would, with nothing but the standard library and matplotlib.

``python -m tests.examples.notebook FILE`` runs a notebook and keeps what its cells say in it.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

Output = dict[str, Any]


def run(path: Path) -> Iterator[tuple[dict[str, Any], list[Output]]]:
    """Run the code cells in order, from the notebook's directory; return each with its outputs."""
    mpl.use("agg")
    document = json.loads(path.read_text(encoding="utf-8"))
    namespace: dict[str, Any] = {"__name__": "__main__"}
    before = Path.cwd()
    os.chdir(path.parent)
    try:
        for number, cell in enumerate(document["cells"]):
            if cell["cell_type"] == "code":
                source = "".join(cell["source"])
                yield cell, list(_outputs(source, f"{path.name}[{number}]", namespace))
    finally:
        os.chdir(before)
        plt.close("all")


def refreshed(path: Path) -> str:
    """Return the notebook's text with what its cells say today."""
    document = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    for place, (cell, (_, outputs)) in enumerate(zip(code, run(path), strict=True), start=1):
        cell["outputs"], cell["execution_count"] = outputs, place
        for output in outputs:
            if output["output_type"] == "execute_result":
                output["execution_count"] = place
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _outputs(source: str, name: str, namespace: dict[str, Any]) -> Iterator[Output]:
    body = ast.parse(source, name).body
    last = body[-1] if body and isinstance(body[-1], ast.Expr) else None
    statements = body[:-1] if last is not None else body
    printed = io.StringIO()
    value = None
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(statements, []), name, "exec"), namespace)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), name, "eval"), namespace)
    if printed.getvalue():
        lines = printed.getvalue().splitlines(keepends=True)
        yield {"output_type": "stream", "name": "stdout", "text": lines}
    for number in plt.get_fignums():
        yield {"output_type": "display_data", "metadata": {}, "data": _picture(plt.figure(number))}
        plt.close(number)
    if value is not None:
        shown = {"text/plain": repr(value).splitlines(keepends=True)}
        if hasattr(value, "_repr_html_"):
            shown["text/html"] = value._repr_html_().splitlines(keepends=True)
        yield {"output_type": "execute_result", "metadata": {}, "data": shown}


def _picture(figure: Any) -> dict[str, Any]:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=100, metadata={"Software": None})
    encoded = base64.encodebytes(stream.getvalue()).decode()
    return {"image/png": encoded, "text/plain": [repr(figure)]}


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        Path(argument).write_text(refreshed(Path(argument)), encoding="utf-8")
