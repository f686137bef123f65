"""Batches of rows that a loader reads, in the form of those in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mainspring.core.errors import Invalid
from mainspring.training.loading.loader import Loader
from mainspring.training.loading.pace import Pace
from mainspring.training.loop.batches import Rows
from mainspring.training.loop.tensors import import_torch

if TYPE_CHECKING:
    from mainspring.training.loading.epoch import Epoch


class Streamed:
    """Rows of a loader, as `Rows` has them; the number of a row is its position in the epoch."""

    def __init__(self, loader: Loader) -> None:
        self._torch = import_torch()
        self._loader = loader
        self._epoch: Epoch | None = None
        self._key: tuple[int, int, int] | None = None  # batch size, seed and number of the epoch
        self._next: Epoch | None = None  # begun when the epoch has no more windows to decode
        self._pace = Pace()
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
        return {f"data.{name}": value for name, value in self._pace.since().items()}

    def bound(self) -> str:
        """Return whether training was bound by its data or by computing, and the remedy."""
        return self._pace.bound(self._loader.threads)

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
