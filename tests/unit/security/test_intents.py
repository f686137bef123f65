"""Effects outside the catalog that have begun and were not completed."""

from __future__ import annotations

import pytest

from mainspring.security.intents import Intents


@pytest.mark.parametrize(
    ("events", "left"),
    [
        ("a+ a", []),
        ("a+", [0]),
        ("a+ b+ a", [1]),  # of b, which was killed meanwhile
        ("a+ b+ b", []),  # b has done it again
        ("a+ a+ a", []),
        ("a+ b", [0]),  # of a begin that is not in the log
        ("a+ b+ a b", []),
        ("a+ b+ b a", []),
    ],
)
def test_a_completion_hides_nothing_that_others_began_after_it_had_begun(events: str, left: list[int]) -> None:
    intents = Intents()
    for number, each in enumerate(events.split()):
        intents.note(number, number, each[0], "ingest.begun" if each.endswith("+") else "ingest", "source/orders")
    assert [each.number for each in intents.open] == left
