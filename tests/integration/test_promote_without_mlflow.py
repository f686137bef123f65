"""A name that is misspelt is refused before MLflow is imported, which takes seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kit.depth import deep
from mainspring.project import open_project
from mainspring.project.settings import load_settings

PROMOTES = """
import sys
from pathlib import Path
from mainspring.operations.promote import promote, rollback
from mainspring.project.settings import load_settings
from mainspring.project import open_project
from mainspring.core.errors import NotFound

for act in (promote, rollback):
    try:
        act(open_project(load_settings(Path.cwd())), sys.argv[1])
    except NotFound as error:
        print(error.what)
print("mlflow" in sys.modules)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mainspring.toml").write_text('name = "shop"\nmodules = ["shop"]\n[profiles.local]\n')
    (tmp_path / "shop.py").write_text("")
    return tmp_path


def said(folder: Path, model: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROMOTES, model], cwd=folder, capture_output=True, text=True, check=True
    )  # fmt: skip
    return done.stdout.splitlines()


@deep
def test_a_misspelt_name_needs_nothing_of_mlflow(folder: Path) -> None:
    unknown = "The project has no model 'lat'."
    assert said(folder, "lat") == [unknown, unknown, "False"]
    assert not (folder / ".mainspring" / "tracking.db").exists()
    versions = open_project(load_settings(folder, environment={})).versions
    versions.register("late", "a" * 64, "", {}, 1)
    assert said(folder, "lat") == [unknown, unknown, "False"]


def test_a_version_without_a_definition_is_found(folder: Path) -> None:
    first = open_project(load_settings(folder, environment={})).versions
    other = open_project(load_settings(folder, environment={})).versions
    assert other.all() == []
    made = first.register("late", "a" * 64, "", {}, 1)
    assert other.all() == other.all("late") == first.all("late") == [made]
    assert other.all("lat") == []
