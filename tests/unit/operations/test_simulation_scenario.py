"""Policies, machines and conditions of simulations, as they are written."""

from __future__ import annotations

import pytest

from mainspring.core.errors import Invalid
from mainspring.operations.simulation.comparing import Scenario, parse_executors, parse_machine, parse_replicas


def test_texts_of_policies_and_machines() -> None:
    assert [parse_executors(each) for each in ("2", "0-4")] == [(2, 2), (0, 4)]
    assert [parse_replicas(each) for each in ("2", "1-8@0.5")] == [((2, 2), 0.6), ((1, 8), 0.5)]
    assert [parse_machine(each) for each in ("here", "aws/x/y", "aws/x/y:spot")] == [
        ("", "on_demand"), ("aws/x/y", "on_demand"), ("aws/x/y", "spot"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (parse_executors, "0"), (parse_executors, "4-1"), (parse_executors, "-1"), (parse_executors, "many"),
        (parse_replicas, "0"), (parse_replicas, "3-1"), (parse_replicas, "1-2@7"), (parse_replicas, ""),
        (parse_machine, "aws/x/y:rented"),
    ],
)  # fmt: skip
def test_others_are_refused(read: object, text: str) -> None:
    with pytest.raises(Invalid):
        read(text)  # type: ignore[operator]


@pytest.mark.parametrize(
    "wrong",
    [{"wanted": 0.0}, {"wanted": 1.5}, {"margin": 1.0}, {"margin": -0.1}, {"speed": 0.0}, {"faster": float("nan")},
     {"boot_s": -1.0}, {"measure_s": 0.0}, {"measure_s": 1e9}],
)  # fmt: skip
def test_conditions_have_limits(wrong: dict[str, float]) -> None:
    with pytest.raises(Invalid):
        Scenario(**wrong)  # type: ignore[arg-type]
