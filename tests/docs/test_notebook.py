"""The tutorial notebooks run as they are written, from top to bottom, without a warning."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from kit.pages import DOCS, name_of

if "CI" in os.environ:
    import nbclient
    import nbformat
else:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")

NOTEBOOKS = sorted(DOCS.rglob("*.ipynb"))
LONGEST_S = 60
# What the kernel does before the first cell: in it a warning is an error too.
_STRICT = """
import warnings
warnings.simplefilter("error")
warnings.filterwarnings("ignore", module="ipykernel")
"""


@pytest.mark.parametrize("page", NOTEBOOKS, ids=name_of)
@pytest.mark.slow
def test_a_notebook_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for folder in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(folder, str(tmp_path / folder.lower()))
    notebook = nbformat.read(page, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(_STRICT))
    client = nbclient.NotebookClient(
        notebook, timeout=LONGEST_S, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )

    client.execute()

    said = [
        (number, output.text)
        for number, cell in enumerate(notebook.cells)
        for output in cell.get("outputs", [])
        if output.output_type == "stream" and output.name == "stderr"
    ]
    assert said == []
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
def test_a_notebook_is_kept_without_outputs_and_names_no_machine(page: Path) -> None:
    notebook = nbformat.read(page, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs"), "clear the outputs"
        assert cell.get("execution_count") is None
        assert not re.search(r"/tmp/|/home/|/Users/|(?<!\w)/(work|root)/", cell.source)


@pytest.mark.parametrize("page", NOTEBOOKS, ids=name_of)
def test_a_notebooks_links_lead_somewhere(page: Path) -> None:
    notebook = nbformat.read(page, as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        assert (page.parent / link).exists(), link
