"""Parameters and cache of language models, beside published counts and transformers' own modules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.depth import deep
from mainspring.core.errors import Invalid
from mainspring.llm.sizing.architecture import Architecture
from mainspring.llm.sizing.config import architecture
from mainspring.llm.sizing.models import families, read_model
from mainspring.llm.sizing.precision import PRECISIONS

_LLAMA = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 8,
    "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 100,
}  # fmt: skip


@pytest.mark.parametrize("name", [*families()])
def test_parameters_are_those_of_the_model_card(name: str) -> None:
    published = families()[name]["published"]
    assert abs(read_model(name).total() - published) < 0.001 * published


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("mixtral-8x7b", 12.9),
        ("mixtral-8x22b", 39),
        ("qwen3-30b-a3b", 3.3),
        ("qwen3-235b-a22b", 22),
        ("deepseek-v3", 37),
    ],
)
def test_a_token_uses_the_parameters_that_its_card_says(name: str, billions: float) -> None:
    assert read_model(name).active() / 1e9 == pytest.approx(billions, rel=0.02)


@pytest.mark.parametrize(  # arXiv:2505.09343, table 1, in 16 bits
    ("name", "published"), [("deepseek-v3", 70_272), ("qwen2-5-72b", 327_680), ("llama-3-1-405b", 516_096)]
)
def test_the_cache_of_a_token_is_as_published(name: str, published: int) -> None:
    assert read_model(name).cached(1) * 2 == published


_SMALL: dict[str, dict[str, object]] = {
    "llama": {"attention_bias": True, "mlp_bias": True},
    "llama tied": {"model_type": "llama", "tie_word_embeddings": True, "head_dim": 24},
    "mistral": {}, "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2}, "qwen2": {},
    "qwen3": {"head_dim": 16},
    "qwen3_moe": {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "mlp_only_layers": [1],
                  "head_dim": 16},
    "gemma": {"head_dim": 16}, "gemma2": {"head_dim": 16}, "gemma3_text": {"head_dim": 16},
    "phi3": {"pad_token_id": 0},
    "deepseek_v2": {"kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12,
                    "n_routed_experts": 4, "n_shared_experts": 2, "moe_intermediate_size": 32, "num_experts_per_tok": 2,
                    "first_k_dense_replace": 1, "q_lora_rank": None, "num_key_value_heads": 8},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16},
    "gpt2": {"n_embd": 64, "n_layer": 3, "n_head": 8, "n_positions": 50},
}  # fmt: skip


@deep
@pytest.mark.parametrize("case", [*_SMALL])
def test_parameters_are_those_of_the_module_of_transformers(case: str) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    fields = {"model_type": case, **_LLAMA, **{"model_type": case}, **_SMALL[case]}
    kind = str(fields["model_type"])
    given = {name: value for name, value in fields.items() if name != "model_type"}
    config = transformers.AutoConfig.for_model(kind, **given)
    with torch.device("meta"):
        module = transformers.AutoModelForCausalLM.from_config(config)
    assert architecture(config.to_dict(), case).total() == module.num_parameters()


@deep
def test_an_encoder_has_the_parameters_of_its_module() -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    with torch.device("meta"):
        module = transformers.BertModel(config)
    assert architecture(config.to_dict(), "minilm").total() == module.num_parameters() == 22_713_216


@given(
    layers=st.integers(1, 60), windowed=st.integers(0, 60), window=st.integers(1, 50), tokens=st.integers(0, 200),
    kv_heads=st.sampled_from([1, 2, 4, 8]),
)  # fmt: skip
def test_a_windowed_layer_caches_its_window(
    layers: int, windowed: int, window: int, tokens: int, kv_heads: int
) -> None:
    kinds = ["sliding_attention" if layer < windowed else "full_attention" for layer in range(layers)]
    fields = {**_LLAMA, "model_type": "gemma2", "num_hidden_layers": layers, "num_key_value_heads": kv_heads,
              "sliding_window": window, "layer_types": kinds}  # fmt: skip
    held = sum(len(range(tokens)[-window:] if kind == "sliding_attention" else range(tokens)) for kind in kinds)
    assert architecture(fields, "m").cached(tokens) == 2 * kv_heads * 8 * held


@given(tokens=st.integers(1, 400))
def test_tokens_use_more_experts_and_never_more_than_all(tokens: int) -> None:
    model = read_model("mixtral-8x7b")
    assert model.expert_share(1) == pytest.approx(0.25)
    assert model.expert_share(tokens) <= model.expert_share(tokens + 1) <= 1


@pytest.mark.parametrize("name", ["llama-3-1-8b", "gemma-2-9b", "deepseek-v3"])
def test_sixteen_bits_are_two_bytes_a_parameter(name: str) -> None:
    model = read_model(name)
    assert sum(PRECISIONS["bf16"].weights(model).values()) == 2 * model.total()


def _llama(**changes: object) -> Architecture:
    return architecture({**_LLAMA, **changes}, "m")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": 0}, "hidden_size is '0'"), ({"hidden_size": -4}, "whole number from 1"),
        ({"hidden_size": True}, "'True'"), ({"hidden_size": "64"}, "hidden_size"),
        ({"hidden_size": 1 << 40}, "hidden_size"),
        ({"hidden_size": None}, "has no hidden_size"), ({"hidden_size": float("nan")}, "'nan'"),
        ({"model_type": "mamba"}, "'mamba' are not known"), ({"model_type": ["llama"]}, "not known"),
        ({"num_key_value_heads": 3}, "8 heads cannot share 3"),
        ({"model_type": "mixtral", "num_local_experts": 2, "num_experts_per_tok": 3}, "2 experts"),
    ],
)  # fmt: skip
def test_an_impossible_configuration_is_refused_by_its_field(changes: dict[str, object], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        _llama(**changes)


def test_of_a_model_of_pictures_and_texts_the_text_part_is_counted() -> None:
    model = architecture({"model_type": "gemma3", "text_config": dict(_LLAMA)}, "m")
    assert model.total() == _llama().total()
    assert "Only the text part of gemma3" in model.notes[0]
