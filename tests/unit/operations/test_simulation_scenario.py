"""Policies, machines and conditions of simulations, as they are written."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kit.console import flights
from mainspring.core.errors import Invalid
from mainspring.operations.simulation.comparing import (
    Scenario,
    parse_executors,
    parse_machine,
    parse_replicas,
    priced_machines,
)
from mainspring.project.own_prices import read_own_prices
from mainspring.serving.simulation_report import Candidate


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


def test_prices_of_two_currencies_are_compared_by_a_stated_rate_alone() -> None:
    base = flights.Project()

    def hours(**prices: object) -> list[float | None]:
        made = base.having(settings=replace(base.settings, prices=read_own_prices({"machine": "0.40 EUR", **prices})))
        machines = priced_machines(
            made, [Candidate(executors=(1, 1)), Candidate(executors=(1, 1), machine="aws/us-east-1/c7i.large")]
        )
        assert {each.currency for each in machines.values()} == {"EUR"}
        return [each.hour for each in machines.values()]

    with pytest.raises(Invalid, match="prices are in EUR and USD") as refused:
        hours()
    assert "exchange = { USD = " in str(refused.value.fix)
    own, listed = hours(exchange={"USD": "0.50 EUR"})
    assert own == pytest.approx(0.40)
    assert listed == pytest.approx(0.08925 / 2)
