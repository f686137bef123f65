"""Writes the outputs of the notebooks into them, by running them: `python docs/notebook_outputs.py`."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
LONGEST_S = 60  # of a cell
_KINDS = ("text/plain", "text/html")


def execute(notebook: Any, folder: Path) -> None:
    """Run every cell, in a kernel whose folder is `folder`."""
    import nbclient

    metadata = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=LONGEST_S, kernel_name="python3", resources=metadata).execute()


def clean(notebook: Any) -> None:
    """Keep results as text and HTML, without the temporary folder they name, and drop bars of progress that ended."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        kept = [output for output in cell.get("outputs", []) if output.output_type == "execute_result"]
        for output in kept:
            output.data = {
                kind: re.sub(r"[/\w.-]*/tmp\w+(?=/)", "...", text)
                for kind, text in output.data.items()
                if kind in _KINDS
            }
        if cell.cell_type == "code":
            cell.outputs = kept


def shown(notebook: Any) -> list[list[str]]:
    """Return the text results of each cell without numbers, times and widths, which differ from run to run."""
    return [
        [
            " ".join(re.sub(r"[-+]?\d[\d.,:+TZ-]*|[\\-]", " # ", output.data["text/plain"]).replace("#", "").split())
            for output in cell.get("outputs", [])
            if output.output_type == "execute_result"
        ]
        for cell in notebook.cells
    ]


def main() -> None:
    import nbformat

    for page in sorted(DOCS.rglob("*.ipynb")):
        notebook = nbformat.read(page, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            execute(notebook, Path(folder))
        clean(notebook)
        nbformat.write(notebook, page)


if __name__ == "__main__":
    sys.exit(main())
