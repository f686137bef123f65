"""kill -9 of a process that lands and derives, at random moments: the derived table is an undisturbed run's."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from death import derive_victim
from kit import prefork
from kit.depth import examples

VICTIM = Path(__file__).parent / "derive_victim.py"


def trials(folder: Path, moments: list[str]) -> list[dict[str, Any]]:
    return prefork.documents(VICTIM, folder, *moments)


def test_killed_at_any_moment_the_derived_table_is_that_of_an_undisturbed_run(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    derive_victim.land(folder, range(2))
    longest, found = 2.0, list[dict[str, Any]]()
    while sum(trial["killed"] for trial in found) < examples(gate=1, deep=20):
        moments = [f"{random.random() * longest:.3f}" for _ in range(examples(gate=1, deep=8))]
        found += trials(folder, [*moments, *([] if found else ["500"])])
        longest /= 1.5
    assert all(trial["each_once"] and trial["in_order"] for trial in found), found
    assert {trial["digest"] for trial in found} == {found[0]["digest"]}, found
    assert found[0]["failed"] > 0
    assert found[0]["rows"] + found[0]["failed"] == 5 * derive_victim.ROWS
