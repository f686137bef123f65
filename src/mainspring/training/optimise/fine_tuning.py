"""Pruning of a trained version with fine-tuning: its training function runs again, from the version's weights.

The rows, the loss, the optimiser and its schedule are those of the training function, from their beginning on: a
schedule that starts again recovers more than a small constant rate does (Renda, Frankle and Carbin, Comparing rewinding
and fine-tuning in neural network pruning, ICLR 2020).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mainspring.core.errors import NotConvertible
from mainspring.training.loop.parallel import Alone
from mainspring.training.loop.tensors import import_torch
from mainspring.training.optimise.onnx_models import Array, read
from mainspring.training.optimise.pruning import prune

if TYPE_CHECKING:
    from mainspring.training.loop.loop import Loop

_STATISTICS = ("running_mean", "running_var")  # of normalisations, which are weights of a trained network too
_PYTORCH = "pytorch"  # the producer that torch's exporter writes


@dataclass(frozen=True, slots=True)
class Pruning:
    """A way to prune.

    Attributes:
        share: As of `prune`.
        how: What it does, for people.
    """

    share: float
    structured: bool
    how: str


PRUNED: Mapping[str, Pruning] = {
    "pruned-weights-50": Pruning(0.5, False, "the smaller half of the weights set to 0"),
    "pruned-neurons-25": Pruning(0.25, True, "a quarter of the neurons of each layer removed"),
    "pruned-neurons-50": Pruning(0.5, True, "half of the neurons of each layer removed"),
    "pruned-neurons-75": Pruning(0.75, True, "three quarters of the neurons of each layer removed"),
}


def by_torch(content: bytes) -> bool:
    """Return whether PyTorch exported an ONNX model."""
    return bool(read(content, "Pruning").producer_name == _PYTORCH)


class FineTuning:
    """Pruning of the network of a `fit_torch`, which then trains it further; to be given to `refined`.

    Args:
        content: The version's model. Where it does not hold the network's weights by their names, as the exporter joins
            a batch normalisation with the layer before it, the network is trained anew first.
        epochs: Of fine-tuning; by default half of the training function's own.
    """

    def __init__(self, content: bytes, pruning: Pruning, epochs: int | None = None) -> None:
        self._pruning, self._epochs = pruning, epochs
        self._known = _constants(content)
        self._anew = False
        self.how = ""  # once it was called, for people

    def __call__(self, loop: Loop) -> None:
        """Prune the network of a training that has not begun.

        Raises:
            NotConvertible: The training function trains several networks, none of which has the version's weights.
            Invalid: The network has no layer that can be pruned.
        """
        weights = stored_weights(loop.module, self._known)
        if self._anew:
            raise NotConvertible("The training function trains several networks; which to prune is not known.")
        if self.how and weights is None:
            return  # the version's network is pruned, and this is another
        before = _States(loop)
        if weights is None:
            _train(loop)
        else:
            _load(loop.module, weights)
        names = {id(each): name for name, each in loop.module.named_parameters()}
        prune(loop.module, self._pruning.share, structured=self._pruning.structured)
        _follow(loop, names)
        before.restore(loop)
        loop.epochs = math.ceil(loop.epochs / 2) if self._epochs is None else self._epochs
        self._anew = weights is None
        anew = ", trained anew" if self._anew else ""
        self.how = f"{self._pruning.how}{anew}, then trained for {loop.epochs} epoch{'s'[: loop.epochs != 1]}"


def stored_weights(module: Any, known: Mapping[str, Array]) -> dict[str, Array] | None:
    """Return a module's parameters and statistics as a model holds them, all under one prefix; `None` if it does not.

    Args:
        known: The model's constants by name.
    """
    wanted = {name: tuple(each.shape) for name, each in module.named_parameters()}
    wanted |= {
        name: tuple(each.shape) for name, each in module.named_buffers() if name.rpartition(".")[2] in _STATISTICS
    }
    if not wanted:
        return None
    first = next(iter(wanted))
    prefixes = [
        each.removesuffix(first) for each in known if each == first or each.endswith(f".{first}")
    ]  # of a part of the exported module, for one
    found = [
        prefix
        for prefix in prefixes
        if all(prefix + name in known and known[prefix + name].shape == shape for name, shape in wanted.items())
    ]
    return {name: known[found[0] + name] for name in wanted} if len(found) == 1 else None


class _States:
    """The states of an optimiser, a schedule and early stopping before a training."""

    def __init__(self, loop: Loop) -> None:
        self._optimiser = deepcopy(loop.optimiser.state_dict())
        self._schedule = None if loop.schedule is None else deepcopy(loop.schedule.state_dict())
        self._stopping = None if loop.stopping is None else loop.stopping.state()

    def restore(self, loop: Loop) -> None:
        loop.optimiser.state.clear()
        loop.optimiser.load_state_dict(self._optimiser)
        if loop.schedule is not None:
            loop.schedule.load_state_dict(self._schedule)
        if loop.stopping is not None and self._stopping is not None:
            loop.stopping.restore(self._stopping)


def _train(loop: Loop) -> None:
    """Train the network as the training function would, in this process."""
    first = copy(loop)
    first.parallel = Alone()
    with first.parallel.training(loop.module, loop.optimiser, loop.autocast, loop.example) as module:
        first.train(module)
        first.begin()
        first.go()


def _load(module: Any, weights: Mapping[str, Array]) -> None:
    torch = import_torch()
    state = dict(module.named_parameters()) | dict(module.named_buffers())
    with torch.no_grad():
        for name, values in weights.items():
            state[name].copy_(torch.tensor(values))


def _follow(loop: Loop, names: Mapping[int, str]) -> None:
    """Let the optimiser train the parameters that have taken the place of others."""
    now = dict(loop.module.named_parameters())
    for group in loop.optimiser.param_groups:
        group["params"] = [now.get(names.get(id(each), ""), each) for each in group["params"]]
    loop.frozen = {name: now[name] for name in loop.frozen if name in now}


def _constants(content: bytes) -> dict[str, Array]:
    from onnx import numpy_helper

    return {each.name: numpy_helper.to_array(each) for each in read(content, "Pruning").graph.initializer}
