"""Plans: what fits is what adds up, and expected speeds lie near published ones."""

from __future__ import annotations

from statistics import median
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.depth import examples
from kit.pages import script
from mainspring.core.accelerators import Group
from mainspring.core.errors import Invalid
from mainspring.llm.sizing import Plan, Wanted, parse_group, plan, read_model
from mainspring.llm.sizing.layout import Layout, Sized, layouts
from mainspring.llm.sizing.precision import PRECISIONS
from mainspring.llm.sizing.roofline import GOOD, POOR, USUAL, speed

REFERENCE = script("llm_plan_reference")
_models = st.sampled_from(
    ["llama-3-1-8b", "llama-3-1-70b", "gemma-2-9b", "mixtral-8x7b", "deepseek-v3", "qwen3-30b-a3b"]
)
_gpus = st.sampled_from(["1xH100", "8xH100", "2x8xH200", "4xL40S", "2xT4", "6xA10G", "3xRTX-4090", "8xMI300X"])
_dtypes = st.sampled_from([*PRECISIONS])


def _planned(model: str, gpus: str | Group, dtype: str, **load: Any) -> Plan:
    group = parse_group(gpus) if isinstance(gpus, str) else gpus
    return plan(read_model(model), group, Wanted(dtypes=(dtype,), **load))


@given(_models, _gpus, _dtypes, st.integers(1, 8192), st.integers(1, 500))
def test_memory_adds_up_and_what_is_missing_is_what_would_do(
    model: str, gpus: str, dtype: str, context: int, concurrency: int
) -> None:
    group = parse_group(gpus)
    (found,) = _planned(model, group, dtype, context=context, concurrency=concurrency).variants
    memory, placed = found.memory, found.placement
    parts = memory.weights + memory.cache + memory.activations + memory.runtime
    assert parts + memory.free == memory.total
    assert found.fits == (found.missing_bytes == 0)
    assert placed.tensor * placed.pipeline * placed.replicas == group.count
    assert placed.tensor <= group.per_node
    assert memory.weights * placed.tensor * placed.pipeline >= found.weights_bytes * 0.98 or not found.fits
    if not found.fits:
        assert found.decode is None
        more = found.missing_bytes / 2**20 / 0.96 + 1  # of each further byte, a share is kept free
        larger = msgspec.structs.replace(
            group, gpu=msgspec.structs.replace(group.gpu, memory_mib=group.gpu.memory_mib + more)
        )
        assert _planned(model, larger, dtype, context=context, concurrency=concurrency).variants[0].fits


@given(_models, _gpus, _dtypes, st.integers(1, 8192), st.integers(1, 64))
def test_the_most_that_fits_fits_and_one_more_does_not(
    model: str, gpus: str, dtype: str, context: int, batch: int
) -> None:
    group, architecture = parse_group(gpus), read_model(model)
    for layout in layouts(architecture, group):
        sized = Sized(architecture, PRECISIONS[dtype], "bf16", group, layout)
        most = sized.most_sequences(context)
        assert most == 0 or sized.left(context, most) >= 0
        assert sized.left(context, most + 1) < 0
        longest = sized.longest(batch)
        assert longest == 0 or sized.left(longest, batch) >= 0
        assert longest == architecture.longest or sized.left(longest + 1, batch) < 0


@given(_models, _dtypes, st.integers(1, 64))
def test_speeds_are_under_the_roofs(model: str, dtype: str, batch: int) -> None:
    group, architecture = parse_group("8xH100"), read_model(model)
    sized = Sized(architecture, PRECISIONS[dtype], "bf16", group, Layout(8, 1, 1, 1))
    poor, usual, good = (speed(sized, batch, 1000, 900, at, 50.0) for at in (POOR, USUAL, GOOD))
    assert poor.decode < usual.decode < good.decode
    assert poor.prefill < usual.prefill < good.prefill
    bandwidth = 8 * group.gpu.bandwidth_gb_s * 1e9
    read = architecture.active() * PRECISIONS[dtype].bits / 8 - architecture.embeddings * 2
    assert good.step > read / bandwidth
    assert good.prefill < 8 * group.gpu.flops(PRECISIONS[dtype].computes) / architecture.active()


@given(_models, st.integers(1, 200))
def test_a_faster_memory_and_link_are_never_slower(model: str, batch: int) -> None:
    group, architecture = parse_group("8xL40S"), read_model(model)
    faster = msgspec.structs.replace(group.gpu, bandwidth_gb_s=2000, link_gb_s=300)
    times = [
        speed(
            Sized(architecture, PRECISIONS["bf16"], "bf16", each, Layout(8, 1, 1, 1)), batch, 500, 400, USUAL, 50
        ).step
        for each in (group, msgspec.structs.replace(group, gpu=faster))
    ]
    assert times[1] < times[0]


def test_expected_speeds_lie_near_published_ones() -> None:
    found = list(REFERENCE.throughputs())
    ratios = [row.ratio for row in found]
    assert len(found) >= 90
    assert 0.85 < median(ratios) < 1.15
    assert sum(0.7 < ratio < 1.4 for ratio in ratios) >= 0.97 * len(ratios)
    assert {(row.model, row.gpus, row.prompt, row.answer) for row in found if not row.within} == {
        ("mixtral-8x7b", "2xA100", 2048, 2048)
    }


