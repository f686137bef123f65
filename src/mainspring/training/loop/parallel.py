"""Several processes that train one module as one process would: each computes its share of a batch.

The rows of a batch, and their order, are those of one process whatever the number of processes, so the gradient is the
same sum in another order: weights are equal within rounding, and a training resumes on more or fewer processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from inspect import signature
from itertools import chain
from typing import Any, Protocol

from mainspring.training.loop.batch_norm import Counting, synchronised
from mainspring.training.loop.blocks import blocks, recomputed
from mainspring.training.loop.tensors import import_torch
from mainspring.training.loop.world import World

Loss = Callable[[Any, Any], Any]
Forward = Callable[[], AbstractContextManager[Any]]
Example = Callable[[], tuple[Any, ...]]
Weights = dict[str, Any]  # a module's state by name, as its `state_dict` has it


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a batch that are computed at once."""

    inputs: tuple[Any, ...]
    targets: Any
    weight: float  # share of the rows in those of the batch, over all ranks; 0 for a row that does not count


class Parallel(Protocol):
    """How the processes of a training share its work. Every rank makes the same calls in the same order."""

    world: World

    @property
    def stream(self) -> int:
        """Number of this rank's random generators; ranks that compute the same have the same."""
        ...

    def training(self, module: Any, optimiser: Any, forward: Forward, example: Example) -> AbstractContextManager[Any]:
        """Return a context that yields the module to train: distributed inside; after it `module` has the weights.

        The optimiser's parameters are those of the yielded module inside.

        Args:
            forward: Makes the context of a forward pass, such as mixed precision.
            example: Loads arguments of the module, of one row.
        """
        ...

    def share(self, numbers: Any) -> Any:
        """Return those rows of a batch, int64 of shape (rows,), that this rank computes; on some ranks none."""
        ...

    def gradients(self, parts: Iterable[Part], count: int, loss: Loss) -> Any:
        """Add the gradient of a batch to the parameters' gradients, over all ranks.

        Args:
            parts: This rank's rows, in `count` parts, as many on every rank.

        Returns:
            This rank's share of the batch's loss, shape ().
        """
        ...

    def outputs(self, inputs: tuple[Any, ...]) -> Any:
        """Return the module's outputs without gradients. Every rank calls it equally often."""
        ...

    def clip(self, parameters: list[Any], norm: float) -> None:
        """Scale the gradients down to this norm (2-norm over all parameters of all ranks)."""
        ...

    def finite(self, parameters: list[Any]) -> bool:
        """Return if the parameters of all ranks are finite. Every rank calls it."""
        ...

    def weights(self, module: Any) -> Weights:
        """Return this rank's part of the weights and buffers, not copied."""
        ...

    def state(self, weights: Weights, optimiser: Any) -> dict[str, Any]:
        """Return weights and optimiser state, `{"module": ..., "optimiser": ...}`, for a checkpoint.

        Their names are those of one process; tensors are whole, or DTensors with this rank's shards. A rank may lack
        what others have. Every rank calls it.
        """
        ...

    def stored(self, weights: Weights) -> Weights:
        """Return weights that `weights` or `state` returned as `state` has them. Every rank calls it."""
        ...

    def like(self, path: str) -> Any:
        """Return a tensor that is sharded as this rank needs that at a path of a checkpoint, `None` for a whole one."""
        ...

    def load(self, module: Any, weights: Weights) -> None:
        """Set weights that `weights` or `stored` returned; those that are not named stay."""
        ...

    def restore(self, module: Any, optimiser: Any, state: dict[str, Any]) -> None:
        """Set weights and optimiser state to a `state`, of any number of ranks.

        Tensors are whole, or sharded as `like` is.
        """
        ...

    def total(self, value: Any) -> Any:
        """Return the sum of a tensor over the ranks that compute different rows."""
        ...

    def gathered(self, outputs: Any) -> Any:
        """Return the outputs of all ranks' shares in the order of the rows."""
        ...

    def vote(self, signal: int, due: bool) -> tuple[int, bool]:
        """Return a signal that any rank got, else 0, and whether the first rank wants a checkpoint.

        Between processes the answer is that to the votes before, so that no step waits for it.
        """
        ...

    def settle(self, signal: int) -> int:
        """Return, at the end of a training, a signal that any rank got, else 0."""
        ...


