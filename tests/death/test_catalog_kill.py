"""kill -9 of the process that migrates a SQLite catalog, after any statement: nothing of the migration is there, and
the next process that opens the catalog migrates it. A new catalog is there whole, or not at all.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kit import prefork
from kit.depth import examples

VICTIM = Path(__file__).parent / "catalog_victim.py"


@pytest.mark.parametrize("revision", examples(gate=["0011"], deep=["0005", "0011", "0015"]))
def test_a_killed_migration_leaves_nothing_and_the_next_one_succeeds(revision: str, tmp_path: Path) -> None:
    found = lived(tmp_path, revision, examples(gate=23, deep=1))
    assert len(found["lives"]) >= examples(gate=2, deep=20)
    for left, opened in found["lives"]:
        assert left == found["older"]
        assert opened == found["whole"]


def test_a_new_catalog_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    found = lived(tmp_path, "", 1)
    left = [each for each, _ in found["lives"]]
    assert [] in left
    assert found["whole"] in left
    assert all(each in ([], found["whole"]) for each in left)
    assert all(opened == found["whole"] for _, opened in found["lives"])


def lived(folder: Path, revision: str, stride: int) -> dict[str, Any]:
    command = prefork.script(VICTIM, folder, revision, stride)
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found
