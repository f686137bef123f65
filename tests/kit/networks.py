"""Networks of PyTorch that several tests train. Imported where PyTorch is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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


def perceptron(width: int = 16, *, norm: bool = False) -> Any:
    """Return a network from 6 numbers to a probability, whose weights are the same each time."""
    torch.manual_seed(1)
    between = [torch.nn.BatchNorm1d(width)] if norm else []
    layers = [torch.nn.Linear(6, width), *between, torch.nn.ReLU(), torch.nn.Linear(width, width)]
    return torch.nn.Sequential(*layers, torch.nn.Tanh(), torch.nn.Linear(width, 1), torch.nn.Sigmoid())


def rows_of_numbers() -> tuple[Any, Any]:
    """Return rows for `perceptron`, and the probabilities to learn."""
    rows = torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
    return rows, torch.sigmoid(2 * rows[:, :1] - rows[:, 1:2])


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread: two for small products wait for each other most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