class Whole:
    """State of a process that has the whole module."""

    def weights(self, module: Any) -> Weights:
        return dict(module.state_dict())

    def state(self, weights: Weights, optimiser: Any) -> dict[str, Any]:
        return {"module": weights, "optimiser": optimiser.state_dict()}

    def stored(self, weights: Weights) -> Weights:
        return weights

    def like(self, path: str) -> Any:  # noqa: ARG002
        return None

    def load(self, module: Any, weights: Weights) -> None:
        module.load_state_dict({**module.state_dict(), **weights})

    def restore(self, module: Any, optimiser: Any, state: dict[str, Any]) -> None:
        self.load(module, state["module"])
        optimiser.load_state_dict(state["optimiser"])

    def clip(self, parameters: list[Any], norm: float) -> None:
        import_torch().nn.utils.clip_grad_norm_(parameters, norm)

    def finite(self, parameters: list[Any]) -> bool:
        torch = import_torch()
        found = [torch.isfinite(each).all().to(parameters[0].device) for each in parameters]
        return not found or bool(torch.stack(found).all())


class Alone(Whole):
    """One process."""

    def __init__(self, again: bool = False) -> None:
        self.world = World()
        self._again = again  # compute activations again in the backward pass
        self._module: Any = None
        self._forward: Forward = nullcontext

    @property
    def stream(self) -> int:
        return 0

    @contextmanager
    def training(self, module: Any, optimiser: Any, forward: Forward, example: Example) -> Iterator[Any]:  # noqa: ARG002
        self._module, self._forward = module, forward
        with recomputed(blocks(module).values(), self._again):
            yield module

    def share(self, numbers: Any) -> Any:
        return numbers

    def gradients(self, parts: Iterable[Part], count: int, loss: Loss) -> Any:  # noqa: ARG002
        whole: Any = 0.0
        for part in parts:
            if not part.weight:
                continue
            with self._forward():
                value = loss(self._module(*part.inputs), part.targets)
            (value if part.weight == 1.0 else value * part.weight).backward()
            whole = whole + value.detach() * part.weight
        return whole

    def outputs(self, inputs: tuple[Any, ...]) -> Any:
        with self._forward():
            return self._module(*inputs)

    def total(self, value: Any) -> Any:
        return value

    def gathered(self, outputs: Any) -> Any:
        return outputs

    def vote(self, signal: int, due: bool) -> tuple[int, bool]:
        return signal, due

    def settle(self, signal: int) -> int:
        return signal


