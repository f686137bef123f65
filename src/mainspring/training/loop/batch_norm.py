"""Batch normalisation over the rows of all processes, on any device.

PyTorch's own SyncBatchNorm runs on GPUs alone and replaces the modules. Here a module is kept, and computes in another
way while it is trained. Source of the method: Ioffe and Szegedy, 2015, arXiv:1502.03167, with mean and variance of the
whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any

from mainspring.training.loop.tensors import import_torch


@dataclass(slots=True)
class Counting:
    """Number of this rank's rows that count, the first ones; `None`: all. Others are computed only to keep step."""

    rows: int | None = None


@contextmanager
def synchronised(module: Any, counting: Counting, group: Any = None) -> Iterator[None]:
    """Normalise by the rows of all ranks of a group inside, wherever the module normalises by those of a batch."""
    norm = import_torch().nn.modules.batchnorm._BatchNorm
    found = [each for each in module.modules() if isinstance(each, norm)]
    for each in found:
        each.forward = MethodType(partial(_forward, counting, group), each)
    try:
        yield
    finally:
        for each in found:
            del each.forward


def _forward(counting: Counting, group: Any, self: Any, rows: Any) -> Any:
    if not self.training:
        return type(self).forward(self, rows)
    torch = import_torch()
    self._check_input_dim(rows)
    total = partial(torch.distributed.nn.functional.all_reduce, group=group)
    over = [0, *range(2, rows.ndim)]
    shape = [1, -1, *[1] * (rows.ndim - 2)]
    computed = rows if rows.dtype in (torch.float32, torch.float64) else rows.float()
    counted = slice(counting.rows)
    count = computed.new_tensor([float(computed[counted].numel() // rows.shape[1])])
    torch.distributed.all_reduce(count, group=group)
    some = count.clamp(min=1)  # of a part of a batch no rank may have rows
    mean = total(computed[counted].sum(over)) / some
    centred = computed - mean.view(shape)
    # From centred values: sums of squares would lose digits.
    variance = total((centred[counted] ** 2).sum(over)) / some
    if self.track_running_stats and self.running_mean is not None:
        with torch.no_grad():
            seen = (count > 0).sum().double()
            self.num_batches_tracked.add_(seen.to(torch.int64))
            share = seen / self.num_batches_tracked.clamp(min=1) if self.momentum is None else seen * self.momentum
            unbiased = variance * (count / (count - 1).clamp(min=1))
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), share.to(self.running_mean.dtype))
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), share.to(self.running_var.dtype))
    made = centred * torch.rsqrt(variance + self.eps).view(shape)
    if self.affine:
        made = made * self.weight.view(shape) + self.bias.view(shape)
    return made.to(rows.dtype)
