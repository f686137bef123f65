"""The environment of the processes that serve."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kit.console.flights import populated
from mainspring.core.own_process import python_path
from mainspring.processes.kinds import Kind, spawn

_PROGRAM = """
import os, pathlib, sys
names = ("OPENBLAS_NUM_THREADS", "GIVEN", "OTHER")
pathlib.Path(os.environ["INTO"]).write_text(" ".join(os.environ.get(name, "-") for name in names))
"""


@pytest.mark.parametrize(
    ("slot", "declared", "wanted"), [(0, None, "1 yes no"), (0, "4", "4 yes no"), (None, None, "- yes no")]
)
def test_a_process_that_serves_has_one_thread_of_blas_unless_it_is_declared(
    slot: int | None, declared: str | None, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "told_environment.py").write_text(_PROGRAM)
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    if declared is not None:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", declared)
    monkeypatch.setenv("OTHER", "no")
    settings: Any = replace(populated().settings, state=tmp_path)
    changes = {
        "GIVEN": "yes", "INTO": str(tmp_path / "told"), "PYTHONPATH": os.pathsep.join((str(tmp_path), python_path())),
    }  # fmt: skip
    reading, writing = os.pipe()
    try:
        process = spawn(Kind("told", "told_environment", slot=slot), settings, reading, changes)
        assert process.wait(60) == 0
    finally:
        os.close(reading)
        os.close(writing)
    assert (tmp_path / "told").read_text() == wanted
