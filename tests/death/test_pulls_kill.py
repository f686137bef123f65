"""kill -9 of a pull from a warehouse, at every step and at any moment: each row is there once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kit import prefork
from kit.depth import deep, examples

VICTIM = Path(__file__).parent / "pulls_victim.py"


def victim(*arguments: str) -> dict[str, Any]:
    return prefork.documents(VICTIM, *arguments)[-1]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found = victim("whole", str(tmp_path_factory.mktemp("pulls") / "whole"))
    assert found.pop("deaths") == "0"
    table, last_values, quarantine = (int(value.split()[0]) for value in found.values())
    assert table + quarantine == 129
    assert min(last_values, quarantine) > 5
    return found


@pytest.mark.parametrize("stride", examples(gate=[7], deep=[3, 4, 5, 7, 11, 13]))
def test_a_pull_killed_at_every_step_loses_and_repeats_nothing(stride: int, tmp_path: Path, undisturbed: Any) -> None:
    """A life dies at its third change or a little later, so it ingests a batch or two before the next is killed."""
    found = victim("steps", str(tmp_path / "steps"), "3", str(stride))
    assert int(found.pop("deaths")) >= 3
    assert found == undisturbed


@deep
@pytest.mark.parametrize("seed", [str(seed) for seed in range(10)])
def test_a_pull_killed_at_any_moment_loses_and_repeats_nothing(seed: str, tmp_path: Path, undisturbed: Any) -> None:
    found = victim("moments", str(tmp_path / "moments"), seed)
    del found["deaths"]
    assert found == undisturbed
