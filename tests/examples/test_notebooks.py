"""The notebooks run as they stand on the published run, and say what is stored in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.examples.notebook import Output, run

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
REFRESH = "run `python -m tests.examples.notebook examples/*.ipynb` and read what it says"


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_says_what_is_stored_in_it(path: Path) -> None:
    """Read on GitHub, the stored text must be what the cell says today; pictures may differ."""
    kinds = set()
    for cell, outputs in run(path):
        assert [shown(one) for one in cell["outputs"]] == [shown(one) for one in outputs], REFRESH
        kinds |= {kind for output in outputs for kind in output.get("data", ["text"])}
    assert kinds == {"text", "text/plain", "text/html", "image/png"}, "text, tables and figures"


def shown(output: Output) -> str:
    if output["output_type"] == "display_data":
        return "a figure"
    return "".join(output.get("text", output.get("data", {}).get("text/plain", [])))
