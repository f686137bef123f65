"""Rows of the sources: the pages in the folder `pages`, and the questions in `questions.csv`."""

import csv
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

FOLDER = Path(__file__).parents[1]

Row = dict[str, object]


def pages() -> Iterator[Row]:
    """Every page: its path, the part of the documentation that it is of, its title and its text."""
    for file in sorted((FOLDER / "pages").rglob("*.md")):
        text = file.read_text(encoding="utf-8")
        path = file.relative_to(FOLDER / "pages")
        title = next((line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")), path.stem)
        changed_at = datetime.fromtimestamp(file.stat().st_mtime, UTC)
        yield {"path": path.as_posix(), "part": path.parts[0], "title": title, "text": text, "changed_at": changed_at}


def questions() -> Iterator[Row]:
    """Questions, and for each a page that answers it."""
    with (FOLDER / "questions.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield {**row, "asked_at": datetime(2026, 1, 1, tzinfo=UTC)}
