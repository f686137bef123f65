"""Effects of a training's switches on its memory and time, measured in steps of its module on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from typing import Any

from mainspring.training.loop.blocks import blocks, recomputed, size
from mainspring.training.loop.tensors import import_torch
from mainspring.training.planning.counting import alive
from mainspring.training.planning.model import Model
from mainspring.training.planning.plan import Effect
from mainspring.training.planning.subject import Subject, copied, optimiser_like

_LONG_S, _FEWEST = 1.0, 2  # seconds of passes, and rows of a step
_ROUNDS, _MOST_ROUNDS, _TIMED_S = 3, 25, 0.5  # steps of each combination; as many as take so long, all together


def effects(subject: Subject, rows: int) -> list[Effect]:
    """Measure mixed precision and the computing again of activations, each with and without the other.

    A combination for which there is not enough memory is left out. Without repeated parts nothing is computed again.
    """
    torch = import_torch()
    device = next(subject.module.parameters()).device
    if device.type not in ("cpu", "cuda"):
        return []
    module = copied(subject.module, lambda each: each.detach().clone())
    repeated = any(size(each) for each in blocks(module).values())
    ways = [replace(subject, amp=amp, again=again) for again in ((False, True) if repeated else (False,))
            for amp in (False, True)]  # fmt: skip
    inputs, targets = subject.batch(rows)
    inputs, targets = tuple(each.to(device) for each in inputs), targets.to(device)
    steps = _Steps(module, subject, inputs, targets)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        counts = [_counted(torch, way, steps) for way in ways]
        times = _timed([way for way, count in zip(ways, counts, strict=True) if count], steps)
    return [
        Effect(amp=way.amp, checkpoint_activations=way.again, own=(way.amp, way.again) == (subject.amp, subject.again),
               rows=rows, memory=count, step_s=times.pop(0))
        for way, count in zip(ways, counts, strict=True) if count
    ]  # fmt: skip


def tried_rows(model: Model, rows: int) -> int:
    """Return how many rows of a batch of `rows` a measured step has: fewer than all, where that would take long."""
    while model.pace is not None and rows > _FEWEST and model.pace.passes(rows, 1) > _LONG_S:
        rows //= 2
    return rows


class _Steps:
    """Steps of a module; without its optimiser's, where this cannot be made again."""

    def __init__(self, module: Any, subject: Subject, inputs: Any, targets: Any) -> None:
        self._torch = import_torch()
        self.module, self._inputs, self._targets = module, inputs, targets
        self.device = targets.device
        self._optimiser = None
        try:
            weights = [each for each in module.parameters() if each.requires_grad]
            self._optimiser = optimiser_like(subject.optimiser, weights)
        except (NotImplementedError, RuntimeError, TypeError, ValueError):
            pass

    def do(self, way: Subject) -> None:
        """Do a step with the switches of a subject."""
        self.module.zero_grad(set_to_none=True)
        with recomputed(blocks(self.module).values(), way.again):
            with way.forward(self.device.type):
                value = way.loss(self.module(*self._inputs), self._targets)
            value.backward()
        if self._optimiser is not None:
            self._optimiser.step()
        if self.device.type == "cuda":
            self._torch.cuda.synchronize(self.device)

    def held(self) -> Iterator[Any]:
        """Yield the tensors that are there between two steps, gradients aside."""
        yield from (*self.module.parameters(), *self.module.buffers())
        states = {} if self._optimiser is None else self._optimiser.state
        yield from (each for state in states.values() for each in state.values() if hasattr(each, "untyped_storage"))


def _counted(torch: Any, way: Subject, steps: _Steps) -> int:
    """Return the bytes of a step, at its fullest moment; 0 if there is not enough memory."""
    try:
        steps.do(way)  # makes the optimiser's states
        if steps.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(steps.device)
            steps.do(way)
            return int(torch.cuda.max_memory_allocated(steps.device))
        steps.module.zero_grad(set_to_none=True)
        living = alive(torch)(set())
        for each in steps.held():
            living.follow(each.untyped_storage())
        with living:
            steps.do(way)
    except (torch.OutOfMemoryError, MemoryError):
        return 0
    return int(living.most)


def _timed(ways: list[Subject], steps: _Steps) -> list[float]:
    """Return the usual seconds of a step of each way, measured by turns."""
    taken: list[list[float]] = [[] for _ in ways]
    ends = time.perf_counter() + _TIMED_S
    while ways and (len(taken[0]) < _ROUNDS or (time.perf_counter() < ends and len(taken[0]) < _MOST_ROUNDS)):
        for way, times in zip(ways, taken, strict=True):
            begun = time.perf_counter()
            steps.do(way)
            times.append(time.perf_counter() - begun)
    return [median(each) for each in taken]
