"""A thing that all workers of a test run share: the first that needs it makes it, the others wait."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mainspring.core.locks import FileLocks


def made_once(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Any], *, wait_s: float = 380.0
) -> tuple[Path, Any]:
    """Return the folder that `make` filled, and what it returned, once for all workers of this run.

    Args:
        name: Of the folder.
        make: Takes the empty folder, and returns what JSON can hold. Called again by the next test if it raises.
        wait_s: How long to wait for another worker that is making it.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder, returned = base / name, base / f"{name}.json"
    with FileLocks(base / "locks").hold(name, wait_s=wait_s):
        if not returned.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of an attempt that failed
            folder.mkdir()
            returned.write_text(json.dumps(make(folder)))
    return folder, json.loads(returned.read_text())
