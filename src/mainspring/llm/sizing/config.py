"""Architecture from Hugging Face's config.json, which is read as data: nothing that it names is loaded or run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.llm.sizing.architecture import Architecture, Attention, FeedForward

_MOST = 1 << 32
_DTYPES = {"bfloat16": "bf16", "float16": "bf16", "float32": "bf16"}  # float32 is served in 16 bits
_QUANTISED = {"fp8": "fp8", "awq": "awq", "gptq": "gptq", "mxfp4": "mxfp4"}


class _Config:
    """Fields of a configuration, checked as they are read."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.fields = fields

    def count(self, *names: str, default: int | None = None) -> int:
        """Return the first of the names that is there: a whole number from 1; `default` where it is absent or null."""
        for name in names:
            value = self.fields.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _MOST:
                raise Invalid(f"{name} is {str(value)[:50]!r} in the configuration; it must be a whole number from 1.")
            return value
        if default is None:
            raise Invalid(f"The configuration has no {names[0]}.", fix="complete it: it is config.json of the model.")
        return default

    def has(self, name: str, *, default: bool = False) -> bool:
        value = self.fields.get(name)
        return default if value is None else bool(value)


def architecture(fields: Mapping[str, Any], name: str) -> Architecture:
    """Return the architecture that a configuration describes.

    Raises:
        Invalid: A field is missing or impossible, or the kind of model is not known.
    """
    notes: tuple[str, ...] = ()
    inner = fields.get("text_config")
    if isinstance(inner, Mapping) and "model_type" in inner:
        notes = (f"Only the text part of {fields.get('model_type')!s} is counted.",)
        fields = {"quantization_config": fields.get("quantization_config"), "dtype": fields.get("torch_dtype"), **inner}
    kind = fields.get("model_type")
    if not isinstance(kind, str) or kind not in _READERS:
        raise Invalid(
            f"Models of the type {str(kind)[:50]!r} are not known; known are {', '.join(sorted(_READERS))}.",
            fix="describe it by the fields of a known type, as model_type=llama,hidden_size=4096,...",
        )
    found = _READERS[kind](_Config(fields), name)
    parts = found.feed_forward
    if found.attention.heads % found.attention.kv_heads:
        raise Invalid(f"{found.attention.heads} heads cannot share {found.attention.kv_heads} of keys and values.")
    if parts.active > parts.experts or parts.dense_layers > found.layers:
        raise Invalid(f"{name} has {parts.experts} experts and {found.layers} layers, fewer than it uses.")
    quantised = fields.get("quantization_config")
    method = quantised.get("quant_method") if isinstance(quantised, Mapping) else None
    dtype = _QUANTISED.get(str(method)) or _DTYPES.get(str(fields.get("torch_dtype") or fields.get("dtype")), "bf16")
    return replace(found, kind=kind, dtype=dtype, notes=notes)


