"""kill -9 of a worker that lands a stream, at every step and at any moment, and one that is suspended: the tables, the
tiles and the online store are those of an undisturbed run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kit import prefork
from kit.depth import deep, examples

VICTIM = Path(__file__).parent / "streams_victim.py"


def victim(*arguments: str) -> dict[str, Any]:
    return prefork.documents(VICTIM, *arguments)[-1]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found = victim("whole", str(tmp_path_factory.mktemp("streams") / "whole"))
    assert found.pop("deaths") == "0"
    assert not any(value.startswith("0 ") for value in found.values())
    return found


@pytest.mark.parametrize("stride", examples(gate=[7], deep=[3, 4, 5, 7, 11, 13]))
def test_a_worker_killed_at_every_step_changes_nothing(stride: int, tmp_path: Path, undisturbed: Any) -> None:
    """A life dies at its third change or a little later, so it lands a batch at most before it is killed again."""
    found = victim("steps", str(tmp_path / "steps"), "3", str(stride))
    assert int(found.pop("deaths")) >= 3
    assert found == undisturbed


@deep
@pytest.mark.parametrize("seed", examples(gate=["a"], deep=[str(seed) for seed in range(10)]))
def test_a_worker_killed_at_any_moment_changes_nothing(seed: str, tmp_path: Path, undisturbed: Any) -> None:
    found = victim("moments", str(tmp_path / "moments"), seed)
    del found["deaths"]
    assert found == undisturbed


def test_a_suspended_worker_writes_nothing_once_it_lost_its_leases(tmp_path: Path, undisturbed: Any) -> None:
    found = victim("suspend", str(tmp_path / "suspend"))
    del found["deaths"]
    assert found == undisturbed
