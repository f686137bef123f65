"""A version whose variants are measured: where its rows come from, and how the quality of a variant is judged."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mainspring.operations.optimise.model import Quality
from mainspring.registry.model import Bundle, ModelVersion
from mainspring.training.frames import Array
from mainspring.training.optimise.variants import Variant

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """The variants that are wanted, and how they are measured.

    Attributes:
        only: Names; by default all that need no training of the network.
        retrain: Whether those that do are wanted too.
        epochs: Of their training; by default half of the training function's.
        memory: Whether to measure the memory of each, in a process of its own.
        device_memory: Bytes of the memory of an edge device.
        rows: File with rows of a model of tensors, or with texts of an encoder.
    """

    target: str
    only: Collection[str] = ()
    retrain: bool = False
    epochs: int | None = None
    memory: bool = True
    device_memory: int = 256 << 20
    rows: Path | None = None

    def wants(self, name: str) -> bool:
        """Return whether a variant is wanted."""
        return not self.only or name in self.only


@dataclass(frozen=True, slots=True)
class Judged:
    """The quality of a variant.

    Attributes:
        worst: Largest difference of an answer from the parent's, over 1 + its size.
        cosine: Of vectors to the parent's, on average; `None` for other models.
    """

    quality: Quality
    worst: float
    gates_failed: tuple[str, ...] = ()
    cosine: float | None = None


class Subject(Protocol):
    """A version in ONNX, with the rows that judge its variants."""

    @property
    def metric(self) -> tuple[str, bool]:
        """Name of the metric, and whether higher is better."""
        ...

    @property
    def rows(self) -> int:
        """Number of the rows that judge."""
        ...

    @property
    def judged_on(self) -> str:
        """Those rows, for people."""
        ...

    def calibration(self) -> Mapping[str, Array]:
        """Return rows that do not judge, as inputs of the graph.

        Raises:
            NotConvertible: There are none.
        """
        ...

    def trained(self, wish: Wish, tell: Progress, /) -> Iterator[Variant]:
        """Yield the variants that are trained."""
        ...

    def judged(self, bundle: Bundle) -> Judged:
        """Return the quality of a variant beside the version's."""
        ...

    def apart(self, bundle: Bundle) -> float:
        """Return how far a row's answers are from each other, alone and in batches."""
        ...

    def register(self, variant: Bundle, made: Mapping[str, Any], origin: Mapping[str, str]) -> ModelVersion:
        """Register a variant as a version.

        Args:
            made: How it was made, for the manifest.
            origin: Parameters of the run and tags of the version.
        """
        ...
