"""Rates: a machine's parts cost its price together; amounts add up exactly, and never across currencies."""

from __future__ import annotations

from fractions import Fraction
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.errors import Invalid
from mainspring.core.money import MixedCurrencies, Money, parse_money
from mainspring.cost.rates import machine_rates


@given(
    st.floats(0, 1000),
    st.integers(1, 448),
    st.floats(0.5, 24_576),
    st.integers(0, 16),
    st.sampled_from(["", "T4", "L4", "H100", "of another kind"]),
)
def test_a_machines_parts_cost_its_price(hour: float, cores: int, memory: float, gpus: int, gpu: str) -> None:
    rates = machine_rates(hour, "USD", cores=cores, memory_gib=memory, gpus=gpus, gpu=gpu)
    parts = rates.cpu_hour * cores + rates.memory_gib_hour * memory + rates.gpu_hour * gpus
    assert parts == pytest.approx(hour, rel=1e-9, abs=1e-300)


def test_weights_are_near_families_that_differ_in_memory_alone() -> None:
    """Dollars an hour for 4 vCPUs in us-east-1, 2024: the rates of the middle one price the two others."""
    middle = machine_rates(0.2016, "USD", cores=4, memory_gib=16)
    for memory, hour in ((8, 0.1785), (32, 0.2646)):
        assert 4 * middle.cpu_hour + memory * middle.memory_gib_hour == pytest.approx(hour, rel=0.1)


@pytest.mark.parametrize("hour", [-1.0, nan, inf, -inf])
def test_a_price_that_is_none_is_refused(hour: float) -> None:
    with pytest.raises(Invalid, match="price machine_hour"):
        machine_rates(hour, "EUR", cores=1, memory_gib=1)


@pytest.mark.parametrize("wrong", [{"cores": 0}, {"memory_gib": nan}, {"memory_gib": -1}, {"gpus": -1}])
def test_a_machine_without_parts_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(Invalid, match="machine has"):
        machine_rates(1.0, "EUR", **{"cores": 2, "memory_gib": 4, **wrong})  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.floats(0, 1e3), st.floats(0, 1e6)), max_size=200))
def test_a_sum_is_that_of_its_rounded_parts_in_any_order(uses: list[tuple[float, float]]) -> None:
    amounts = [Money.of(rate, quantity, "EUR") for rate, quantity in uses]
    forwards = sum(amounts, start=Money("EUR"))
    assert forwards == sum(reversed(amounts), start=Money("EUR"))
    exact = sum((Fraction(rate) * Fraction(quantity) for rate, quantity in uses), start=Fraction(0))
    assert abs(Fraction(forwards.nanos, 10**9) - exact) <= Fraction(max(1, len(uses)), 2 * 10**9)


def test_currencies_are_not_mixed() -> None:
    with pytest.raises(MixedCurrencies, match=r"EUR and USD.*exchange"):
        Money("EUR", 1) + Money("USD", 1)
    with pytest.raises(MixedCurrencies):
        Money("EUR", 1) - Money("USD", 1)


def test_an_amount_is_read_exactly() -> None:
    assert parse_money("0.1 EUR", "machine") == Money("EUR", 100_000_000)
    assert parse_money(" 500  JPY ", "month") == Money("JPY", 500 * 10**9)


@pytest.mark.parametrize(
    "text", ["", "0.4", "0.4 ", "EUR", "0.4 EURO", "0.4 XXX", "-1 EUR", "nan EUR", "inf EUR", "1e99 EUR", "0.4 eur"]
)
def test_an_amount_that_is_none_is_refused_by_name(text: str) -> None:
    with pytest.raises(Invalid, match="machine is"):
        parse_money(text, "machine")