class Voting:
    """Votes between the ranks of a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._torch = import_torch()
        self._votes: tuple[Any, Any] | None = None

    def vote(self, signal: int, due: bool) -> tuple[int, bool]:
        before, self._votes = self._votes, self._cast(signal, due)
        return (0, False) if before is None else self._counted(before)

    def settle(self, signal: int) -> int:
        before, self._votes = self._votes, None
        seen = 0 if before is None else self._counted(before)[0]
        return max(seen, self._counted(self._cast(signal, False))[0])

    def _cast(self, signal: int, due: bool) -> tuple[Any, Any]:
        votes = self._torch.tensor([signal, int(due and self.world.first)], device=self.world.device)
        return votes, self._torch.distributed.all_reduce(votes, self._torch.distributed.ReduceOp.MAX, async_op=True)

    @staticmethod
    def _counted(votes: tuple[Any, Any]) -> tuple[int, bool]:
        counts, work = votes
        work.wait()
        signal, due = counts.tolist()
        return signal, bool(due)


class Replicated(Whole, Voting):
    """A copy of the module in each process, whose gradients are averaged (PyTorch's DistributedDataParallel).

    Statistics of batch normalisation are those of the whole batch.
    """

    def __init__(self, world: World, again: bool = False) -> None:
        super().__init__(world)
        self._again = again  # compute activations again in the backward pass
        self._module: Any = None
        self._reducing: Any = None
        self._forward: Forward = nullcontext
        self._example: Example = tuple
        self._counting = Counting()

    @property
    def stream(self) -> int:
        return self.world.rank

    @contextmanager
    def training(self, module: Any, optimiser: Any, forward: Forward, example: Example) -> Iterator[Any]:  # noqa: ARG002
        self._module, self._forward, self._example = module, forward, example
        with ExitStack() as stack:
            stack.enter_context(synchronised(module, self._counting))
            stack.enter_context(recomputed(blocks(module).values(), self._again))
            if any(each.requires_grad for each in module.parameters()):
                self._reducing = self._wrapped(module)
            yield module
        self._module = self._reducing = None

    def _wrapped(self, module: Any) -> Any:
        """Return the module with weights and buffers of the first rank, whose gradients are averaged.

        Buffers are not sent again: batch normalisation computes the same ones on all ranks.
        """
        on = [self.world.local_rank] if self.world.device.type == "cuda" else None
        wrapping = self._torch.nn.parallel.DistributedDataParallel
        if "forward_sync_buffers" in signature(wrapping).parameters:
            return wrapping(module, on, forward_sync_buffers=False, gradient_as_bucket_view=True)
        wrapped = wrapping(module, on, gradient_as_bucket_view=True)
        wrapped.broadcast_buffers = False  # its name before PyTorch 2.13; as an argument it would keep them apart now
        return wrapped

    def restore(self, module: Any, optimiser: Any, state: dict[str, Any]) -> None:
        if self._reducing is not None:
            self._settle_order(module)
        super().restore(module, optimiser, state)

    def _settle_order(self, module: Any) -> None:
        """Let gradients be summed in the order of an undisturbed training from the first step on.

        DistributedDataParallel orders its buckets anew after the first backward pass, by which gradients are ready
        first, and the order in which three ranks or more add an element depends on its place.
        """
        module.train()
        self._counting.rows = None
        with self._forward():
            outputs = self._reducing(*self._example())
        found = [each.sum() for each in _tensors(outputs) if each.requires_grad]
        if found:
            sum(found[1:], found[0]).backward()
        module.zero_grad(set_to_none=True)

    def share(self, numbers: Any) -> Any:
        return self._torch.tensor_split(numbers, self.world.size)[self.world.rank]

    def gradients(self, parts: Iterable[Part], count: int, loss: Loss) -> Any:
        whole: Any = 0.0
        for place, part in enumerate(parts, start=1):
            self._counting.rows = None if part.weight else 0
            with nullcontext() if place == count else self._reducing.no_sync():
                with self._forward():
                    value = loss(self._reducing(*part.inputs), part.targets)
                # The average over ranks is then the sum of their shares.
                (value * (part.weight * self.world.size)).backward()
            whole = whole + value.detach() * part.weight
        return whole

    def outputs(self, inputs: tuple[Any, ...]) -> Any:
        with self._forward():
            return self._module(*inputs)

    def total(self, value: Any) -> Any:
        summed = value.to(self.world.device, copy=True)
        self._torch.distributed.all_reduce(summed)
        return summed

    def gathered(self, outputs: Any) -> Any:
        return self._torch.cat(self.world.gather_tensors(outputs))


def _tensors(outputs: Any) -> Iterator[Any]:
    """Yield the tensors of a module's outputs."""
    if hasattr(outputs, "requires_grad"):
        yield outputs
    elif isinstance(outputs, Mapping):
        yield from chain.from_iterable(map(_tensors, outputs.values()))
    elif isinstance(outputs, list | tuple):
        yield from chain.from_iterable(map(_tensors, outputs))
