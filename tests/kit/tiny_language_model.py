"""A causal language model of two layers over bytes, and rows for it: what fine-tuning is tried on, within seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LAYERS = ("q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def tiny_base(seed: int = 0) -> Any:
    """Return a Llama of two layers with random weights, of which the head is large enough to tell bytes apart."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64,
        vocab_size=256, max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def byte_rows(pairs: Sequence[tuple[str, str]]) -> tuple[Any, Any]:
    """Return (input_ids, labels) of prompts and answers: a token is a byte, and answers alone are predicted."""
    import torch

    longest = max(len((prompt + answer).encode()) for prompt, answer in pairs)
    ids = torch.zeros(len(pairs), longest, dtype=torch.int64)
    labels = torch.full_like(ids, -100)
    for row, (prompt, answer) in enumerate(pairs):
        tokens = torch.tensor([*(prompt + answer).encode()])
        ids[row, : len(tokens)] = tokens
        labels[row, len(prompt.encode()) : len(tokens)] = tokens[len(prompt.encode()) :]
    return ids, labels


SHOUTED = [(f"{letter}>", letter.upper() + ".") for letter in "abcdefghijkl"]
