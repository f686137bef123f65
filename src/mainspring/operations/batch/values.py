"""Values of a batch run: its request, the facts of a written chunk, and the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
import pyarrow as pa

from mainspring.data.model import REASON
from mainspring.serving.batch.plan import NOW, Plan
from mainspring.serving.batch.scoring import Scored
from mainspring.stats.drift import Verdict
from mainspring.stats.sketches import Sketch


@dataclass(frozen=True, slots=True)
class Request:
    """Request of a batch run.

    Attributes:
        target: An endpoint, for its live version, or `MODEL:VERSION`.
        source: A lake's table, Parquet files (a file, a folder or a pattern), or a SELECT over tables of the lake.
        output: A lake's table, or a folder.
        as_of: `now`, an instant, or the column with each row's.
        keep: Input columns that the predictions have; empty for all that are no inputs of the model.
        new: Whether only what is new since the last run is read.
        asked_by: Id of what asks, such as a job: asked again, it gets the report of its own finished run.
        threads: Number of threads of this process; 0 for one per core.
        chunk_rows: Rows of a chunk; 0 for the default.
    """

    target: str
    source: str
    output: str
    as_of: str = NOW
    keep: tuple[str, ...] = ()
    new: bool = False
    asked_by: str = ""
    threads: int = 0
    chunk_rows: int = 0


class Counts(msgspec.Struct, frozen=True):
    """Stored form of `stats.sketches.Sketch`."""

    columns: tuple[str, ...]
    counts: list[list[int]]
    bins: list[list[int]]
    sums: list[list[float]]

    @classmethod
    def of(cls, sketch: Sketch) -> Counts:
        return cls(sketch.columns, sketch.counts.tolist(), sketch.bins.tolist(), sketch.sums.tolist())

    def sketch(self) -> Sketch:
        columns = len(self.columns)
        return Sketch(
            self.columns,
            np.array(self.counts, np.int64).reshape(columns, -1),
            np.array(self.bins, np.int64).reshape(columns, -1),
            np.array(self.sums, np.float64).reshape(columns, -1),
        )


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of a written chunk; stored with its predictions."""

    number: int
    predicted: int
    reasons: dict[str, int] = {}  # of the quarantined rows
    sampled: Counts | None = None

    @classmethod
    def of(cls, number: int, scored: Scored) -> Chunk:
        return cls(
            number=number,
            predicted=scored.predictions.num_rows,
            reasons=dict(Counter(map(str, scored.refused[REASON].to_pylist()))),
            sampled=None if scored.sketch is None else Counts.of(scored.sketch),
        )

    @property
    def refused(self) -> int:
        return sum(self.reasons.values())


class BatchReport(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a batch run.

    Attributes:
        rows: Rows of the input; each was predicted or quarantined.
        resumed: Chunks that an earlier attempt had written.
        rows_per_s: Of this attempt, without those of an earlier one.
        cost: Price of this attempt's time; `None` if no price is set.
        sampled: Rows whose distribution was compared with training's.
        drift: Comparison of each column; empty if the bundle has no reference.
    """

    run: str
    target: str
    model: str
    version: str
    digest: str
    source: str
    output: str
    as_of: str
    at: int | None
    rows: int
    predicted: int
    quarantined: int
    reasons: dict[str, int]
    chunks: int
    resumed: int
    seconds: float
    rows_per_s: float
    cost: float | None
    currency: str
    sampled: int
    drifted: tuple[str, ...]
    drift: tuple[Verdict, ...]
    ended_at: int


class Output(Protocol):
    """Place of predictions, in which each chunk appears whole and once."""

    @property
    def name(self) -> str:
        """The folder or the table."""
        ...

    @property
    def scratch(self) -> Path:
        """Folder of this machine for a run's own copy of its input."""
        ...

    def runs(self) -> list[Plan]:
        """Return the plans of all runs, the oldest first.

        Raises:
            Conflict: The place holds something else.
        """
        ...

    def report(self, plan: Plan) -> BatchReport | None:
        """Return a run's report; `None` if it is unfinished."""
        ...

    def begin(self, plan: Plan) -> None:
        """Store a plan; durable on return."""
        ...

    def done(self, plan: Plan, numbers: Iterable[int]) -> dict[int, Chunk]:
        """Return the facts of those of the chunks that are written, by number."""
        ...

    def write(self, plan: Plan, number: int, scored: Scored) -> Chunk:
        """Write a chunk, unless it is written; durable on return. Threads and processes may call this at once."""
        ...

    def finish(self, plan: Plan, report: BatchReport) -> None:
        """Store the report, which ends the run."""
        ...


def together(chunks: Iterable[Chunk]) -> tuple[int, Counter[str], Sketch | None]:
    """Return the number of predictions, of quarantined rows by reason, and the sketch of all chunks."""
    predicted, reasons = 0, Counter[str]()
    sketch: Sketch | None = None
    for chunk in chunks:
        predicted += chunk.predicted
        reasons.update(chunk.reasons)
        if chunk.sampled is not None:
            found = chunk.sampled.sketch()
            sketch = found if sketch is None else sketch + found
    return predicted, reasons, sketch


def plain(rows: pa.Table, words: Sequence[str]) -> pa.Table:
    """Return rows whose dictionary columns `words` are text."""
    for name in words:
        place = rows.schema.get_field_index(name)
        rows = rows.set_column(place, pa.field(name, pa.string()), rows[name].cast(pa.string()))
    return rows
