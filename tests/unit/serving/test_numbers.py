"""What is read back of a gateway's numbers is what it counted, over all its processes."""

from __future__ import annotations

import random

import pytest

from mainspring.serving.load.numbers import Distribution, EndpointNumbers, read_numbers
from mainspring.serving.plane.metrics import Metrics
from mainspring.serving.plane.slots import merged


def counting(seed: int) -> Metrics:
    chance = random.Random(seed)
    metrics = Metrics(ready=lambda: True, served=dict, waiting=dict, refused=dict)
    for name in ("a", 'odd"\\name'):
        endpoint = metrics.of(name)
        for _ in range(200):
            endpoint.requests[chance.choice([200, 200, 429])] += 1
            endpoint.stages["compute"].observe(chance.uniform(0.0001, 0.01))
            endpoint.batch_rows.observe(chance.randrange(1, 60))
        endpoint.rejections["queue_full"] += seed
    return metrics


@pytest.mark.parametrize("endpoint", ["a", 'odd"\\name'])
def test_processes_are_added_up(endpoint: str) -> None:
    processes = [counting(seed) for seed in (1, 2, 3)]
    numbers = read_numbers(merged({slot: each.text() for slot, each in enumerate(processes)}).decode(), endpoint)
    assert numbers.asked == 600
    assert numbers.requests == {
        str(status): sum(each.of(endpoint).requests[status] for each in processes) for status in (200, 429)
    }
    assert numbers.rejections == {"queue_full": 6}
    assert numbers.stages["compute"].count == numbers.batch_rows.count == 600
    assert numbers.batch_rows.total == sum(each.of(endpoint).batch_rows.cumulative()[1] for each in processes)
    assert numbers.stages["compute"].mean == pytest.approx(0.005, rel=0.1)


def test_what_came_between_two_looks() -> None:
    metrics = counting(1)
    before = read_numbers(metrics.text().decode(), "a")
    metrics.of("a").requests[200] += 5
    metrics.of("a").batch_rows.observe(7)
    grown = read_numbers(metrics.text().decode(), "a").since(before)
    assert grown.requests["200"] == 5
    assert grown.batch_rows.count == 1
    assert grown.batch_rows.mean == 7
    assert grown.stages["compute"].mean is None


def test_of_an_endpoint_that_nobody_asked_nothing_is_known() -> None:
    assert read_numbers(counting(1).text().decode(), "b") == EndpointNumbers({}, {}, {}, Distribution())


def test_a_quantile_lies_in_its_bucket() -> None:
    found = Distribution(10.0, {1.0: 50.0, 2.0: 90.0, float("inf"): 100.0})
    assert found.quantile(0.5) == 1.0
    assert found.quantile(0.7) == pytest.approx(1.5)
    assert found.quantile(0.99) == 2.0
    assert Distribution().quantile(0.5) is None
