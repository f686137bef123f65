"""Effects outside the catalog that have begun and were not completed."""

from __future__ import annotations

import pytest

from mainspring.core.time import DAY
from mainspring.security.intents import Intents, completing


@pytest.mark.parametrize(
    ("events", "left"),
    [
        ("a+ a", []),
        ("a+ b+ a", [1]),  # of b, which was killed meanwhile
        ("a+ b+ b", []),  # b has done it again
        ("a+ a+ a", []),
        ("a+ b", [0]),  # of a begin that is not in the log
        ("a+ b+ a b", []),
        ("a+ b+ b a", []),
    ],
)
def test_a_completion_of_an_older_release_is_of_the_newest_begin_of_its_actor(events: str, left: list[int]) -> None:
    intents = Intents()
    for number, each in enumerate(events.split()):
        intents.note(number, number, each[0], "ingest.begun" if each.endswith("+") else "ingest", "source/orders", "")
    assert [each.number for each in intents.open] == left


@pytest.mark.parametrize(
    ("events", "left"),
    [
        ("+ -0", []),
        ("+ + -1", [0]),  # of one actor: which of the two was killed is known
        ("+ + -0", [1]),
        ("+ + -1 -0", []),
        ("+ + -7", [0, 1]),  # of a begin that is not in the log
        ("+ . + -2", []),  # done again, a day later
        ("+ + . + -1", [0, 3]),
    ],
)
def test_a_completion_names_its_begin_and_hides_no_other_of_the_last_day(events: str, left: list[int]) -> None:
    intents, day = Intents(), 0
    for number, each in enumerate(events.split()):
        day += 2 * (each == ".")
        action = "ingest.begun" if each == "+" else "ingest"
        detail = completing("9 rows", int(each[1:])) if each.startswith("-") else ""
        if each != ".":
            intents.note(number, day * DAY + number, "a", action, "source/orders", detail)
    assert [each.number for each in intents.open] == left
