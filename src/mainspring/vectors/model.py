"""Values of vector search: what an index is for, what it holds, and what it finds.

Vectors are float32. A score is a similarity: more is nearer, whatever the metric.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import numpy as np

from mainspring.core.errors import Conflict, Invalid, NotFound, Unavailable
from mainspring.core.schema import Schema, check_schema

Metric = Literal["cosine", "dot", "euclidean"]
METRICS: tuple[Metric, ...] = ("cosine", "dot", "euclidean")
Mode = Literal["vectors", "words", "hybrid"]  # by meaning, by words, by both
MODES: tuple[Mode, ...] = ("vectors", "words", "hybrid")
MOST_DIMENSIONS = 8192
Floats = np.ndarray[Any, np.dtype[np.float32]]

HISTORY = 50  # builds


class EncoderAway(Unavailable):
    """An encoder's service gives no vectors, for a reason that is none of the texts'."""


class IndexSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Specification of an index, which never changes.

    Args:
        dimension: Length of each vector.
        metric: Similarity of two vectors: "cosine"; "dot", their inner product; "euclidean", their negated distance.
        fields: Columns of each entry that filters may name, with their types.
    """

    dimension: int
    metric: Metric = "cosine"
    fields: Schema = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.dimension <= MOST_DIMENSIONS:
            raise Invalid(f"An index has {self.dimension} dimensions.", fix=f"give it 1 to {MOST_DIMENSIONS}.")
        if self.metric not in METRICS:
            raise Invalid(f"An index has the metric {self.metric!r}.", fix=f"write one of {', '.join(METRICS)}.")
        check_schema(self.fields, "An index")


@dataclass(frozen=True, slots=True)
class Entries:
    """Entries of an index, by column.

    Attributes:
        ids: Their names, each once.
        vectors: Shape (len(ids), dimension).
        fields: Field -> values, `None` for null. A field that is absent is null in all entries.
    """

    ids: Sequence[str]
    vectors: Floats
    fields: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)


class Hit(msgspec.Struct, frozen=True, gc=False):
    """An entry that was found.

    Attributes:
        score: Similarity to the query: the cosine, the inner product, or the negated distance.
    """

    id: str
    score: float


def checked(spec: IndexSpec, vectors: Any, owner: str = "A vector") -> Floats:
    """Return vectors as float32 in rows, shape (n, dimension).

    Raises:
        Invalid: They have another dimension, a value is no finite number, or a vector of zeros has no cosine.
    """
    try:
        rows = np.ascontiguousarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise Invalid(f"{owner} is not of numbers: {error}.") from error
    if rows.ndim != 2 or rows.shape[1] != spec.dimension:
        shape = "x".join(map(str, rows.shape))
        raise Invalid(
            f"{owner} has the shape {shape}, and the index {spec.dimension} dimensions.",
            fix="embed with the encoder that the index was built with, or build it anew.",
        )
    squares = float(np.vdot(rows, rows))  # quickly: a value that is no finite number makes it none
    if not math.isfinite(squares) and not np.isfinite(rows).all():
        unfit = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        raise Invalid(f"{owner} has a value that is no finite number, in row {unfit[0]}.")
    if spec.metric == "cosine" and not (len(rows) == 1 and squares > 0):
        nonzero = rows.any(axis=1)
        if not nonzero.all():
            raise Invalid(f"{owner} is of zeros alone, in row {nonzero.argmin()}, and has no cosine.")
    return rows


def no_index(name: str) -> NotFound:
    """Return the error for an index that is not in a store."""
    return NotFound(f"There is no index {name!r}.", fix="build it first.")


def other_spec(name: str) -> Conflict:
    """Return the error for an index that is there with another specification than the asked one."""
    return Conflict(f"The index {name!r} is there with another specification.", fix="drop it, or take another name.")


class GateMark(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a gate of a new index. `value` is `None` where it could not be measured."""

    gate: str
    passed: bool
    value: float | None = None


class PastBuild(msgspec.Struct, frozen=True, kw_only=True):
    """A build as the history has it.

    Attributes:
        index: Name of its index.
        gates: Of a new index; empty where an index was only brought up to date, or there are none.
        used: Whether searches used it; a build that does not pass its gates is not.
    """

    index: str
    source_version: int
    table_version: int
    documents: int
    chunks: int
    embedded: int
    added: int
    removed: int
    built_at: int
    seconds: float
    gates: tuple[GateMark, ...] = ()
    used: bool = True


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """Record of a collection's build: what searches use, and what it was made from.

    Attributes:
        index: Name of the index that is searched.
        source_version: Version of the source's table whose documents it has.
        table_version: Version of the table of chunks.
        encoder: Digest of the encoder, which queries are embedded with as well.
        recipe: Digest of chunker and encoder.
        embedded: Chunks for which the encoder was asked; the vectors of all others were known.
        refused: Reason -> number of documents that are not in the collection.
        examples: Document -> reason, of some that were refused.
        built_at: UTC epoch microseconds.
        words: Whether there is an index of the chunks' words, of the same name.
        history: The builds until this one, which is the first; without those that changed nothing, at most `HISTORY`.
    """

    collection: str
    index: str
    spec: IndexSpec
    source: str
    source_version: int
    table_version: int
    encoder_name: str
    encoder: str
    chunker: str
    recipe: str
    documents: int
    chunks: int
    embedded: int = 0
    added: int = 0
    removed: int = 0
    refused: dict[str, int] = msgspec.field(default_factory=dict)
    examples: dict[str, str] = msgspec.field(default_factory=dict)
    built_at: int = 0
    seconds: float = 0.0
    words: bool = False
    history: tuple[PastBuild, ...] = ()

    def past(self, gates: Sequence[GateMark] = (), *, used: bool = True) -> PastBuild:
        """Return this build as the history has it."""
        names = [each for each in PastBuild.__struct_fields__ if each not in ("gates", "used")]
        return PastBuild(**{name: getattr(self, name) for name in names}, gates=tuple(gates), used=used)

    def after(self, past: PastBuild) -> tuple[PastBuild, ...]:
        """Return the history of this build with another one before it."""
        return (past, *self.history)[:HISTORY]
