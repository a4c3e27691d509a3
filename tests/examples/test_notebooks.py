"""The notebooks run as they stand, cell by cell, on the published run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_runs(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Code cells are plain Python: no magics, so no kernel of Jupyter's is needed."""
    mpl.use("agg")
    monkeypatch.chdir(EXAMPLES)
    notebook = json.loads(path.read_text())
    namespace: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells):
        code = compile("".join(cell["source"]), f"{path.name}[{number}]", "exec")
        exec(code, namespace)  # the very thing that is tested
    assert "work rate:" in capsys.readouterr().out
    stored = [output for cell in cells for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in stored), "shown with its figure"
    # Read on GitHub, the stored text must be what the cell says today.
    told = [output["text"] for output in stored if output.get("name") == "stdout"]
    shift = namespace["shift"]
    assert f"p = {shift.p:.4f}" in "".join("".join(text) for text in told)
