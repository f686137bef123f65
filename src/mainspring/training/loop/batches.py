"""Batches of rows, in an order that a seed and a position determine."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mainspring.core.errors import Invalid
from mainspring.training.loading.epoch import Epoch, Pace
from mainspring.training.loading.loader import Loader
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


_WAITING = 0.1  # share of the time from which on a training is bound by its data


class Streamed:
    """Rows of a loader, as `Rows` has them; the number of a row is its position in the epoch."""

    def __init__(self, loader: Loader) -> None:
        self._torch = import_torch()
        self._loader = loader
        self._epoch: Epoch | None = None
        self._key: tuple[int, int, int] | None = None  # batch size, seed and number of the epoch
        self._next: Epoch | None = None  # begun when the epoch has no more windows to decode
        self._pace, self._before = Pace(), Pace()
        self._began = self._seen = 0.0
        if not len(loader):
            raise Invalid("There are no rows to train or to validate on.")
        if not loader.targets:
            raise Invalid("The loader has no targets.", fix="name their column: ms.Loader(..., targets=...).")

    def __len__(self) -> int:
        return len(self._loader)

    def batches(self, seed: int, epoch: int, batch_size: int, start: int = 0) -> Iterator[Any]:
        """Yield the positions of the rows of each batch of an epoch, from batch `start` on."""
        following = self._next if self._key == (batch_size, seed, epoch - 1) and not start else None
        if following is not None:
            self._next = None
        self._open(following or self._loader.epoch(batch_size, self._pace, seed, epoch))
        self._key = batch_size, seed, epoch
        return self._positions(batch_size, start)

    def stored(self, batch_size: int) -> Iterator[Any]:
        """Yield the positions of all rows, in stored order, in batches."""
        self._open(self._loader.epoch(batch_size, self._pace, shuffled=False))
        return self._positions(batch_size, 0)

    def _open(self, epoch: Epoch) -> None:
        self.close()
        self._epoch, self._key = epoch, None
        self._began = self._began or time.perf_counter()
        self._seen = self._seen or self._began

    def _positions(self, batch_size: int, start: int) -> Iterator[Any]:
        for first in range(start * batch_size, len(self), batch_size):
            yield self._torch.arange(first, min(first + batch_size, len(self)))
        if self._epoch is not None:
            self._epoch.close()
            self._epoch = None

    def batch(self, numbers: Any, device: Any) -> tuple[tuple[Any, ...], Any]:
        """Return the inputs, as arguments of the module, and the targets at consecutive positions, on the device."""
        if self._epoch is None:
            raise Invalid("No epoch was begun.", fix="ask for its batches first.")
        start = int(numbers[0])
        if int(numbers[-1]) - start + 1 != len(numbers):
            raise Invalid("Rows of a loader are taken by consecutive positions.")
        tensors = [self._on(array, device) for array in self._epoch.take(start, start + len(numbers))]
        if self._key is not None and self._next is None and self._epoch.drained:
            batch_size, seed, epoch = self._key
            self._next = self._loader.epoch(batch_size, self._pace, seed, epoch + 1)
            self._next.begin(self._epoch.lanes)
        return tuple(tensors[:-1]), tensors[-1]

    def _on(self, array: Any, device: Any) -> Any:
        tensor = self._torch.from_numpy(array)
        if device.type == "cuda":
            return tensor.pin_memory().to(device, non_blocking=True)
        return tensor if device.type == "cpu" else tensor.to(device)

    def in_order(self, batch_size: int, device: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
        """Yield all rows once, in stored order, in batches."""
        for numbers in self.stored(batch_size):
            yield self.batch(numbers, device)

    def digest(self) -> str:
        """Return a digest that identifies the rows, their order and their form."""
        return self._loader.digest()

    def speed(self) -> dict[str, float]:
        """Return metrics of the time since the last call: rows and megabytes a second, and the share of it that
        training waited for rows.
        """
        now = time.perf_counter()
        taken, seconds = replace(self._pace), max(1e-9, now - self._seen)
        before, self._before, self._seen = self._before, taken, now
        return {
            "data.rows_per_s": (taken.rows - before.rows) / seconds,
            "data.mb_per_s": (taken.bytes - before.bytes) / 1e6 / seconds,
            "data.waiting": min(1.0, (taken.waited_s - before.waited_s) / seconds),
        }

    def bound(self) -> str:
        """Return whether training was bound by its data or by computing, and the remedy."""
        seconds = max(1e-9, time.perf_counter() - self._began)
        share = min(1.0, self._pace.waited_s / seconds)
        if share < _WAITING:
            return f"compute: {share:.0%} of the time was waiting for data."
        threads = self._loader.threads
        speed = self._pace.decoded / max(1e-9, self._pace.decoding_s)
        return (
            f"data: {share:.0%} of the time was waiting for it; a thread decodes {speed:,.0f} rows a second. Fix: "
            f"threads={threads * 2} where processors are idle, fewer columns, or row groups of some 100,000 rows."
        )

    def close(self) -> None:
        """End all threads."""
        for each in (self._epoch, self._next):
            if each is not None:
                each.close()
        self._epoch = self._next = None


def rows_of(source: Any) -> Rows | Streamed:
    """Return the rows to train or to validate on; see `Rows` and `Loader`.

    Raises:
        Invalid: There are no rows, or the numbers of inputs and targets differ.
    """
    return Streamed(source) if isinstance(source, Loader) else Rows(source)
