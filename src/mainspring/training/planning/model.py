"""A model as its training takes memory and time: its parts in the forward pass's order, precision and optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from mainspring.core.errors import Invalid
from mainspring.training.planning.pace import Pace

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive layers of a model. Bytes and operations are those of one row, unless they say otherwise.

    Attributes:
        parameters: Numbers in its weights. `trained`: those of them that have gradients.
        cut: Share of the parameters, and of the operations, that tensor parallelism spreads; 0 where it cannot.
        saved: Bytes that the backward pass needs. `saved_cut`: the share of them that tensor parallelism spreads.
        fixed: Bytes that the backward pass needs whatever the rows, such as weights in 16 bits.
        working: Bytes that its backward pass takes for a time. `working_fixed`: those of them that all rows share.
        entrance: Bytes of its input, which checkpointing of activations keeps and a pipeline passes on.
        flops: Operations of the forward pass. `attention`: those of them between tokens.
        sums: Sums of an activation over the processes of tensor parallelism, in the forward pass.
        block: Whether weights are gathered, and activations computed again, for it alone.
    """

    name: str
    parameters: int
    trained: int
    cut: float = 0.0
    saved: float = 0.0
    saved_cut: float = 0.0
    fixed: float = 0.0
    working: float = 0.0
    working_fixed: float = 0.0
    entrance: float = 0.0
    flops: float = 0.0
    attention: float = 0.0
    sums: int = 0
    block: bool = False

    def local(self, tensor: int) -> float:
        """Parameters on one of `tensor` processes over which the part is spread."""
        return self.parameters * (self.cut / tensor + 1 - self.cut)

    def kept(self, tensor: int) -> float:
        """Bytes of a row that the backward pass needs on one of `tensor` processes."""
        return self.saved * (self.saved_cut / tensor + 1 - self.saved_cut)


@dataclass(frozen=True, slots=True)
class Precision:
    """Bytes of a number of a training, by its use.

    Attributes:
        master: Of a second copy of the weights, which the optimiser changes. `state`: of an optimiser's number.
        copied: Of the copy of a matrix in which it is multiplied; 0 where the weight itself is.
        compute: Of an activation, and of a weight when it is gathered.
    """

    name: str
    weight: int
    gradient: int
    master: int
    state: int
    copied: int
    compute: int

    @property
    def gathered(self) -> int:
        """Bytes of a weight that shards gather: `fit_torch` has it in the type in which it is multiplied."""
        return min(self.weight, self.compute)


PRECISIONS = {
    each.name: each
    for each in (
        Precision("fp32", weight=4, gradient=4, master=0, state=4, copied=0, compute=4),
        Precision("amp", weight=4, gradient=4, master=0, state=4, copied=2, compute=2),
        Precision("bf16-master", weight=2, gradient=2, master=4, state=4, copied=0, compute=2),
        Precision("bf16", weight=2, gradient=2, master=0, state=2, copied=0, compute=2),
        Precision("fp64", weight=8, gradient=8, master=0, state=8, copied=0, compute=8),
    )
}

_BLOCK = 256  # numbers that share a scale of 32 bits in bitsandbytes' optimisers


@dataclass(frozen=True, slots=True)
class Optimiser:
    """Memory of an optimiser.

    Attributes:
        states: Numbers that it keeps for each trained parameter. `bits`: of one of them, where they are quantised.
        step: Numbers for each trained parameter that it needs during a step on a GPU (`foreach`).
    """

    name: str
    states: float
    bits: float = 0.0
    step: float = 0.0

    def bytes_of(self, precision: Precision) -> float:
        """Bytes of its states for one trained parameter."""
        return self.states * (self.bits / 8 if self.bits else precision.state)


OPTIMISERS = {
    each.name: each
    for each in (
        Optimiser("sgd", 0),
        Optimiser("momentum", 1),
        Optimiser("adam", 2, step=1),
        Optimiser("adamw", 2, step=1),
        Optimiser("adam8bit", 2, bits=8 + 32 / _BLOCK),
        Optimiser("rmsprop", 1, step=1),
        Optimiser("adagrad", 1, step=1),
        Optimiser("lion", 1),
    )
}


@dataclass(frozen=True, slots=True)
class Model:
    """A model to plan a training for.

    Attributes:
        parts: In the order of the forward pass; the last is the loss.
        row: A row in words: "row", "sequence of 4,096 tokens".
        heads: Number that the processes of tensor parallelism have to divide; 0 if it cannot cut the model.
        chained: Whether its blocks follow on each other, so that a pipeline can cut it.
        measured: Whether the parts were measured on the module, or computed from a description.
        pace: Measured times on this machine's processor; `None`: they follow from `flops`.
        largest: Parameters of the largest tensor.
        norms: Layers that normalise by the rows of a batch, of all processes.
    """

    name: str
    parts: tuple[Part, ...]
    precision: Precision
    optimiser: Optimiser
    row: str = "row"
    heads: int = 0
    chained: bool = True
    measured: bool = False
    pace: Pace | None = None
    largest: int = 0
    norms: int = 0
    notes: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """Parameters of all parts."""
        return sum(each.parameters for each in self.parts)

    @property
    def blocks(self) -> tuple[Part, ...]:
        """Parts whose weights are gathered one after the other."""
        return tuple(each for each in self.parts if each.block)

    def stages(self, count: int) -> list[tuple[Part, ...]]:
        """Divide the parts among `count` stages so that the slowest one computes least; each has a block."""
        return _divided(self.parts, count)


@cache
def _divided(parts: tuple[Part, ...], count: int) -> list[tuple[Part, ...]]:
    if count == 1:
        return [parts]
    low, high = max(each.flops for each in parts), sum(each.flops for each in parts)
    found = _filled(parts, count, high)
    for _ in range(50):
        middle = (low + high) / 2
        tried = _filled(parts, count, middle)
        if _slowest(tried) <= middle:
            found, high = tried, middle
        else:
            low = middle
    return found


def _slowest(stages: list[tuple[Part, ...]]) -> float:
    return max(sum(each.flops for each in stage) for stage in stages)


def _filled(parts: tuple[Part, ...], count: int, most: float) -> list[tuple[Part, ...]]:
    """Fill stages one after the other to at most `most` operations; the last takes what is left."""
    blocks = sum(each.block for each in parts)
    stages: list[list[Part]] = [[]]
    for part in parts:
        own, left = stages[-1], sum(each.block for each in stages[-1])
        full = sum(each.flops for each in own) + part.flops > most
        needed = count - len(stages)  # stages that have to get a block each
        if part.block and left and len(stages) < count and (full or blocks <= needed):
            stages.append([])
        stages[-1].append(part)
        blocks -= part.block
    return [tuple(each) for each in stages]


def named(table: Mapping[str, T], name: str, what: str) -> T:
    """Return the entry of a table.

    Raises:
        Invalid: It is not there.
    """
    if name not in table:
        raise Invalid(f"There is no {what} {name!r}.", fix=f"use one of {', '.join(table)}.")
    return table[name]
