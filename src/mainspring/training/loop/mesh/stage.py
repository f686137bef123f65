"""A stage of a pipeline: a module whose layers of other stages are not run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from mainspring.training.loop.batch_norm import Counting
from mainspring.training.loop.mesh.cut import Cut, first_tensor
from mainspring.training.loop.tensors import import_torch


class _Sent(BaseException):
    """Ends a forward pass after the last layer of a stage."""


def staged(module: Any, cut: Cut, stage: int, context: Callable[[], AbstractContextManager[Any]], kind: Any,
           counting: Counting) -> Any:  # fmt: skip
    """Return a module that computes one stage: from the output of the stage before to its own.

    Arguments of the whole module, and how many of their rows count, are put into `expected` in the order of the calls.

    Args:
        context: Makes the context of a forward pass.
        kind: Type of what is sent between stages.
    """
    torch = import_torch()
    last = stage == len(cut.stages) - 1

    class Stage(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.module = module
            self.expected: deque[tuple[tuple[Any, ...], int]] = deque()
            self.received: Any = None
            self.sent: Any = None

        def forward(self, received: Any) -> Any:
            self.received = received
            inputs, counting.rows = self.expected.popleft()
            try:
                with context():
                    made = self.module(*inputs)
                    if last:
                        return made
            except _Sent:
                made, self.sent = self.sent, None
            finally:
                self.received = None
            made = made.to(kind).contiguous()
            return made if made.requires_grad or not torch.is_grad_enabled() else made.detach().requires_grad_()

        def connect(self) -> None:
            """Hook the first and last layer; called once the layers have all other hooks."""
            layers = dict(self.module.named_modules())
            if stage:
                layers[cut.first(stage)].register_forward_pre_hook(self._given, prepend=True)
            if not last:
                layers[cut.last(stage)].register_forward_hook(self._ended)

        def _given(self, _: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (self.received, *args[1:])

        def _ended(self, _: Any, args: tuple[Any, ...], made: Any) -> None:  # noqa: ARG002
            self.sent = first_tensor(made)
            raise _Sent

    return Stage()


class Schedule:
    """Micro-batches through the stages by PyTorch's schedules: 1F1B, or GPipe for fewer of them than stages."""

    def __init__(
        self, stage: Any, place: int, stages: int, shape: Sequence[int], made: Sequence[int], kind: Any, group: Any,
        device: Any, count: int,
    ) -> None:  # fmt: skip
        self.loss: Callable[[Any, Any], Any]
        torch = import_torch()
        from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

        def bare(size: Sequence[int]) -> Any:
            return torch.empty(tuple(size), dtype=kind, device="meta", requires_grad=True)

        numbers = torch.empty(1, dtype=torch.int64, device="meta")
        inputs = numbers if place == 0 else bare(shape)
        one = PipelineStage(stage, place, stages, device, input_args=(inputs,), output_args=(bare(made),), group=group)
        schedule = Schedule1F1B if count >= stages else ScheduleGPipe
        self._schedule = schedule(one, count, loss_fn=self._lost, scale_grads=False)
        self._numbers = torch.arange(count, device=device)
        self._first, self._last = place == 0, place == stages - 1

    def _lost(self, made: Any, number: Any) -> Any:
        return self.loss(made, number)

    def step(self) -> None:
        """Compute the gradients of all micro-batches, whose arguments the stage expects."""
        self._schedule.step(*([self._numbers] if self._first else []), target=self._numbers if self._last else None,
                            return_outputs=False)  # fmt: skip
