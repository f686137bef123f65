"""Processes that each have consecutive layers of a module, beside the other axes of a mesh."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.training.loop.blocks import blocks, recomputed
from mainspring.training.loop.mesh.cut import Cut, cut, first_tensor
from mainspring.training.loop.mesh.meshed import Meshed
from mainspring.training.loop.mesh.outline import Outline, leave_out
from mainspring.training.loop.mesh.stage import Schedule, staged
from mainspring.training.loop.mesh.state import local
from mainspring.training.loop.mesh.tensor import plan_of, spread
from mainspring.training.loop.parallel import Loss, Part
from mainspring.training.loop.tensors import import_torch


class Pipelined(Meshed):
    """A module cut into stages, through which the parts of a batch go (arXiv:1811.06965, arXiv:2104.04473)."""

    _outline: Outline
    _cut: Cut
    _kind: Any = None

    def _built(self, own: Any, module: Any, example: Any, stack: ExitStack) -> Any:
        torch = self._torch
        inputs = example()
        self._outline = Outline(module, self.device)
        self._schedules: dict[Any, Schedule] = {}
        self._sizes: dict[Any, tuple[list[Any], Any]] = {}
        self._cut = cut(self._outline, inputs, self.declared.pipeline)
        parts = blocks(own)
        self._shared = self._together(module)
        leave_out(own, self._outline.twin, lambda name: self._cut.stage_of.get(name, self.stage) == self.stage)
        if self.declared.tensor > 1:
            plan = plan_of(module, self.declared.tensor, self.declared.tensor_plan, own)
            spread(own, self.mesh["tensor"], plan)
        stack.enter_context(recomputed(parts.values(), self.declared.checkpoint_activations))
        self._kind = self._measured(inputs)[0][0].dtype
        stage = staged(own, self._cut, self.stage, self._forward, self._kind, self._counting)
        self._sharded(parts, stage)
        stage.connect()
        self.trained = stage
        self._check(inputs, torch)
        return stage

    def _check(self, inputs: tuple[Any, ...], torch: Any) -> None:
        """Raise if a stage uses values of another beside those that it gets."""
        self.trained.eval()
        with torch.no_grad():
            made = self._chained(inputs)
        each = self.world.size // self.declared.pipeline
        wrong = self.world.gather(bool(made.is_floating_point() and made.isnan().any()))
        if any(wrong):
            raise Invalid(
                f"Stage {wrong.index(True) // each} of the pipeline gives NaN: it "
                "uses values that layers of another stage have, or the weights are not finite.",
                fix="use shard or tensor instead of pipeline, or give each layer the output of the one before alone.",
            )

    def _together(self, module: Any) -> dict[str, Any]:
        """Return the processes of the stages that have a weight by its name, where it is in several."""
        places: dict[int, set[int]] = {}
        for name, each in module.named_parameters(remove_duplicate=False):
            stages = places.setdefault(id(each), set())
            parents = [name[:end] for end, letter in enumerate(name) if letter == "."]
            found = [self._cut.stage_of[parent] for parent in parents if parent in self._cut.stage_of]
            stages.update(found or range(self.declared.pipeline))
        grid = self._torch.arange(self.world.size).reshape(self.declared.pipeline, -1)
        groups: dict[tuple[int, ...], Any] = {}
        shared = {}
        for name, each in module.named_parameters(remove_duplicate=False):
            stages = places[id(each)]
            if len(stages) > 1:
                key = tuple(sorted(stages))
                if key not in groups:
                    groups[key] = self._group(grid[list(key)].T)
                shared[name] = groups[key]
        return shared

    def _measured(self, inputs: tuple[Any, ...]) -> tuple[list[Any], Any]:
        """Return what each stage but the last sends for such inputs, and the output, both without data."""
        key = tuple((tuple(each.shape), each.dtype) for each in inputs)
        if key not in self._sizes:
            ends = {self._cut.last(stage) for stage in range(self.declared.pipeline - 1)}
            sent: list[Any] = []

            def seen(name: str, _: Any, made: Any) -> None:
                if name in ends:
                    sent.append(first_tensor(made).to("meta"))

            self._sizes[key] = (sent, self._outline.run(inputs, seen).to("meta"))
        return self._sizes[key]

    def gradients(self, parts: Iterable[Part], count: int, loss: Loss) -> Any:
        every = list(parts)
        rows = max(len(each.inputs[0]) for each in every)
        padded = [tuple(_padded(one, rows) for one in each.inputs) for each in every]
        found: list[Any] = []

        def lost(outputs: Any, number: Any) -> Any:
            part = every[int(number)]
            with self._forward():
                value = loss(_rows(outputs, len(part.inputs[0])), part.targets)
            found.append(value.detach() * part.weight)
            return value * (part.weight * self.sharers)

        for inputs, part in zip(padded, every, strict=True):
            self.trained.expected.append((inputs, len(part.inputs[0]) if part.weight else 0))
        schedule = self._schedule(padded[0], count)
        schedule.loss = lost
        schedule.step()
        self._joined()
        self._settled()
        return sum(found) if found else self._torch.zeros((), dtype=self._torch.float64)

    def _schedule(self, inputs: tuple[Any, ...], count: int) -> Schedule:
        key = (count, *((tuple(each.shape), each.dtype) for each in inputs))
        if key not in self._schedules:
            sent, _ = self._measured(inputs)
            shapes = [inputs[0].shape, *(each.shape for each in sent), inputs[0].shape]
            self._schedules[key] = Schedule(
                self.trained, self.stage, self.declared.pipeline, shapes[self.stage], shapes[self.stage + 1],
                self._kind, self.stage_group, self.device, count,
            )  # fmt: skip
        return self._schedules[key]

    def _joined(self) -> None:
        """Add up the gradients of weights that several stages have."""
        own = self.named()
        done: set[int] = set()
        for name, group in self._shared.items():
            if name in own and id(own[name]) not in done and own[name].requires_grad:
                done.add(id(own[name]))
                if own[name].grad is None:
                    own[name].grad = self._torch.zeros_like(own[name])
                self._torch.distributed.all_reduce(local(own[name].grad), group=group)

    def outputs(self, inputs: tuple[Any, ...]) -> Any:
        distributed = self._torch.distributed
        made = self._chained(inputs)
        last = self.declared.pipeline - 1
        if self.stage != last:
            like = self._measured(inputs)[1]
            made = self._torch.empty(like.shape, dtype=like.dtype, device=self.device)
        else:
            made = made.to(self._measured(inputs)[1].dtype).contiguous()
        distributed.broadcast(made, distributed.get_global_rank(self.stage_group, last), self.stage_group)
        return made

    def _chained(self, inputs: tuple[Any, ...]) -> Any:
        """Return this stage's output, one stage after the other."""
        distributed, group = self._torch.distributed, self.stage_group
        received = None
        if self.stage:
            like = self._measured(inputs)[0][self.stage - 1]
            received = self._torch.empty(like.shape, dtype=self._kind, device=self.device)
            distributed.recv(received, distributed.get_global_rank(group, self.stage - 1), group)
        self.trained.expected.append((inputs, len(inputs[0])))
        made = self.trained(received)
        if self.stage < self.declared.pipeline - 1:
            distributed.send(made, distributed.get_global_rank(group, self.stage + 1), group)
        for each in self.trained.modules():
            if hasattr(each, "reshard"):
                each.reshard()
        return made


def _rows(outputs: Any, count: int) -> Any:
    """Return the first rows of all tensors in a module's outputs."""
    from torch.utils._pytree import tree_map_only

    return tree_map_only(import_torch().Tensor, lambda each: each[:count] if each.ndim else each, outputs)


def _padded(rows: Any, count: int) -> Any:
    """Return rows with the first one repeated at their end."""
    more = count - len(rows)
    return rows[[*range(len(rows)), *[0] * more]] if more else rows
