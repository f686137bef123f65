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
    """Whether the rows of this rank count; false where it computes a row only to keep step with the others."""

    rows: bool = True


@contextmanager
def synchronised(module: Any, counting: Counting) -> Iterator[None]:
    """Normalise by the rows of all ranks inside the block, wherever the module normalises by those of a batch."""
    norm = import_torch().nn.modules.batchnorm._BatchNorm
    found = [each for each in module.modules() if isinstance(each, norm)]
    for each in found:
        each.forward = MethodType(partial(_forward, counting), each)
    try:
        yield
    finally:
        for each in found:
            del each.forward


def _forward(counting: Counting, self: Any, rows: Any) -> Any:
    if not self.training:
        return type(self).forward(self, rows)
    torch = import_torch()
    self._check_input_dim(rows)
    total = torch.distributed.nn.functional.all_reduce
    over = [0, *range(2, rows.ndim)]
    shape = [1, -1, *[1] * (rows.ndim - 2)]
    computed = rows if rows.dtype in (torch.float32, torch.float64) else rows.float()
    counts = float(counting.rows)
    count = computed.new_tensor([counts * (rows.numel() // rows.shape[1])])
    torch.distributed.all_reduce(count)
    mean = total(computed.sum(over) * counts) / count
    centred = computed - mean.view(shape)
    variance = total((centred**2).sum(over) * counts) / count  # from centred values: sums of squares would lose digits
    if self.track_running_stats and self.running_mean is not None:
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            unbiased = variance * (count / (count - 1).clamp(min=1))
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)
    made = centred * torch.rsqrt(variance + self.eps).view(shape)
    if self.affine:
        made = made * self.weight.view(shape) + self.bias.view(shape)
    return made.to(rows.dtype)
