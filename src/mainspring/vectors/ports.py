"""Ports of vector search: indexes of vectors and of texts, stores that keep them, encoders and cross-encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from mainspring.core.expr.tree import Node
from mainspring.core.schema import Schema
from mainspring.vectors.model import Build, Entries, Floats, Hit, IndexSpec


class VectorIndex(Protocol):
    """One index of vectors with fields. Threads may share it; one process writes, others see a write soon.

    What `upsert` or `delete` has returned from survives a kill of the process and a loss of power.
    """

    @property
    def spec(self) -> IndexSpec:
        """The specification that it was created with."""
        ...

    def upsert(self, entries: Entries) -> None:
        """Add entries; those whose ids are known replace the old ones whole. All of them or none.

        Raises:
            Invalid: A vector is not as `model.checked` wants it, a field is unknown or of another type, or an id is
                empty, longer than 512 characters, has NUL or stands twice.
        """
        ...

    def delete(self, ids: Sequence[str]) -> int:
        """Delete entries and return how many were there. Their bytes are gone from the store after `compact`."""
        ...

    def search(self, vectors: Floats, k: int, *, where: Node | None = None, effort: float = 1.0) -> list[list[Hit]]:
        """Return the nearest entries of each vector, the nearest first, ties by id; fewer than `k` only where fewer
        pass the filter.

        Args:
            vectors: Shape (queries, dimension).
            where: Condition on fields that each hit fulfils; one that is null is not fulfilled.
            effort: Factor on the work of an approximate index: more finds more of the true neighbours.

        Raises:
            Invalid: A vector is not as `model.checked` wants it, `k` is below 1, `effort` is no positive number, or the
                condition is not one on the index's fields.
        """
        ...

    def get(self, ids: Sequence[str]) -> Entries:
        """Return the entries among `ids` that are there, in the order asked. Vectors are as they were given, but
        those of a cosine may have length 1."""
        ...

    def ids(self, *, after: str = "", count: int = 1000, where: Node | None = None) -> list[str]:
        """Return the next ids after one, sorted."""
        ...

    def count(self, where: Node | None = None) -> int:
        """Return how many entries there are."""
        ...

    def compact(self) -> None:
        """Write the store anew where that saves space or time, without what was deleted. Searches go on."""
        ...

    def size_bytes(self) -> int:
        """Return how many bytes it takes where it is stored."""
        ...

    def close(self) -> None:
        """Release it. Idempotent."""
        ...


class VectorStore(Protocol):
    """Indexes by name."""

    def create(self, name: str, spec: IndexSpec) -> VectorIndex:
        """Create an empty index; one that is there with an equal specification is opened.

        Raises:
            Conflict: It is there with another specification.
        """
        ...

    def open(self, name: str) -> VectorIndex:
        """Open an index.

        Raises:
            NotFound: There is none of that name.
        """
        ...

    def names(self) -> list[str]:
        """Return the names of all, sorted."""
        ...

    def drop(self, name: str) -> None:
        """Delete an index with all its bytes. Nothing happens where there is none."""
        ...


class TextIndex(Protocol):
    """One index of texts by their words, ranked by BM25; durable as a `VectorIndex`.

    The words are those of `words.words`. The score is the sum over the query's different words of

        ln(1 + (N - n + 0.5) / (n + 0.5)) * f * 2.2 / (f + 1.2 * (0.25 + 0.75 * length / mean length))

    (Robertson and Zaragoza 2009 with k1 = 1.2, b = 0.75 and the idf of Lucene), of N texts of which n have the word, f
    times in this text. An index may round lengths from 40 words on down by an eighth, and count deleted texts until
    `compact`.
    """

    @property
    def fields(self) -> Schema:
        """Columns of each text that filters may name."""
        ...

    def upsert(self, ids: Sequence[str], texts: Sequence[str], fields: Mapping[str, Sequence[Any]]) -> None:
        """Add texts with fields; those whose ids are known replace the old ones whole. All of them or none.

        Raises:
            Invalid: A field is unknown or of another type, or an id is not as a `VectorIndex` wants it.
        """
        ...

    def delete(self, ids: Sequence[str]) -> int:
        """Delete texts and return how many were there. Their bytes are gone from the store after `compact`."""
        ...

    def search(self, queries: Sequence[str], k: int, *, where: Node | None = None) -> list[list[Hit]]:
        """Return the texts that share words with each query, the best first, ties by id. A query is words alone: none
        of its characters has a meaning of its own.

        Raises:
            Invalid: `k` is below 1, a query has over 1024 different words, or the condition is none that
                `conditions.condition` takes.
        """
        ...

    def count(self) -> int:
        """Return how many texts there are."""
        ...

    def compact(self) -> None:
        """Write the store anew without what was deleted. Searches go on."""
        ...

    def size_bytes(self) -> int:
        """Return how many bytes it takes where it is stored."""
        ...

    def close(self) -> None:
        """Release it. Idempotent."""
        ...


class TextStore(Protocol):
    """Text indexes by name."""

    def create(self, name: str, fields: Schema) -> TextIndex:
        """Create an empty index; one that is there with equal fields is opened.

        Raises:
            Conflict: It is there with other fields.
        """
        ...

    def open(self, name: str) -> TextIndex:
        """Open an index.

        Raises:
            NotFound: There is none of that name.
        """
        ...

    def names(self) -> list[str]:
        """Return the names of all, sorted."""
        ...

    def drop(self, name: str) -> None:
        """Delete an index with all its bytes. Nothing happens where there is none."""
        ...


class Encoder(Protocol):
    """Vectors of texts. Threads may share it."""

    @property
    def dimension(self) -> int:
        """Length of each vector."""
        ...

    @property
    def digest(self) -> str:
        """Digest of all that its vectors depend on: another digest means other vectors."""
        ...

    @property
    def most_tokens(self) -> int | None:
        """Tokens of a text that count, the rest is cut off; `None`: all."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, as `most_tokens` counts them."""
        ...

    def encode(self, texts: Sequence[str]) -> Floats:
        """Return the vectors of texts, shape (len(texts), dimension), of length 1. A text's vector does not depend on
        the texts beside it.

        Raises:
            Invalid: A text is empty.
            Unavailable: The encoder is elsewhere, and does not answer.
        """
        ...


class CrossEncoder(Protocol):
    """Scores of texts for a query, which are read together. Threads may share it."""

    @property
    def digest(self) -> str:
        """Digest of all that its scores depend on."""
        ...

    def score(self, query: str, texts: Sequence[str], *, within_s: float) -> list[float]:
        """Return how well each text answers the query, shape (len(texts),), finite; more is better. Equal texts have
        equal scores, whatever stands beside them.

        Raises:
            Unavailable: The scores are not there within the time.
            Invalid: What has it refuses the texts.
            Denied: What has it refuses the caller.
        """
        ...


class Builds(Protocol):
    """Newest build of each collection."""

    def get(self, collection: str) -> Build | None:
        """Return the build that searches use; `None` if there is none yet."""
        ...

    def save(self, build: Build) -> None:
        """Make a build the one that searches use, in place of the one before, in one transaction."""
        ...

    def remove(self, collection: str) -> None:
        """Remove the record of a collection; nothing happens where there is none."""
        ...

    def all(self) -> list[Build]:
        """Return the builds of all collections, by name."""
        ...
