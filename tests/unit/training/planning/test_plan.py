"""The choice among layouts."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.accelerators import parse_group
from mainspring.core.errors import Invalid
from mainspring.llm.sizing.models import read_model
from mainspring.llm.sizing.trained import read_described, trained
from mainspring.training.planning.layouts import _divisors, layouts
from mainspring.training.planning.memory import memory
from mainspring.training.planning.model import OPTIMISERS, PRECISIONS, Model, Part
from mainspring.training.planning.plan import KEPT_FREE, RUNTIME, best, plan
from mainspring.training.planning.timing import time
from mainspring.training.planning.topology import Topology, of_group


def llama(name: str = "llama-2-7b", tokens: int = 4096, optimiser: str = "adamw") -> Model:
    return trained(read_model(name), tokens, PRECISIONS["amp"], OPTIMISERS[optimiser])


def gpus(text: str, host_gib: float = 0.0) -> Topology:
    return msgspec.structs.replace(of_group(parse_group(text)), host_gib=host_gib)


@pytest.mark.parametrize("text", ["8xH100", "2x4xA100-40", "4xL4"])
def test_the_choice_is_the_fastest_of_all_that_fit(text: str) -> None:
    model, here = llama(), gpus(text)
    every = list(layouts(model, here, 64))
    room = here.device.memory * (1 - KEPT_FREE)
    fitting = [each for each in every if memory(model, each, RUNTIME).total <= room]
    found = plan(model, here, 64)
    assert (found.considered, found.fitting) == (len(every), len(fitting))
    if fitting:
        fastest = min(time(model, each, here).total for each in fitting)
        assert found.chosen.step_s.expected == pytest.approx(fastest, rel=0.005)
        assert found.chosen.memory.total <= found.chosen.memory.limit
    else:
        nearest = min(memory(model, each, RUNTIME).total for each in every) - room
        assert found.chosen.missing_bytes == pytest.approx(nearest, abs=1)
        assert f"{found.chosen.missing_bytes:,}"[:-1] in found.chosen.why[0]


def test_layouts_use_every_device_or_a_whole_part_of_them_and_every_row_once() -> None:
    model, here = llama(), gpus("2x8xH100")
    for each in layouts(model, here, 48):
        told = each.distributed
        assert 0 <= each.shares * each.accumulate * each.rows - 48 < each.shares
        assert told.tensor <= 8
        assert 32 % told.tensor == 0
        assert told.pipeline <= min(32, each.accumulate)
        told.check(told.size)


def test_tensor_parallelism_stays_on_the_fastest_link() -> None:
    links = gpus("8xH100").links
    pairs = msgspec.structs.replace(
        gpus("8xH100"), links=(msgspec.structs.replace(links[0], joins=2), msgspec.structs.replace(links[0], gb_s=20))
    )
    assert {each.distributed.tensor for each in layouts(llama(), pairs, 16)} == {1, 2}


def test_seven_billion_on_eight_h100_are_sharded_and_need_no_checkpointing() -> None:
    chosen = plan(llama(), gpus("8xH100"), 256).chosen
    assert chosen.layout == "ms.Distributed(processes=8, shard=8)"
    assert chosen.fits
    assert [axis.link for axis in chosen.axes] == ["NVLink 4 (450 GB/s)"]
    assert chosen.step_s.low < chosen.step_s.expected < chosen.step_s.high


def test_four_t4_miss_bytes_until_shards_may_lie_in_main_memory() -> None:
    model = llama(tokens=2048)
    without, with_it = plan(model, gpus("4xT4"), 64), plan(model, gpus("4xT4", 192), 64)
    assert without.fitting == 0
    assert without.chosen.missing_bytes > 10e9
    assert with_it.chosen.fits
    assert with_it.chosen.layout.endswith("checkpoint_activations=True, offload=True)")
    assert plan(model, gpus("4xT4", 32), 64).fitting == 0  # main memory too small
    assert any("bfloat16" in line for line in with_it.assumptions)


def test_a_small_model_is_left_in_one_process_where_the_link_is_slow() -> None:
    part = Part("layer", 10**7, 10**7, flops=1e6, entrance=1e6, block=True)
    model = Model("small", (part,) * 4, PRECISIONS["fp32"], OPTIMISERS["adam"])
    link = msgspec.structs.replace(gpus("4xT4").links[0], gb_s=0.01)
    chosen = plan(model, msgspec.structs.replace(gpus("4xT4"), links=(link,)), 64).chosen
    assert chosen.processes == 1
    assert any("left out" in why for why in chosen.why)


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=12), st.integers(1, 6))
def test_stages_hold_every_part_once_in_order_and_each_has_a_block(drawn: list[tuple[int, bool]], count: int) -> None:
    parts = tuple(Part(f"{n}", 1, 1, flops=float(flops), block=block) for n, (flops, block) in enumerate(drawn))
    model = Model("model", parts, PRECISIONS["fp32"], OPTIMISERS["sgd"])
    if count > len(model.blocks):
        return
    stages = model.stages(count)
    assert tuple(each for stage in stages for each in stage) == parts
    assert len(stages) == count
    assert count == 1 or all(any(each.block for each in stage) for stage in stages)


def test_stages_of_equal_blocks_are_equal() -> None:
    stages = llama().stages(4)
    assert [sum(each.block for each in stage) for stage in stages] in ([8, 8, 8, 8], [9, 8, 8, 7], [8, 8, 9, 7])


@pytest.mark.parametrize("batch", [0, -1, 1 << 30])
def test_an_impossible_batch_is_refused(batch: int) -> None:
    with pytest.raises(Invalid, match="rows"):
        plan(llama(), gpus("8xH100"), batch)


def test_more_memory_never_makes_the_choice_slower() -> None:
    model = llama()
    times = []
    for gib in (20, 40, 80, 160):
        device = replace_memory(gpus("8xH100"), gib)
        found = plan(model, device, 32).chosen
        times.append(found.step_s.expected if found.fits else float("inf"))
    assert all(later <= before * 1.005 for before, later in pairwise(times))


def replace_memory(here: Topology, gib: float) -> Topology:
    return msgspec.structs.replace(here, device=msgspec.structs.replace(here.device, memory_mib=gib * 1024))


def test_a_model_is_described_in_a_few_words(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("layers = 32\nhidden = 4096\nheads = 32\nwidth = 11008\nvocabulary = 32000\nsequence = 2048\n")
    found, tokens = read_described(str(path))
    assert (found.total(), tokens) == (6_738_415_616, 2048)
    path.write_text("layers = 32\nsequence = -5\n")
    with pytest.raises(Invalid, match="sequence"):
        read_described(str(path))
    with pytest.raises(Invalid, match="tokens"):
        trained(found, 0, PRECISIONS["amp"], OPTIMISERS["adamw"])
    assert replace(llama(), name="x").parameters == 6_738_415_616


def test_what_does_not_fit_says_what_would_help_and_that_helps() -> None:
    model, here = llama(tokens=2048), gpus("4xT4")
    found = plan(model, here, 64)
    assert found.helps == [
        "states of the optimiser in 8 bits (adam8bit) and weights in 16 (bf16), which trains less exactly",
        "107 GiB of main memory in each machine, to keep shards in (--host-gib)",
        "4 machines of 4xT4, not 1",
    ]
    less = replace(model, optimiser=OPTIMISERS["adam8bit"])
    assert not plan(less, here, 64).chosen.fits
    assert plan(replace(less, precision=PRECISIONS["bf16"]), here, 64).chosen.fits
    assert plan(model, gpus("4xT4", host_gib=107), 64).chosen.fits
    assert not plan(model, gpus("4xT4", host_gib=106), 64).chosen.fits
    assert plan(model, gpus("4x4xT4"), 64).chosen.fits
    assert not plan(model, gpus("2x4xT4"), 64).chosen.fits
    assert not plan(model, gpus("8xH100"), 64).helps


def test_a_row_that_no_device_holds_needs_a_smaller_model() -> None:
    huge = Part("layer", 10**6, 10**6, saved=5e10, flops=1e9)
    found = plan(Model("huge", (huge,), PRECISIONS["fp32"], OPTIMISERS["sgd"], chained=False), gpus("1xT4"), 1)
    assert found.helps == ["a smaller model: neither 8-bit states, nor more devices or main memory suffice"]


def test_the_best_layout_with_the_parts_of_a_batch_that_are_given() -> None:
    model, here = llama(), gpus("8xH100")
    told, found = best(model, here, 256, 32)
    assert (told.size, found.accumulate, found.fits) == (8, 32, True)
    with pytest.raises(Invalid, match=r"does not fit 8xH100: the nearest layout, .*, misses [\d,]+ bytes") as raised:
        best(model, here, 256, 1)
    assert raised.value.fix == "give fit_torch accumulate=16."
    with pytest.raises(Invalid) as raised:
        best(model, gpus("2xT4"), 4, 1)
    assert "GiB of main memory" in str(raised.value.fix)
    block = Part("layer", 1000, 1000, flops=1e6, saved=1e3, block=True)
    assert best(Model("small", (block,), PRECISIONS["fp32"], OPTIMISERS["sgd"]), here, 64, 1)[0].size == 1


def test_divisors_are_all_of_them_and_those_of_a_large_batch_are_quick() -> None:
    for number in (*range(1, 200), 4096, 10_000):
        assert _divisors(number) == [each for each in range(1, number + 1) if number % each == 0]
    assert len(_divisors(2**40)) == 41  # one after another these would take hours
    assert len(_divisors(10**12)) == 169
