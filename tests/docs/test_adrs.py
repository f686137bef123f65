"""Decisions are numbered once, and their headings say their numbers."""

from __future__ import annotations

from pathlib import Path

ADRS = sorted((Path(__file__).resolve().parents[2] / "docs" / "adr").glob("*.md"))


def test_each_number_is_given_once_and_is_in_the_heading() -> None:
    numbers = [int(path.name[:4]) for path in ADRS]
    assert numbers == list(range(1, len(ADRS) + 1))
    for number, path in zip(numbers, ADRS, strict=True):
        assert path.read_text(encoding="utf-8").startswith(f"# {number}. "), path.name