def _decoder(
    config: _Config,
    name: str,
    *,
    qkv_bias: bool = False,
    out_bias: bool = False,
    mlp_bias: bool = False,
    head_norms: bool = False,
    norms: int = 2,
    tied: bool = False,
    feed_forward: FeedForward | None = None,
    window: tuple[int, int] = (0, 0),
) -> Architecture:
    """Return a decoder with RMS norms, gated feed-forward and rotary positions, as Llama and its descendants are."""
    hidden, heads = config.count("hidden_size"), config.count("num_attention_heads")
    kv_heads = config.count("num_key_value_heads", default=heads)
    head_dim = config.count("head_dim", default=max(1, hidden // heads))
    vocabulary, layers = config.count("vocab_size"), config.count("num_hidden_layers")
    extras = (heads + 2 * kv_heads) * head_dim * qkv_bias + hidden * out_bias + 2 * head_dim * head_norms
    width = config.count("intermediate_size", default=1 if feed_forward else None)
    tied = config.has("tie_word_embeddings", default=tied)
    dense = FeedForward(width, extras=(2 * width + hidden) * mlp_bias)
    tokens, windowed = window
    return Architecture(
        name, "", layers, hidden, vocabulary,
        Attention(heads, kv_heads, head_dim, head_dim, extras=extras),
        feed_forward or dense,
        norms=norms * hidden,
        last_norm=hidden,
        embeddings=vocabulary * hidden,
        head=0 if tied else vocabulary * hidden,
        tied=tied,
        window=tokens,
        windowed=min(windowed, layers),
        longest=config.count("max_position_embeddings", default=_MOST) % _MOST,
    )  # fmt: skip


def _windows(config: _Config, every_other: bool, default: int = 0) -> tuple[int, int]:
    """Return the window, and the number of layers that have it: by `layer_types`, else every other one, or all."""
    if not default and config.fields.get("sliding_window") is None:
        return 0, 0
    tokens, layers = config.count("sliding_window", default=default), config.count("num_hidden_layers")
    kinds = config.fields.get("layer_types")
    if isinstance(kinds, list):
        return tokens, sum(each == "sliding_attention" for each in kinds)
    return tokens, (layers + 1) // 2 if every_other else layers


def _llama(config: _Config, name: str) -> Architecture:
    bias = config.has("attention_bias")
    return _decoder(config, name, qkv_bias=bias, out_bias=bias, mlp_bias=config.has("mlp_bias"))


def _mistral(config: _Config, name: str) -> Architecture:
    return _decoder(config, name, window=_windows(config, every_other=False))


def _mixtral(config: _Config, name: str) -> Architecture:
    hidden, experts = config.count("hidden_size"), config.count("num_local_experts", "num_experts")
    width = config.count("intermediate_size")
    parts = FeedForward(
        width, experts=experts, active=config.count("num_experts_per_tok"), expert_width=width, router=hidden * experts
    )
    return _decoder(config, name, feed_forward=parts, window=_windows(config, every_other=False))


def _qwen2(config: _Config, name: str) -> Architecture:
    window = (0, 0)
    if config.has("use_sliding_window"):
        tokens, layers = _windows(config, every_other=False)
        window = tokens, max(0, layers - config.count("max_window_layers", default=layers))
    return _decoder(config, name, qkv_bias=True, window=window)


def _qwen3(config: _Config, name: str) -> Architecture:
    bias = config.has("attention_bias")
    return _decoder(config, name, qkv_bias=bias, out_bias=bias, head_norms=True)


def _qwen3_moe(config: _Config, name: str) -> Architecture:
    hidden, experts = config.count("hidden_size"), config.count("num_experts", "num_local_experts")
    layers, step = config.count("num_hidden_layers"), config.count("decoder_sparse_step", default=1)
    only_dense = set(config.fields.get("mlp_only_layers") or ())
    sparse = sum(layer not in only_dense and (layer + 1) % step == 0 for layer in range(layers))
    parts = FeedForward(
        config.count("intermediate_size"),
        experts=experts,
        active=config.count("num_experts_per_tok"),
        expert_width=config.count("moe_intermediate_size"),
        router=hidden * experts,
        dense_layers=layers - sparse,
    )
    bias = config.has("attention_bias")
    return _decoder(config, name, qkv_bias=bias, out_bias=bias, head_norms=True, feed_forward=parts)


def _gemma(config: _Config, name: str) -> Architecture:
    return _decoder(config, name, tied=True)


def _gemma2(config: _Config, name: str) -> Architecture:
    return _decoder(config, name, tied=True, norms=4, window=_windows(config, every_other=True, default=4096))


def _gemma3(config: _Config, name: str) -> Architecture:
    layers, pattern = config.count("num_hidden_layers"), config.count("sliding_window_pattern", default=6)
    tokens, found = _windows(config, every_other=False, default=4096)
    windowed = found if isinstance(config.fields.get("layer_types"), list) else layers - layers // pattern
    return _decoder(config, name, tied=True, norms=4, head_norms=True, window=(tokens, windowed))


def _gpt_oss(config: _Config, name: str) -> Architecture:
    hidden, width = config.count("hidden_size"), config.count("intermediate_size")
    experts, heads = config.count("num_local_experts"), config.count("num_attention_heads")
    parts = FeedForward(
        width,
        experts=experts,
        active=config.count("num_experts_per_tok", "experts_per_token"),
        expert_width=width,
        router=(hidden + 1) * experts,
        expert_extras=2 * width + hidden,
    )
    bias = config.has("attention_bias", default=True)
    window = _windows(config, every_other=True, default=128)
    found = _decoder(config, name, qkv_bias=bias, out_bias=bias, feed_forward=parts, window=window)
    return replace(found, attention=replace(found.attention, extras=found.attention.extras + heads))


def _deepseek(config: _Config, name: str) -> Architecture:
    hidden, heads = config.count("hidden_size"), config.count("num_attention_heads")
    latent, rope = config.count("kv_lora_rank"), config.count("qk_rope_head_dim")
    rank = config.count("q_lora_rank", default=_MOST) % _MOST
    experts, width = config.count("n_routed_experts"), config.count("moe_intermediate_size")
    corrected = config.fields.get("model_type") == "deepseek_v3"  # the bias that balances experts without a loss
    attention = Attention(
        heads, heads, config.count("qk_nope_head_dim") + rope, config.count("v_head_dim"),
        latent=latent, query_rank=rank, rope_dim=rope, extras=latent + rank,
    )  # fmt: skip
    parts = FeedForward(
        config.count("intermediate_size"),
        experts=experts,
        active=config.count("num_experts_per_tok"),
        expert_width=width,
        shared_width=width * config.count("n_shared_experts"),
        router=(hidden + corrected) * experts,
        dense_layers=config.count("first_k_dense_replace"),
    )
    return replace(_decoder(config, name, feed_forward=parts), attention=attention)


def _gpt2(config: _Config, name: str) -> Architecture:
    hidden, layers = config.count("n_embd", "hidden_size"), config.count("n_layer", "num_hidden_layers")
    heads, vocabulary = config.count("n_head", "num_attention_heads"), config.count("vocab_size")
    positions, width = (
        config.count("n_positions", "max_position_embeddings"),
        config.count("n_inner", default=4 * hidden),
    )
    return Architecture(
        name, "", layers, hidden, vocabulary,
        Attention(heads, heads, hidden // heads, hidden // heads, extras=4 * hidden),
        FeedForward(width, matrices=2, extras=width + hidden),
        norms=4 * hidden,
        last_norm=2 * hidden,
        embeddings=(vocabulary + positions) * hidden,
        head=0,
        tied=True,
        longest=positions,
    )  # fmt: skip


def _bert(config: _Config, name: str) -> Architecture:
    hidden, heads = config.count("hidden_size"), config.count("num_attention_heads")
    width, positions = config.count("intermediate_size"), config.count("max_position_embeddings")
    rows = config.count("vocab_size") + positions + config.count("type_vocab_size", default=2)
    return Architecture(
        name, "", config.count("num_hidden_layers"), hidden, config.count("vocab_size"),
        Attention(heads, heads, hidden // heads, hidden // heads, extras=4 * hidden, bidirectional=True),
        FeedForward(width, matrices=2, extras=width + hidden),
        norms=4 * hidden,
        last_norm=2 * hidden,
        embeddings=rows * hidden,
        head=hidden * hidden + hidden,
        tied=False,
        longest=positions,
    )  # fmt: skip


_READERS: dict[str, Callable[[_Config, str], Architecture]] = {
    "llama": _llama, "mistral": _mistral, "mixtral": _mixtral, "qwen2": _qwen2, "qwen3": _qwen3,
    "qwen3_moe": _qwen3_moe, "gemma": _gemma, "gemma2": _gemma2, "gemma3_text": _gemma3, "phi3": _mistral,
    "deepseek_v2": _deepseek, "deepseek_v3": _deepseek, "gpt_oss": _gpt_oss, "gpt2": _gpt2, "bert": _bert,
}  # fmt: skip
