"""Memory of layouts against published tables, and against a pipeline played step by step."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import pytest

from mainspring.llm.sizing.models import read_model
from mainspring.llm.sizing.trained import trained
from mainspring.training.distribution import Distributed
from mainspring.training.planning.layouts import Layout
from mainspring.training.planning.memory import Memory, memory
from mainspring.training.planning.model import OPTIMISERS, PRECISIONS, Model, Part

PLAIN = Part("layer", 1000, 1000, cut=1.0, saved=7.0, saved_cut=1.0, entrance=3.0, flops=10.0, block=True)
LOSS = Part("loss", 0, 0)


def model(*parts: Part, precision: str = "fp32", optimiser: str = "sgd") -> Model:
    return Model("model", (*parts, LOSS), PRECISIONS[precision], OPTIMISERS[optimiser], heads=8)


def of(model: Model, rows: int = 1, accumulate: int = 1, **declared: int) -> Memory:
    size = 1
    for axis in ("shard", "tensor", "pipeline", "copies"):
        size *= int(declared.get(axis, 1))
    declared.pop("copies", None)
    return memory(model, Layout(Distributed(processes=size, **declared), accumulate, rows))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("processes", "gigabytes"),
    [(1, 120.0), (4, 30.0), (16, 7.5), (64, 1.88), (256, 0.47)],
)
def test_states_of_a_model_are_those_of_the_zero_paper(processes: int, gigabytes: float) -> None:
    """Table 1 of arXiv:1910.02054: 7.5 B parameters, weights, gradients and Adam's states over so many processes."""
    parts = [replace(PLAIN, parameters=750_000_000, trained=750_000_000)] * 10
    for precision in ("bf16-master", "fp32", "amp"):
        found = of(model(*parts, precision=precision, optimiser="adam"), shard=processes)
        states = (found.weights + found.gradients + found.optimiser) / 1e9
        assert states == pytest.approx(gigabytes, rel=0.01), precision


@pytest.mark.parametrize(
    ("optimiser", "bytes_each"),
    [("sgd", 8), ("momentum", 12), ("adam", 16), ("adamw", 16), ("lion", 12), ("adam8bit", 10.03125)],
)
def test_bytes_for_a_parameter_follow_from_the_optimiser(optimiser: str, bytes_each: float) -> None:
    found = of(model(PLAIN, optimiser=optimiser))
    assert found.weights + found.gradients + found.optimiser == 1000 * bytes_each


def test_frozen_weights_have_neither_gradients_nor_states() -> None:
    found = of(model(replace(PLAIN, trained=0), replace(PLAIN, trained=100), optimiser="adam"))
    assert (found.weights, found.gradients, found.optimiser) == (8000, 400, 800)


def under_way(stages: int, parts: int) -> list[int]:
    """Play 1F1B, and return the most micro-batches that each stage holds between its forward and backward pass."""
    forward = [deque(range(parts if stage == 0 else 0)) for stage in range(stages)]
    backward: list[deque[int]] = [deque() for _ in range(stages)]
    held, most, done = [0] * stages, [0] * stages, [0] * stages
    while min(done) < parts:
        moves = []
        for stage in range(stages):  # a stage prefers a backward pass, and starts no more than it may hold
            if backward[stage]:
                moves.append((stage, "backward", backward[stage].popleft()))
            elif forward[stage] and held[stage] < stages - stage:
                moves.append((stage, "forward", forward[stage].popleft()))
        for stage, kind, part in moves:
            if kind == "forward":
                held[stage] += 1
                most[stage] = max(most[stage], held[stage])
                (forward[stage + 1] if stage + 1 < stages else backward[stage]).append(part)
            else:
                held[stage] -= 1
                done[stage] += 1
                if stage:
                    backward[stage - 1].append(part)
    return most


@pytest.mark.parametrize(("stages", "parts"), [(2, 2), (4, 4), (4, 9), (8, 8)])
def test_the_first_stage_keeps_as_many_micro_batches_as_are_under_way(stages: int, parts: int) -> None:
    found = of(model(*[PLAIN] * stages), rows=5000, accumulate=parts, pipeline=stages)
    assert found.activations == max(under_way(stages, parts)) * 7 * 5000


def test_checkpointing_keeps_inputs_and_one_block() -> None:
    parts = [PLAIN] * 6
    whole, few = of(model(*parts), rows=10_000), of(model(*parts), rows=10_000, checkpoint_activations=True)
    assert whole.activations == 6 * 70_000
    assert few.activations == 6 * 30_000
    assert few.working - whole.working == 70_000


def test_offloaded_shards_are_in_main_memory_and_one_block_on_the_device() -> None:
    found = of(model(*[PLAIN] * 8, optimiser="adam"), shard=4, offload=True)
    assert (found.weights, found.gradients, found.optimiser) == (0, 0, 0)
    assert found.host == 8 * 1000 * 16 / 4
    assert found.communication == (2 * 1000 + 250) * 4 + 2 * 1000 * 4


def test_tensor_parallelism_divides_what_can_be_cut() -> None:
    half = replace(PLAIN, cut=0.5, saved_cut=0.5)
    found = of(model(half), rows=4000, tensor=4)
    assert found.weights == 1000 * 4 * (0.5 / 4 + 0.5)
    assert found.activations == 7 * 4000 * (0.5 / 4 + 0.5)


def test_memory_never_grows_with_more_shards_or_fewer_rows() -> None:
    found = trained(read_model("llama-2-7b"), 2048, PRECISIONS["amp"], OPTIMISERS["adamw"])
    sizes = [of(found, rows=2, shard=shard).total for shard in (2, 4, 8, 16)]
    assert sizes == sorted(sizes, reverse=True)
    assert [of(found, rows=rows).total for rows in (1, 2, 4)] == sorted(
        of(found, rows=rows).total for rows in (1, 2, 4)
    )


def test_activations_of_a_layer_are_those_of_the_paper() -> None:
    """34 bytes a token and value of the hidden size (arXiv:2205.05198, equation 1), without attention's scores; 2 of
    them are dropout's masks, which are not counted; and a normaliser of each head.
    """
    fields = "model_type=gpt2,n_embd=12288,n_head=96,n_layer=1,vocab_size=51200,n_positions=2048"
    block = trained(read_model(fields), 2048, PRECISIONS["bf16-master"], OPTIMISERS["adamw"]).blocks[0]
    assert block.saved == 2048 * 12288 * (34 - 2) + 2048 * 96 * 4
