"""Rows of a loader as libraries of trees take them: a matrix with one label a row, each rank's part."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from mainspring.core.errors import Invalid
from mainspring.training.loading.loader import Loader
from mainspring.training.loop.world import World, joined, launched

if TYPE_CHECKING:
    from mainspring.training.loading.columns import Values

_PIECE = 65_536  # rows handed over at a time
SAMPLE = 200_000  # rows by which values are binned


class TreeRows:
    """Rows of a loader with one matrix and one label.

    Args:
        world: Its ranks have consecutive parts of the rows, equal but for a row.

    Raises:
        Invalid: The loader has several inputs, no matrix, no label or fewer rows than there are ranks.
    """

    def __init__(self, loader: Loader, world: World) -> None:
        self.loader, self.columns = loader, loader.matrix_columns()
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
        """Number of the texts of the label, 0 where it is no text."""
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
