"""Rows of a loader as libraries of trees take them: a matrix with one label a row, each rank's part."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from mainspring.core.errors import Invalid
from mainspring.training.loading.loader import Loader
from mainspring.training.loop.world import World, joined, launched

if TYPE_CHECKING:
    from mainspring.training.loading.columns import Values

Source = Loader | tuple[Any, Any]  # or inputs and labels in memory
_PIECE = 65_536  # rows handed over at a time
SAMPLE = 200_000  # rows by which values are binned


class InMemory:
    """Inputs and labels in memory, as a loader has them.

    Args:
        inputs: Numbers of shape (rows, columns): an array, or a frame.
        labels: Numbers of shape (rows,).

    Raises:
        Invalid: They are not numbers, or not as many.
    """

    targets = True
    categories: Mapping[str, Sequence[str]] = MappingProxyType({})

    def __init__(self, inputs: Any, labels: Any) -> None:
        try:
            self._inputs, self._labels = np.asarray(inputs, np.float64), np.asarray(labels, np.float64)
        except (TypeError, ValueError) as error:
            raise Invalid(f"Rows of trees are numbers: {error}.", fix="encode texts and categories.") from error
        if self._inputs.ndim != 2 or len(self._inputs) != len(self._labels):
            raise Invalid(
                f"There are inputs of shape {self._inputs.shape} and labels of shape {self._labels.shape}.",
                fix="give a matrix, and a label for each of its rows.",
            )
        named = getattr(inputs, "columns", range(self._inputs.shape[1]))
        self._columns = [each if isinstance(each, str) else f"x{each}" for each in named]

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def classes(self) -> int:
        """Number of classes, if the labels number them from 0; else 0."""
        numbers = np.isfinite(self._labels) & (self._labels >= 0) & (self._labels == np.floor(self._labels))
        return int(self._labels.max()) + 1 if len(self) and bool(numbers.all()) else 0

    def matrix_columns(self) -> list[str]:
        return self._columns

    def digest(self) -> str:
        sha = hashlib.sha256(repr((self._columns, self._inputs.shape)).encode())
        for each in (self._inputs, self._labels):
            sha.update(np.ascontiguousarray(each).view(np.uint8).data)
        return sha.hexdigest()

    def stored(self, batch_size: int, *, begin: int, end: int) -> Iterator[tuple[Values, Values]]:
        for first in range(begin, end, batch_size):
            until = min(first + batch_size, end)
            yield self._inputs[first:until], self._labels[first:until]

    def batches(self, batch_size: int) -> Iterator[tuple[Values, Values]]:
        order = np.random.default_rng(0).permutation(len(self))
        for first in range(0, len(self), batch_size):
            some = order[first : first + batch_size]
            yield self._inputs[some], self._labels[some]


class TreeRows:
    """Rows with one matrix and one label.

    Args:
        source: A loader, or inputs and labels in memory.
        world: Its ranks have consecutive parts of the rows, equal but for a row.

    Raises:
        Invalid: The loader has several inputs, no matrix, no label or fewer rows than there are ranks.
    """

    def __init__(self, source: Source, world: World) -> None:
        self.loader: Any = source if isinstance(source, Loader) else InMemory(*source)
        loader, self.columns = self.loader, self.loader.matrix_columns()
        if not loader.targets:
            raise Invalid("The loader has no targets.", fix="name their column: ms.Loader(..., targets=...).")
        if len(loader) < world.size:
            raise Invalid(f"{len(loader)} rows cannot be parted among {world.size} processes.", fix="use fewer.")
        self.begin, self.end = (len(loader) * each // world.size for each in (world.rank, world.rank + 1))

    def __len__(self) -> int:
        return self.end - self.begin

    def pieces(self, size: int = _PIECE) -> Iterator[tuple[Values, Values]]:
        """Yield this rank's rows in their order: a matrix, and labels of shape (rows,)."""
        for inputs, labels in self.loader.stored(size, begin=self.begin, end=self.end):
            yield inputs, _flat(labels)

    def sample(self) -> tuple[Values, Values]:
        """Return the rows by which values are binned, the same on every rank: all, or some at random."""
        found = []
        for batch in self.loader.batches(min(len(self.loader), _PIECE)):
            found.append(batch)
            if sum(len(inputs) for inputs, _ in found) >= SAMPLE:
                break
        inputs, labels = (np.concatenate(each)[:SAMPLE] for each in zip(*found, strict=True))
        return inputs, _flat(labels)

    @property
    def classes(self) -> int:
        """Number of classes, 0 where that is not known."""
        if isinstance(self.loader, InMemory):
            return self.loader.classes
        return len(self.loader.categories.get(self.loader.target_column(), ()))


def _flat(labels: Values) -> Values:
    if labels.ndim > 1 and labels.shape[1] != 1:
        raise Invalid(f"There are {labels.shape[1]} targets.", fix="fit one model for each.")
    return labels.reshape(-1)


def ranks() -> World:
    """Return the world of this process, joined over gloo where a launcher started several."""
    if launched().size == 1:
        return World()
    from mainspring.training.loop.tensors import import_torch

    return joined(import_torch().device("cpu"))


def address(world: World, main: str) -> str:
    """Return this rank's address to the others: loopback, or that of the interface towards the first rank."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((socket.gethostbyname(main), 9))  # sends nothing
        own = str(probe.getsockname()[0])
    return "127.0.0.1" if all(each == own for each in world.gather(own)) else own


def free_port(host: str) -> int:
    """Return a port of an address that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
