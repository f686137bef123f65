"""Copies of the example projects, and of the documentation that one of them searches."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from mainspring.core.errors import Conflict
from mainspring.operations.demo.example import PAGES, copy_pages, project_folder

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("name", ["flights", "handbook"])
def test_an_example_is_copied_once_and_never_over_something_else(tmp_path: Path, name: str) -> None:
    made = project_folder(tmp_path, name)
    assert made == tmp_path / name
    (made / "mine").touch()
    assert project_folder(tmp_path, name) == made
    assert (made / "mine").exists()
    assert project_folder(made, name) == made
    (tmp_path / "else" / name).mkdir(parents=True)
    with pytest.raises(Conflict, match="not a project"):
        project_folder(tmp_path / "else", name)


def test_pages_are_copied_whole_also_after_a_kill(tmp_path: Path) -> None:
    (tmp_path / "pages.new" / "howto").mkdir(parents=True)
    copy_pages(tmp_path)
    copied = {path.relative_to(tmp_path / "pages").as_posix() for path in (tmp_path / "pages").rglob("*.md")}
    assert copied == {path.relative_to(DOCS).as_posix() for part in PAGES for path in (DOCS / part).rglob("*.md")}
    (tmp_path / "pages" / "howto" / "mine.md").touch()
    copy_pages(tmp_path)
    assert (tmp_path / "pages" / "howto" / "mine.md").exists()


def test_each_question_names_a_page(tmp_path: Path) -> None:
    made = project_folder(tmp_path, "handbook")
    with (made / "questions.csv").open(encoding="utf-8", newline="") as file:
        questions = list(csv.DictReader(file))
    assert len({each["question"] for each in questions}) == len(questions) > 20
    assert all((DOCS / each["page"]).is_file() for each in questions)
