"""Several processes that train one module as one process would: each computes its share of a batch.

The rows of a batch, and their order, are those of one process whatever the number of processes, so the gradient is the
same sum in another order: weights are equal within rounding, and a training resumes on more or fewer processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Protocol

from mainspring.training.distribution import Distributed
from mainspring.training.loop.batch_norm import Counting, synchronised
from mainspring.training.loop.tensors import import_torch
from mainspring.training.loop.world import World

Loss = Callable[[Any, Any], Any]
Forward = Callable[[], AbstractContextManager[Any]]


class Parallel(Protocol):
    """How the processes of a training share its work. Every rank makes the same calls in the same order."""

    world: World

    def training(self, module: Any, forward: Forward) -> Any:
        """Return a context in which the module is trained: distributed inside, as it was after it.

        Args:
            forward: Makes the context of a forward pass, such as mixed precision.
        """
        ...

    def share(self, numbers: Any) -> Any:
        """Return those rows of a batch, int64 of shape (rows,), that this rank computes; on some ranks none."""
        ...

    def compute(self, inputs: tuple[Any, ...], targets: Any, loss: Loss, *, weight: float, last: bool) -> Any:
        """Add the gradient of `weight * loss` to the parameters' gradients, and return the loss, shape ().

        Args:
            weight: Share of the rows in those of the batch, over all ranks; 0 for a row that does not count.
            last: True for the last part of a batch: afterwards the gradients are those of all ranks.
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


class Alone:
    """One process."""

    def __init__(self) -> None:
        self.world = World()
        self._module: Any = None
        self._forward: Forward = nullcontext

    @contextmanager
    def training(self, module: Any, forward: Forward) -> Iterator[None]:
        self._module, self._forward = module, forward
        yield

    def share(self, numbers: Any) -> Any:
        return numbers

    def compute(self, inputs: tuple[Any, ...], targets: Any, loss: Loss, *, weight: float, last: bool) -> Any:  # noqa: ARG002
        with self._forward():
            value = loss(self._module(*inputs), targets)
        (value if weight == 1.0 else value * weight).backward()
        return value.detach()

    def total(self, value: Any) -> Any:
        return value

    def gathered(self, outputs: Any) -> Any:
        return outputs

    def vote(self, signal: int, due: bool) -> tuple[int, bool]:
        return signal, due

    def settle(self, signal: int) -> int:
        return signal


class Replicated:
    """A copy of the module in each process, whose gradients are averaged (PyTorch's DistributedDataParallel).

    Statistics of batch normalisation are those of the whole batch.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self._torch = import_torch()
        self._module: Any = None
        self._forward: Forward = nullcontext
        self._counting = Counting()
        self._votes: tuple[Any, Any] | None = None

    @contextmanager
    def training(self, module: Any, forward: Forward) -> Iterator[None]:
        self._forward = forward
        on = [self.world.local_rank] if self.world.device.type == "cuda" else None
        wrapped = self._torch.nn.parallel.DistributedDataParallel
        with ExitStack() as stack:
            stack.enter_context(synchronised(module, self._counting))
            if any(each.requires_grad for each in module.parameters()):
                self._module = wrapped(module, on, broadcast_buffers=False, gradient_as_bucket_view=True)
            yield
        self._module = None

    def share(self, numbers: Any) -> Any:
        return self._torch.tensor_split(numbers, self.world.size)[self.world.rank]

    def compute(self, inputs: tuple[Any, ...], targets: Any, loss: Loss, *, weight: float, last: bool) -> Any:
        self._counting.rows = weight > 0
        with nullcontext() if last else self._module.no_sync():
            with self._forward():
                value = loss(self._module(*inputs), targets)
            (value * (weight * self.world.size)).backward()  # the average over ranks is then the sum of their shares
        return value.detach()

    def total(self, value: Any) -> Any:
        summed = value.to(self.world.device, copy=True)
        self._torch.distributed.all_reduce(summed)
        return summed

    def gathered(self, outputs: Any) -> Any:
        return self._torch.cat(self.world.gather_tensors(outputs))

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


def parallel_of(world: World, distributed: Distributed | None = None) -> Parallel:
    """Return how a training's processes share its work.

    Raises:
        Invalid: There are not as many processes as `distributed` says.
    """
    if distributed is not None:
        distributed.check(world.size)
    return Alone() if world.size == 1 else Replicated(world)
