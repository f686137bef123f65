"""The choice among measured variants, beside one that looks at every pair of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.errors import Conflict, NotFound
from mainspring.operations.optimise.choosing import COSTS, LEAST_GAIN, NEAR, choose, on_front
from mainspring.operations.optimise.model import PARENT, Cost, Quality, VariantReport


def variant(
    name: str, loss: float, price: float, *, high: float | None = None, why: str = "", gates: tuple[str, ...] = ()
) -> VariantReport:
    quality = Quality(value=0.8 - loss, loss=loss, loss_low=None if high is None else 0.0, loss_high=high)
    cost = Cost(
        bytes=round(price * 10), load_ms=1, p50_us=price, p99_us=price, batch_rows=256, batch_p50_us=price,
        rows_a_second=1, memory_bytes=None, energy_uj_a_row=None,
    )  # fmt: skip
    return VariantReport(name=name, how="", why_not=why, quality=quality, cost=cost, gates_failed=gates)


PARENTS = variant(PARENT, 0.0, 100)


def test_the_cheapest_within_the_bound_is_chosen() -> None:
    table = on_front([PARENTS, variant("a", 0.004, 50), variant("b", 0.002, 70), variant("c", 0.02, 10)], "cpu")
    assert choose(table, "cpu", 0.005) == (
        "a",
        "It lowers the p50 of one row by 50%; its metric is worse by at most 0.004.",
    )
    assert choose(table, "cpu", 0.003)[0] == "b"
    assert choose(table, "cpu", 0.001) == (
        None,
        "No variant within the bound lowers the p50 of one row by 10% or more.",
    )


def test_the_bound_holds_for_the_end_of_the_interval_and_gates_and_refusals_count() -> None:
    table = [PARENTS, variant("wide", 0.001, 50, high=0.02), variant("gate", 0.0, 40, gates=("auc",))]
    table += [variant("batch", 0.0, 30, why="a row's answer depends on its batch.")]
    assert choose(on_front(table, "cpu"), "cpu", 0.005)[0] is None
    assert choose([PARENTS, table[2]], "cpu", 0.005) == (
        None,
        "gate is left out. It lowers the p50 of one row by 60%; its metric is no worse. But it fails a gate: auc.",
    )
    assert choose(on_front(table, "cpu"), "cpu", 0.03)[0] == "wide"  # not hidden by `gate`, which may not be chosen
    assert [each.name for each in on_front(table, "cpu") if each.front] == [PARENT, "wide"]
    assert choose(on_front(table, "cpu"), "cpu", 0.005, "wide") == ("wide", "As asked for.")
    with pytest.raises(Conflict, match="batch cannot be chosen: a row's answer depends"):
        choose(table, "cpu", 0.005, "batch")
    with pytest.raises(NotFound, match="choose one of wide, gate, batch"):
        choose(table, "cpu", 0.005, PARENT)


def test_what_the_target_cannot_run_is_neither_chosen_nor_in_the_way() -> None:
    away = VariantReport(name=PARENT, how="", why_not="it does not run in 256 MiB.", quality=PARENTS.quality)
    table = on_front([away, variant("small", 0.001, 50), variant("smaller", 0.002, 30)], "edge")
    assert [each.name for each in table if each.front] == ["small", "smaller"]
    assert choose(table, "edge", 0.005) == (
        "smaller",
        "The version itself does not run there. It has the least size; its metric is worse by at most 0.002.",
    )


POINTS = st.lists(st.tuples(st.integers(-2, 6), st.integers(1, 120)), max_size=8)


@given(POINTS, st.sampled_from(sorted(COSTS)))
def test_the_front_and_the_choice_are_those_of_every_pair(points: list[tuple[int, int]], target: str) -> None:
    table = [PARENTS, *(variant(f"v{at}", loss / 1000, price) for at, (loss, price) in enumerate(points))]
    every = {
        each.name: (each.quality.loss, COSTS[target][1](each.cost)) for each in table if each.quality and each.cost
    }
    found = on_front(table, target)
    for each in found:
        mine = every[each.name]
        better = [other for other in every.values() if other[0] <= mine[0] and other[1] <= mine[1] and other != mine]
        assert each.front == (not better)
    chosen, _ = choose(found, target, 0.003)
    allowed = {name: point for name, point in every.items() if point[0] <= 0.003}
    least = min(price for _, price in allowed.values())
    if chosen is None:
        assert least > (1 - LEAST_GAIN) * every[PARENT][1] * 0.99 / (1 + NEAR)
    else:
        assert every[chosen][1] <= least * (1 + NEAR)
        assert every[chosen][1] <= every[PARENT][1] * (1 - LEAST_GAIN) + 1e-9
