"""Expected times: a ring and a pipeline are played step by step, and published trainings are compared."""

from __future__ import annotations

from typing import Any

import pytest

from kit.pages import script
from mainspring.core.accelerators import parse_group
from mainspring.training.distribution import Distributed
from mainspring.training.planning.layouts import Layout
from mainspring.training.planning.model import OPTIMISERS, PRECISIONS, Model, Part
from mainspring.training.planning.timing import Efficiency, gathered, summed, time
from mainspring.training.planning.topology import Link, Topology

WHOLE = Efficiency(1.0, 1.0, 1.0)
GPU = parse_group("8xH100").gpu


def topology(devices: int = 8, overlaps: float = 0.0) -> Topology:
    link = Link(joins=devices, name="wire", gb_s=1.0, latency_us=10.0)
    return Topology(device=GPU, devices=devices, links=(link,), overlaps=overlaps)


def played_ring(size: int, count: float, *, both: bool) -> float:
    """Seconds in which each of a ring passes a piece on until all have everything; twice as often for a sum."""
    held = [{rank} for rank in range(size)]
    seconds, piece = 0.0, count / size
    for _ in range(2 if both else 1):
        held = [{rank} for rank in range(size)]
        while any(len(each) < size for each in held):
            newest = [max(each, key=lambda part, r=rank: -((r - part) % size)) for rank, each in enumerate(held)]
            step = [(rank + 1, (rank - len(each) + 1) % size) for rank, each in enumerate(held)]
            assert len(newest) == size
            for receiver, part in step:
                held[receiver % size].add(part)
            seconds += 10e-6 + piece / 1e9
    return seconds


@pytest.mark.parametrize("size", [2, 3, 4, 8])
def test_a_collective_takes_as_long_as_its_ring(size: int) -> None:
    here = topology(size)
    assert gathered(here, size, 1, 3e6, WHOLE) == pytest.approx(played_ring(size, 3e6, both=False))
    assert summed(here, size, 1, 3e6, WHOLE) == pytest.approx(played_ring(size, 3e6, both=True))


def model(parts: int) -> Model:
    block = Part("layer", 0, 0, flops=1e12, entrance=1.0, block=True)
    return Model("model", (block,) * parts, PRECISIONS["bf16"], OPTIMISERS["sgd"])


def played_pipeline(stages: int, parts: int, forward: float, backward: float) -> float:
    """Seconds of GPipe's schedule, whose bubble is that of 1F1B: all forward passes, then all backward passes."""
    ends = [[0.0] * parts for _ in range(stages)]
    for stage in range(stages):
        for part in range(parts):
            begun = max(ends[stage - 1][part] if stage else 0.0, ends[stage][part - 1] if part else 0.0)
            ends[stage][part] = begun + forward
    first = ends[-1][-1]
    back = [[0.0] * parts for _ in range(stages)]
    for stage in reversed(range(stages)):
        for part in range(parts):
            begun = max(back[stage + 1][part] if stage + 1 < stages else first, back[stage][part - 1] if part else 0.0)
            back[stage][part] = begun + backward
    return back[0][-1]


@pytest.mark.parametrize(("stages", "parts"), [(2, 2), (4, 4), (4, 16), (8, 8)])
def test_a_pipeline_takes_as_long_as_its_schedule(stages: int, parts: int) -> None:
    layout = Layout(Distributed(processes=stages, pipeline=stages), parts, 1)
    found = time(model(stages), layout, topology(stages), WHOLE)
    forward = 1e12 / GPU.flops("bf16")
    assert found.compute + found.bubble == pytest.approx(played_pipeline(stages, parts, forward, 2 * forward))
    assert found.bubble / found.compute == pytest.approx((stages - 1) / parts)


def test_checkpointing_costs_one_more_forward_pass() -> None:
    layout = Layout(Distributed(checkpoint_activations=True), 1, 1)
    found = time(model(4), layout, topology(), WHOLE)
    assert found.recompute == pytest.approx(found.compute / 3)


def test_computing_hides_the_sum_of_gradients_but_not_its_end() -> None:
    block = Part("layer", 10**8, 10**8, flops=1e12, block=True)
    many = Model("model", (block,) * 10, PRECISIONS["fp32"], OPTIMISERS["sgd"])
    layout = Layout(Distributed(processes=4), 1, 1)
    open_, hidden = (time(many, layout, topology(4, overlaps), WHOLE).copies for overlaps in (0.0, 1.0))
    assert open_ == pytest.approx(summed(topology(4), 4, 1, 4e9, WHOLE))
    assert open_ / 10 <= hidden < open_


def test_a_ring_across_machines_is_as_fast_as_the_lanes_between_them() -> None:
    links = (Link(joins=8, name="NVLink 4", gb_s=450.0), Link(joins=16, name="InfiniBand", gb_s=50.0))
    here = Topology(device=GPU, devices=8, machines=2, links=links)
    assert here.between(8, 1) == (links[0], 450e9)
    assert here.between(16, 1) == (links[1], 400e9)  # eight lanes
    assert here.between(2, 8) == (links[1], 50e9)  # one lane each
    assert here.between(4, 4) == (links[1], 100e9)  # two members of each ring in a machine
    assert here.between(2, 1) == (links[0], 450e9)


@pytest.mark.parametrize("row", list(script("training_plan_reference").rows()), ids=lambda row: f"{row.published}")
def test_published_trainings_lie_in_the_interval(row: Any) -> None:
    assert row.low < row.published.rate < row.high
    assert 0.7 < row.published.rate / row.expected < 1.25
    assert row.gib < 100