def test_times_to_the_first_token_lie_near_published_ones() -> None:
    found = list(REFERENCE.latencies())
    assert len(found) == 26
    assert 0.85 < median(row.ratio for row in found) < 1.15
    assert all(0.7 < row.ratio < 1.6 for row in found)
    assert [(row.model, row.gpus, row.prompt) for row in found if not row.within] == [("mixtral-8x7b", "2xA100", 128)]


def test_a_prompt_alone_passes_through_the_stages_one_after_the_other() -> None:
    group, model = parse_group("4xH100"), read_model("llama-3-1-70b")
    one, four = (
        speed(Sized(model, PRECISIONS["fp8"], "bf16", group, Layout(1, stages, 1, 1)), 1, 8000, 8000, USUAL, 50)
        for stages in (1, 4)
    )
    assert four.prefill > 3.5 * one.prefill
    assert four.first > 0.9 * one.first


@pytest.mark.parametrize("table", REFERENCE.PUBLISHED["fits"])
def test_what_is_published_to_fit_fits(table: dict[str, Any]) -> None:
    answers = {
        gpus: any(
            _planned(table["model"], gpus, table["dtype"], context=table["context"], concurrency=1, cache=cache)
            .variants[0].fits
            for cache in ("bf16",)
        )
        for gpus in (*table["yes"], *table["no"])
    }  # fmt: skip
    assert answers == {gpus: gpus in table["yes"] for gpus in answers}


def test_quantised_files_are_as_large_as_published() -> None:
    for table in REFERENCE.PUBLISHED["files"]:
        model = read_model(table["model"])
        for dtype, size in table["sizes"].items():
            assert sum(PRECISIONS[dtype].weights(model).values()) / 1e9 == pytest.approx(size, rel=0.005), dtype


def test_layouts_use_the_link_that_each_axis_can_bear() -> None:
    found = plan(read_model("deepseek-v3"), parse_group("2x8xH100")).variants[0]
    assert (found.placement.tensor, found.placement.pipeline, found.placement.expert) == (8, 2, 8)
    assert "tensor 8 over NVLink 4" in found.placement.reasons[0]
    assert "pipeline 2 over the network between nodes (50 GB/s a GPU)" in found.placement.reasons[2]


def test_costs_are_the_gpus_hours_by_the_speeds() -> None:
    found = _planned("llama-3-1-8b", "2xL4", "fp8", price=3.6, concurrency=8)
    (variant,) = found.variants
    assert variant.decode is not None
    assert variant.dollars_per_million is not None
    assert variant.dollars_per_million.answer is not None
    second = 2 * 3.6 / 3600
    assert variant.dollars_per_million.answer.expected == pytest.approx(1e6 * second / variant.decode.expected)
    assert variant.dollars_per_million.answer.high == pytest.approx(1e6 * second / variant.decode.low)
    assert found.priced == ""
    assert _planned("llama-3-1-8b", "1xRTX-4090", "fp8", concurrency=1).price is None


def test_an_encoder_caches_and_decodes_nothing() -> None:
    fields = "hidden_size=384,num_hidden_layers=6,num_attention_heads=12,intermediate_size=1536,vocab_size=30522"
    model = read_model(f"model_type=bert,max_position_embeddings=512,{fields}")
    found = plan(model, parse_group("1xL4"), Wanted(context=256)).variants[0]
    assert model.total() == 22_713_216
    assert found.fits
    assert found.decode is None
    assert found.prefill is not None
    assert found.memory.cache == 0


@pytest.mark.parametrize(
    ("load", "said"),
    [({"context": 0}, "no load"), ({"concurrency": 0}, "no load"), ({"context": 1 << 40}, "no load"),
     ({"context": 200_000}, "positions for 131,072 tokens"), ({"dtype": "int3"}, "'int3' is no known type"),
     ({"cache": "int2"}, "'int2' is no known type"), ({"prompt": 8192}, "leaves no answer"),
     ({"prompt": 0}, "no answer"),
     ({"price": -1.0}, "no price"), ({"price": float("nan")}, "no price"), ({"network_gb_s": 0.0}, "no rate")],
)  # fmt: skip
def test_an_impossible_load_is_refused(load: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        _planned(**{"model": "llama-3-1-8b", "gpus": "1xH100", "dtype": "bf16", **load})


@pytest.mark.parametrize("model", examples(gate=["llama-3-1-8b"], deep=["llama-3-1-8b", "deepseek-v3", "gpt-oss-120b"]))
def test_the_command_shows_what_fits_and_what_is_missing(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    from mainspring.cli.main import run

    assert run(["llm", "plan", model, "--gpus", "8xH100", "--concurrency", "4"]) == 0
    assert "free" in capsys.readouterr().out
    assert run(["llm", "plan", model, "--gpus", "1xT4"]) == 0
    assert "Nothing fits." in capsys.readouterr().out
