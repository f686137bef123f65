"""Batches of rows, in an order that a seed and a position determine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mainspring.core.errors import Invalid
from mainspring.training.loop.tensors import import_torch

_WHOLE = 64 << 20  # bytes that a digest covers; of larger data, evenly spaced rows


class Rows:
    """Rows to train or to validate on.

    Args:
        source: The tuple `(inputs, targets)`, where each is a tensor or an array of shape (rows, ...), or for inputs
            also a tuple of them; or a dataset with `len()` and `[number] -> (inputs, target)`.

    Raises:
        Invalid: There are no rows, or the numbers of inputs and targets differ.
    """

    def __init__(self, source: Any) -> None:
        self._torch = import_torch()
        self._dataset = None if isinstance(source, tuple) else source
        self._inputs: list[Any] = []
        self._one = True
        if self._dataset is None:
            if len(source) != 2:
                raise Invalid(f"Rows are (inputs, targets), not {len(source)} values.")
            inputs, targets = source
            self._one = not isinstance(inputs, tuple | list)
            self._inputs = [self._torch.as_tensor(array) for array in ([inputs] if self._one else inputs)]
            self._targets = self._torch.as_tensor(targets)
            counts = [len(tensor) for tensor in (*self._inputs, self._targets)]
            if len(set(counts)) > 1:
                raise Invalid(
                    f"Inputs and targets have different numbers of rows: {counts}.", fix="give the same number of each."
                )
        if not len(self):
            raise Invalid("There are no rows to train or to validate on.")

    def __len__(self) -> int:
        return len(self._targets) if self._dataset is None else len(self._dataset)

    def batch(self, numbers: Any, device: Any) -> tuple[tuple[Any, ...], Any]:
        """Return the inputs, as arguments of the module, and the targets of the given rows, on the device."""
        if self._dataset is None:
            first, *others = self._inputs
            inputs = (first[numbers], *(tensor[numbers] for tensor in others)) if others else (first[numbers],)
            targets = self._targets[numbers]
        else:
            collate = self._torch.utils.data.default_collate
            collated, targets = collate([self._dataset[number] for number in numbers.tolist()])
            inputs = tuple(collated) if isinstance(collated, tuple | list) else (collated,)
        if device.type == "cpu":
            return inputs, targets
        return tuple(tensor.to(device, non_blocking=True) for tensor in inputs), targets.to(device, non_blocking=True)

    def batches(self, seed: int, epoch: int, batch_size: int, start: int = 0) -> Sequence[Any]:
        """Return the numbers of the rows of each batch of an epoch, from batch `start` on."""
        found: Sequence[Any] = self.order(seed, epoch).split(batch_size)
        return found[start:]

    def stored(self, batch_size: int) -> Sequence[Any]:
        """Return the numbers of all rows, in stored order, in batches."""
        found: Sequence[Any] = self._torch.arange(len(self)).split(batch_size)
        return found

    def order(self, seed: int, epoch: int) -> Any:
        """Return the order of the rows in an epoch, int64 of shape (rows,): a function of seed and epoch, on any
        machine.
        """
        drawn = np.random.default_rng([seed % 2**63, epoch]).integers(2**63)
        generator = self._torch.Generator().manual_seed(int(drawn))
        return self._torch.randperm(len(self), generator=generator)

    def in_order(self, batch_size: int, device: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
        """Yield all rows once, in stored order, in batches."""
        for numbers in self.stored(batch_size):
            yield self.batch(numbers, device)

    def digest(self) -> str:
        """Return a digest that identifies the rows: over all bytes, or over evenly spaced rows of large data.

        A dataset is identified by its class and length only.
        """
        sha = hashlib.sha256()
        if self._dataset is not None:
            sha.update(f"{type(self._dataset).__qualname__} {len(self)}".encode())
            return sha.hexdigest()
        for tensor in (*self._inputs, self._targets):
            sha.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            every = max(1, tensor.numel() * tensor.element_size() // _WHOLE)
            rows = tensor[::every].cpu().contiguous().reshape(-1)
            sha.update(memoryview(rows.view(self._torch.uint8).numpy()))
        return sha.hexdigest()

    def speed(self) -> dict[str, float]:
        """Return no metrics: rows in memory are not waited for."""
        return {}

    def bound(self) -> str:
        """Return nothing."""
        return ""

    def close(self) -> None:
        """Do nothing."""
