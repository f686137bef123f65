"""Pictures of simulations as text."""

from __future__ import annotations

from mainspring.cli.simulation_view import scattered


def test_marks_stand_at_their_places() -> None:
    lines = scattered([(10.0, 1.0, "1"), (20.0, 100.0, "2"), (15.0, 10.0, "3")], across="EUR", up="ms").split("\n")
    assert lines[0].strip() == "ms"
    top, bottom = lines[1], lines[8]
    assert top.startswith("100 │")
    assert top.endswith("2")
    assert bottom.startswith("  1 │1")
    middle = next(line for line in lines[2:8] if "3" in line)
    assert abs(middle.index("3") - (top.index("2") + bottom.index("│1") + 1) / 2) <= 1
    assert lines[-1].split() == ["10", "20", "EUR"]


def test_no_mark_hides_another() -> None:
    assert scattered([], across="EUR", up="ms") == ""
    text = scattered([(5.0, 5.0, f"{number}") for number in range(1, 13)], across="EUR", up="ms")
    row = next(line for line in text.split("\n") if "│1" in line)
    assert row.partition("│")[2].split() == [f"{number}" for number in range(1, 13)]
