"""Where functions are computed at ingestion: in a process of this machine, or on an engine's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import pyarrow as pa

from mainspring.features.functions.columns import answered
from mainspring.features.functions.messages import Answer
from mainspring.features.functions.model import FeatureFunction
from mainspring.features.functions.process import FunctionProcesses

Computed = tuple[pa.Table, pa.Table, Answer]  # the given rows, the outputs, and the answer that brought them


class FunctionRunner(Protocol):
    """Computes a function for many batches."""

    def run(self, function: FeatureFunction, batches: Iterable[pa.Table]) -> Iterator[Computed]:
        """Yield the outputs of each batch, in order. Few batches are in memory at a time.

        Raises:
            FunctionFailed: As `FunctionProcess.call`.
            Unavailable: The engine does not answer.
        """
        ...


class LocalRunner:
    """Computes one batch after the other in a process of this machine."""

    def __init__(self, processes: FunctionProcesses) -> None:
        self._processes = processes

    def run(self, function: FeatureFunction, batches: Iterable[pa.Table]) -> Iterator[Computed]:
        process = self._processes.of(function)
        for rows in batches:
            yield rows, *answered(process, rows.select(list(function.columns)))
