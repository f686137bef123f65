"""The tutorial notebooks run as they are written, without a warning, and the outputs they are kept with are current."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from kit.depth import deep
from kit.later import later
from kit.pages import DOCS, name_of, script

NEEDED = ("nbformat", "nbclient", "ipykernel")
assert "CI" not in os.environ or all(map(find_spec, NEEDED))
nbformat, *_ = map(later, NEEDED)

outputs = script("notebook_outputs")
NOTEBOOKS = sorted(DOCS.rglob("*.ipynb"))
# What the kernel does before the first cell: in it a warning is an error too.
_STRICT = """
import warnings
warnings.simplefilter("error")
warnings.filterwarnings("ignore", module="ipykernel")
"""


@deep
@pytest.mark.parametrize("page", NOTEBOOKS, ids=name_of)
@pytest.mark.slow
def test_a_notebook_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for folder in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(folder, str(tmp_path / folder.lower()))
    notebook = nbformat.read(page, as_version=4)
    kept = outputs.shown(notebook)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(_STRICT))

    outputs.execute(notebook, tmp_path)

    said = [
        (number, output.text)
        for number, cell in enumerate(notebook.cells)
        for output in cell.get("outputs", [])
        if output.output_type == "stream" and output.name == "stderr"
    ]
    assert said == []
    outputs.clean(notebook)
    assert outputs.shown(notebook)[1:] == kept, "run `python docs/notebook_outputs.py`"
    assert_it_shows_itself(notebook)


def assert_it_shows_itself(notebook: Any) -> None:
    """The project, a view, a training set and a verification are tables for people, not addresses of objects."""
    shown = [
        output.data
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "execute_result"
    ]
    assert sum("<table>" in data.get("text/html", "") for data in shown) >= 4
    for data in shown:
        assert not re.search(r"object at 0x", data["text/plain"])


@pytest.mark.parametrize("page", NOTEBOOKS, ids=name_of)
def test_a_notebook_is_kept_with_outputs_and_names_no_machine(page: Path) -> None:
    notebook = nbformat.read(page, as_version=4)
    nbformat.validate(notebook)
    assert sum(bool(cell.get("outputs")) for cell in notebook.cells) >= 10
    assert not re.search(r"/tmp|/home/|/Users/|(?<!\w)/(work|root)/", page.read_text(encoding="utf-8"))
    assert page.stat().st_size < 100_000


def test_outputs_are_compared_without_what_differs_from_run_to_run() -> None:
    def notebook(text: str) -> Any:
        cell = nbformat.v4.new_code_cell("x", outputs=[nbformat.v4.new_output("execute_result", {"text/plain": text})])
        return nbformat.v4.new_notebook(cells=[cell])

    one = outputs.shown(notebook("c3 2026-11-26 00:27:41+00:00  60.96  PRESENT"))
    assert one == outputs.shown(notebook("c3  2026-01-02 10:27:41.5+00:00 7 PRESENT"))
    assert one != outputs.shown(notebook("c3 2026-11-26 00:27:41+00:00  60.96  MISSING"))


@pytest.mark.parametrize("page", NOTEBOOKS, ids=name_of)
def test_a_notebooks_links_lead_somewhere(page: Path) -> None:
    notebook = nbformat.read(page, as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        assert (page.parent / link).exists(), link
