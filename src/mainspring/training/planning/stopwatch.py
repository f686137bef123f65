"""Times of a module's passes on this machine's processor, alone and beside processes that use the other cores.

Both are measured, because cores are not independent: two that are threads of one core, or that share its memory, are
slower together. So are shapes: a few rows do not fill a processor's vector units.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from mainspring.training.loop.blocks import blocks, recomputed
from mainspring.training.loop.tensors import import_torch
from mainspring.training.planning.model import Model
from mainspring.training.planning.pace import Curve, Pace, Side
from mainspring.training.planning.subject import Subject, copied, optimiser_like

_POINTS = (2, 16, 128)  # rows of a pass, beside those of a whole batch and of a process's share of it
_TIMED_S, _PASSES = 0.08, 4  # of each number of rows, at least
_USUAL = 0.1  # the quantile that is taken: other work on the machine makes passes longer, never shorter
_LONG_S = 0.5  # a pass of more rows than took this is not measured
_MOST_BUSY = 15  # processes that use other cores
_BUSY = """
import os
os.environ.update(OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1", OMP_NUM_THREADS="1")
import numpy
rows, parent = numpy.ones((256, 256), numpy.float32), os.getppid()
print(flush=True)
while os.getppid() == parent:
    rows @ rows
"""


def timed(model: Model, subject: Subject, rows: int, cores: int) -> Model:
    """Return the model with the time that its passes take on this machine: in one process, and in one for each core."""
    torch = import_torch()
    before = torch.get_num_threads()
    module = copied(subject.module, lambda each: each.detach().cpu().clone())
    try:
        with torch.random.fork_rng(devices=[]), recomputed(blocks(module).values(), subject.again):
            torch.set_num_threads(cores)
            alone = beside = _side(subject, module, rows)
            if cores > 1:
                torch.set_num_threads(1)
                with _busy(min(cores - 1, _MOST_BUSY)):
                    beside = _side(subject, module, -(-rows // cores))
    finally:
        torch.set_num_threads(before)
    return replace(model, pace=Pace(cores, alone, beside))


@contextmanager
def _busy(count: int) -> Iterator[None]:
    """Keep other cores busy, as the other processes of a training would."""
    command = [sys.executable, "-I", "-c", _BUSY]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(count)]
    try:
        for each in running:
            if each.stdout is not None:
                each.stdout.readline()
        yield
    finally:
        for each in running:
            each.kill()
            each.communicate()


def _side(subject: Subject, module: Any, rows: int) -> Side:
    """Return the times of passes of up to so many rows, and of an optimiser's step, measured by turns."""
    counts = sorted({*(each for each in _POINTS if each < rows), max(2, rows)})
    kept = _prepared(subject, module, counts)
    times: dict[int, list[float]] = {count: [] for count in kept}
    update = _updating(subject, module)
    updates: list[float] = []
    ends = time.perf_counter() + _TIMED_S * (len(kept) + 1)
    while len(updates) < _PASSES or time.perf_counter() < ends:
        for count in kept:
            times[count].append(_pass(subject, module, count))
        updates.append(update())
    usual = {count: _usual(each) for count, each in times.items()}
    spread = max(sorted(each)[int(0.9 * len(each))] / usual[count] for count, each in times.items())
    return Side(Curve(tuple(usual.items())), _usual(updates), spread)


def _prepared(subject: Subject, module: Any, counts: list[int]) -> list[int]:
    """Do a first pass of each number of rows, which chooses kernels; return those that do not take long."""
    kept: list[int] = []
    for count in counts:
        _pass(subject, module, count)
        kept.append(count)
        if _pass(subject, module, count) > _LONG_S:
            break
    return kept


def _pass(subject: Subject, module: Any, rows: int) -> float:
    """Return the seconds of a forward and a backward pass."""
    begun = time.perf_counter()
    module.zero_grad(set_to_none=True)
    inputs, targets = subject.batch(rows)
    with subject.forward("cpu"):
        value = subject.loss(module(*inputs), targets)
    value.item()
    value.backward()
    return time.perf_counter() - begun


def _updating(subject: Subject, module: Any) -> Callable[[], float]:
    """Return what takes the seconds of an optimiser's step; 0.0 where the optimiser cannot be made again."""
    weights = [each for each in module.parameters() if each.requires_grad and each.grad is not None]
    try:
        optimiser = optimiser_like(subject.optimiser, weights)
        optimiser.step()  # makes its states
    except (NotImplementedError, RuntimeError, TypeError, ValueError):
        return lambda: 0.0

    def update() -> float:
        begun = time.perf_counter()
        optimiser.step()
        return time.perf_counter() - begun

    return update


def _usual(times: list[float]) -> float:
    return sorted(times)[int(_USUAL * len(times))]
