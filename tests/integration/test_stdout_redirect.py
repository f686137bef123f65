"""With `--json` standard output is one document, whatever else the project's code and its children print there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kit.depth import deep
from mainspring.cli.stdout_redirect import dated

FEATURES = """
import os
import subprocess
import sys

import mainspring as ms

orders = ms.Source("orders", schema={"order": ms.String}, event_time="at")
print("loaded")


def rows():
    print("printed")
    subprocess.run([sys.executable, "-c", "print('of a child')"], check=True)
    os.write(1, b"of a library in C\\n")
    return [{"order": "o1", "at": "2026-01-05T09:30:00Z"}]


def broken():
    print("printed")
    raise KeyError("price")
"""
ALL = ["loaded", "printed", "of a child", "of a library in C"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "features.py").write_text(FEATURES)
    (tmp_path / "mainspring.toml").write_text('name = "shop"\nmodules = ["shop.features"]\n[profiles.local]\n')
    return tmp_path


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAINSPRING_")}
    return subprocess.run(
        [sys.executable, "-m", "mainspring", *arguments],
        cwd=project, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def document(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout)


def test_what_others_print_goes_to_standard_error(project: Path) -> None:
    done = run(project, "ingest", "orders", "shop.features:rows", "--json")
    assert done.returncode == 0, done.stderr
    assert document(done)["rows"] == 1
    assert set(ALL) <= set(done.stderr.splitlines())


def test_also_of_an_error(project: Path) -> None:
    done = run(project, "ingest", "orders", "shop.features:broken", "--json")
    assert document(done)["error"]["exit"] == done.returncode == 5
    assert "printed" in done.stderr


@deep
def test_without_it_they_print_where_they_like(project: Path) -> None:
    done = run(project, "ingest", "orders", "shop.features:rows")
    assert done.returncode == 0, done.stderr
    assert set(ALL) <= set(done.stdout.splitlines())


@deep
def test_a_reader_that_has_read_enough_is_no_error(project: Path) -> None:
    code = f"{sys.executable} -m mainspring data log --json | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", code], cwd=project, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_a_command_that_has_ended_leaves_its_databases_whole_by_themselves(project: Path) -> None:
    """SQLite takes its log away with the last connection; of one that is not closed a part stays in it."""
    assert run(project, "apply").returncode == 0
    assert run(project, "keys", "create", "shop", "--scope", "predict").returncode == 0
    state = project / ".mainspring"
    assert (state / "catalog.db").exists()
    assert [path.name for path in state.glob("*-wal")] == []


def test_instants_of_a_document_are_texts_under_their_names_alone() -> None:
    record = {
        "at": 1_372_636_800_000_000,
        "rows": 1_372_636_800_000_000,
        "ended_at": None,
        "mark": {"until": 0, "at": 5},
    }
    assert dated(record, "at", "ended_at", "mark.until", "nowhere", "rows.at") == {
        "at": "2013-07-01T00:00:00Z",
        "rows": 1_372_636_800_000_000,
        "ended_at": None,
        "mark": {"until": "1970-01-01T00:00:00Z", "at": 5},
    }
    assert dated({"at": 2**63 - 1}, "at") == {"at": 2**63 - 1}  # no time that a text could name
