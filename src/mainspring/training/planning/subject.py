"""A module to plan a training for, and how it is trained."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mainspring.training.loop.tensors import import_torch

if TYPE_CHECKING:
    from mainspring.training.loop.loop import Loop

_HELD = 256  # rows, of which larger batches are repetitions


@dataclass(frozen=True, slots=True)
class Subject:
    """A module and how it is trained.

    Attributes:
        batch: Returns `(inputs, targets)` of so many rows, inputs as a tuple.
        amp: Whether the forward pass computes in bfloat16 where PyTorch considers it safe.
        again: Whether activations are computed again in the backward pass.
    """

    name: str
    module: Any
    optimiser: Any
    loss: Callable[[Any, Any], Any]
    batch: Callable[[int], tuple[tuple[Any, ...], Any]]
    amp: bool = False
    again: bool = False

    def forward(self, device: str) -> AbstractContextManager[Any]:
        """Return the context of a forward pass."""
        torch = import_torch()
        return torch.autocast(device, dtype=torch.bfloat16) if self.amp else nullcontext()


def copied(module: Any, made: Callable[[Any], Any]) -> Any:
    """Return a copy without gradients, whose tensors `made` returns; the module's own bytes are not copied."""
    parameter = import_torch().nn.Parameter
    memo: dict[int, Any] = {id(each): made(each) for each in module.buffers()}
    memo.update({id(each): parameter(made(each), each.requires_grad) for each in module.parameters()})
    return copy.deepcopy(module, memo).train()


def optimiser_like(given: Any, weights: list[Any]) -> Any:
    """Return an optimiser of other weights, of the kind and the settings of one that is given.

    Raises:
        NotImplementedError, RuntimeError, TypeError, ValueError: Its class cannot be made so.
    """
    return type(given)(weights, **{key: value for key, value in given.defaults.items() if key != "differentiable"})


def subject_of(name: str, training: Loop, *, again: bool = False) -> Subject:
    """Return the subject of a training that is looked at, with rows from the first ones in stored order."""
    torch = import_torch()
    try:
        inputs, targets = next(training.rows.in_order(min(_HELD, training.batch_size), torch.device("cpu")))
    finally:
        training.rows.close()

    def batch(count: int) -> tuple[tuple[Any, ...], Any]:
        numbers = torch.arange(count) % len(targets)
        return tuple(each[numbers] for each in inputs), targets[numbers]

    return Subject(name, training.module, training.optimiser, training.loss, batch, training.amp, again)
