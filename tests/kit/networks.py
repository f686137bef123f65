"""Networks of PyTorch that several tests train. Imported where PyTorch is there."""

from __future__ import annotations

from typing import Any

import torch


class Transformer(torch.nn.Module):
    """A transformer from words, shape (rows, length), to a score of each known word, (rows, words, length)."""

    def __init__(self, *, words: int, width: int, hidden: int, heads: int, layers: int) -> None:
        super().__init__()
        self.tokens = torch.nn.Embedding(words, width)
        layer = torch.nn.TransformerEncoderLayer(width, heads, hidden, dropout=0.0, batch_first=True)
        self.layers = torch.nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.last = torch.nn.Linear(width, words)

    def forward(self, words: Any) -> Any:
        return self.last(self.layers(self.tokens(words))).transpose(1, 2)
