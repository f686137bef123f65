"""A batch run killed at any change of its output, and at any moment: carried on, it is as if undisturbed."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from kit import prefork
from kit.depth import deep, examples

TESTS = Path(__file__).parents[1]


# Renames: plan, of each chunk quarantine (two chunks have one) and part, report. Commits likewise, with facts.
CHANGES = {"folder": 2 * (1 + 4 + 2 + 1), "table": 2 * (1 + 4 * 2 + 2 + 1), "features": 2 * (1 + 4 + 2 + 1)}
FEW = {"folder": [9], "table": [6, 11], "features": [5]}
EVERY = {kind: list(range(1, changes + 1)) for kind, changes in CHANGES.items()}


def trials(steps: dict[str, list[float]]) -> dict[str, list[dict[str, Any]]]:
    """Return by kind what is there after an undisturbed run, then after a kill at each step."""
    words = [f"{kind}:{step:g}" for kind, numbers in steps.items() for step in (0, *numbers)]
    found = iter(prefork.documents(Path(__file__).with_name("batch_victim.py"), *words))
    return {kind: [next(found) for _ in (0, *numbers)] for kind, numbers in steps.items()}


def test_killed_at_any_change_it_is_carried_on_to_the_same_end() -> None:
    for kind, (undisturbed, *found) in trials(examples(gate=FEW, deep=EVERY)).items():
        assert (undisturbed["killed"], undisturbed["left"]) == (False, []), kind
        assert (undisturbed["count"], undisturbed["ids"]) == (97, 97), kind
        for each in found:
            assert each == undisturbed | {"killed": True}, kind


@deep
def test_killed_at_any_moment_it_is_carried_on_to_the_same_end() -> None:
    chance = random.Random()
    moments = {kind: [chance.uniform(0.01, 0.9) for _ in range(20)] for kind in CHANGES}
    for kind, (undisturbed, *found) in trials(moments).items():
        for each in found:
            assert each == undisturbed | {"killed": each["killed"]}, kind
