"""Lists in terminals of any width: nothing is cut off, and no word is shredded."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.text import Text

from mainspring.cli.tables import figure, in_column, show_records

COLUMNS = ("id", "name", "rows", "why")
ROWS: list[tuple[str | Text, ...]] = [
    ("01m8be2065zc3r951j33fy83ef", "late-arrival", "12,000", "the feed of the weather station was late by a day"),
    ("01m8be2065zc3r951j33fy83eg", Text("demand-[by]-store", "red"), "7", ""),
]


def shown(width: int, rows: list[tuple[str | Text, ...]] = ROWS) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    show_records(console, COLUMNS, rows, right=("rows",), folded=("why",))
    file = console.file
    assert isinstance(file, io.StringIO)
    return [line.rstrip() for line in file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [40, 60, 79, 80, 100, 200])
def test_each_value_is_whole(width: int) -> None:
    lines = shown(width)
    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    for row in ROWS:
        for word in " ".join(map(str, row)).split():
            assert word in words


def test_wide_is_a_table_and_narrow_are_blocks() -> None:
    assert shown(200)[0].split() == list(COLUMNS)
    assert len(shown(200)) == 3
    assert shown(60)[:3] == ["id 01m8be2065zc3r951j33fy83ef", "  name  late-arrival", "  rows  12,000"]
    assert "  why" not in shown(60)[-1]  # an empty value has no line


def test_without_rows_it_has_its_head_alone() -> None:
    assert shown(80, []) == ["id  name  rows  why"]


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.0, 4, "0"), (12_345.6, 4, "12,346"), (1_234_567.0, 6, "1,234,567"), (1_360.0, 3, "1,360"),
        (0.74123, 4, "0.7412"), (1.359e-05, 4, "0.00001359"), (3.0, 4, "3"), (-2_500.25, 4, "-2,500"),
        (1e-12, 4, "0"), (float("inf"), 4, "inf"),
    ],
)  # fmt: skip
def test_a_figure_has_no_exponent(value: float, digits: int, text: str) -> None:
    assert figure(value, digits) == text


def test_numbers_of_a_column_have_as_many_decimals_each() -> None:
    assert in_column([12_345.678, 0.05, None, 0.0]) == ["12,345.68", "0.05", "", "0.00"]
    assert in_column([0.05425, 0.00008611, 0.1055]) == ["0.05425", "0.00009", "0.10550"]
    assert in_column([1e-12, 2e-9]) == ["0.000000000", "0.000000002"]
    assert in_column([None, 0.0]) == ["", "0.00"]
