"""The two sides of the prediction log: serving appends, everybody else reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from mainspring.ledger.model import Batch, Failure, Prediction

if TYPE_CHECKING:
    import pyarrow as pa


class Seals(Protocol):
    """Encrypts personal values."""

    def seal(self, prediction_id: str, values: Mapping[str, Any]) -> bytes:
        """Return the values by name, as only the holder of the key can read them, and for this prediction only."""
        ...


class PredictionLog(Protocol):
    """Append-only log of predictions, written by serving. Thread-safe.

    Attributes:
        sealer: Encrypts personal values; `None`: they are left out.
        unlogged: (endpoint, cause) -> predictions that were answered and are not in the log. The causes: `sampled`
            (not chosen), `disk_full`, `disk_error`, `buffer_full` (the disk is too slow), `closed`.
        unlogged_failures: (endpoint, version) -> failures that could not be written yet.
    """

    sealer: Seals | None
    unlogged: Mapping[tuple[str, str], int]
    unlogged_failures: Mapping[tuple[str, str], int]

    def add(self, batch: Batch, *, sync: bool = False) -> Future[None] | None:
        """Append a batch without waiting. It survives a kill of this process after some milliseconds, a power cut
        after a second. A batch that cannot be written is counted in `unlogged`.

        Args:
            sync: Return a future, which is done when the batch is durable. It fails with `StorageFull` or `Unavailable`
                where it cannot be, and nothing is counted.
        """
        ...

    def fail(self, failures: Sequence[Failure]) -> None:
        """Append failures without waiting, as durable as `add`.

        What cannot be written is summed up by arm, kind and weight (`Failure.count`), counted in `unlogged_failures`
        and written as soon as there is room, so that no arm seems better than it was.
        """
        ...

    def append(self, predictions: Sequence[Prediction]) -> None:
        """Add predictions, and return when a kill of this process cannot undo it.

        Raises:
            StorageFull: No space; none of them was added.
        """
        ...

    def skip(self, endpoint: str, cause: str, rows: int) -> None:
        """Count predictions that are not logged."""
        ...

    def damaged(self) -> int:
        """Return how many parts of the log compaction could not read and has set aside."""
        ...

    def close(self) -> None:
        """Make everything durable and close the files."""
        ...


class Arrivals(NamedTuple):
    """Predictions as they came into a store: batches in no order, and the position behind the last of them."""

    position: int
    batches: Iterator[pa.Table]


class Observations(NamedTuple):
    """Predictions and failures of a rollout, in no order, and the position behind them, a text to give back later."""

    position: str
    batches: Iterator[pa.Table]


class PredictionStore(Protocol):
    """Compacted predictions. Personal values stay sealed unless the caller asks for them.

    Failures are in here too, but only `observations` and `failures` return them.
    """

    def compact(self) -> int:
        """Move appended predictions into the store, each once, and return their number.

        A part of the log that is damaged is set aside and counted, and the rest is moved.
        """
        ...

    def damaged(self) -> int:
        """Return how many damaged parts of the log are still set aside by `compact`."""
        ...

    def tidy(self, *, made_before: int | None = None, replaced_before: int, entries: int = 1_000) -> int:
        """Remove predictions made before an instant, and what the store no longer needs; return how many those were.

        Args:
            made_before: UTC epoch microseconds, by the clock that dated the predictions; `None` removes none.
            replaced_before: UTC epoch microseconds, by the machine's clock: files that were replaced later stay, as
                somebody may read them.
            entries: How many versions of the store keep their entries: positions of `arrivals` go back so far.
        """
        ...

    def find(self, prediction_id: str) -> Prediction:
        """Return one prediction, compacted or not, its personal values sealed.

        Raises:
            NotFound: It was never logged.
        """
        ...

    def revealed(self, prediction: Prediction) -> Prediction:
        """Return a prediction with its sealed values in their places. The caller must authorise the access.

        Raises:
            Corrupt: They were sealed by another installation's key, or there is none.
        """
        ...

    def recent(self, endpoint: str | None = None, limit: int = 50) -> list[Prediction]:
        """Return the newest predictions, compacted or not, newest first, their personal values sealed."""
        ...

    def digests(self) -> set[str]:
        """Return the digests of all bundles that predictions name, compacted or not."""
        ...

    def read(self, endpoint: str, since: int, until: int) -> pa.Table:
        """Return compacted predictions with `since <= at < until`, in order of `at`, for what is computed over many:
        joins with labels, drift. Sealed values are in their places.

        Columns: `id`, `version`, `digest` (string), `at` (timestamp), `latency_us` (int64), `keys`, `request`,
        `statuses` (JSON strings), `features` (JSON string), `score` (float64: the first output), `share` (float64: a
        row stands for 1 / share predictions) and `personal` (a JSON list: which of its values were left out).
        """
        ...

    def arrivals(
        self,
        endpoint: str,
        since: int,
        until: int | None = None,
        *,
        after: int | None = None,
        by: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> Arrivals | None:
        """Return compacted predictions with `since <= at < until`, in bounded memory: what is computed over very many.

        Args:
            after: A position: only what came into the store behind it.
            by: A position that was given not long ago: only what had come by then. Not with `after`.
            columns: Which columns the batches have, by default all.

        Returns:
            Batches of some thousands of rows, with the columns of `read` but `request` and `statuses`; `None` where
            what came after a position cannot be told any more.
        """
        ...

    def failures(self, rollout: str) -> list[Failure]:
        """Return the compacted failures of a rollout, oldest first."""
        ...

    def observations(self, rollout: str, after: str = "", *, since: int = 0) -> Observations | None:
        """Return compacted predictions and failures of a rollout that came into the store behind a position: each
        once, also if the store was tidied in between. In bounded memory.

        Args:
            after: Position of earlier observations; empty for all.
            since: UTC epoch microseconds; older ones are left out, which makes the first reading quick.

        Returns:
            Batches of columns: `id` (of the prediction, or the failure), `version` (string), `at` (timestamp),
            `latency_us` (int64), `share` (float64: a row stands for 1 / share), `weight` (float64: probability with
            which the version was assigned), `unit` (int64: hash of the assigned unit; 0 for several), `row` (int64:
            place within the request; 0 marks requests), `score` (float64: the first output; null for a failure),
            `status` (int64: 200 for a prediction), `kind` (string: of the failure, else null), `count` (int64: requests
            that a failure stands for, else 1). `None` where the position is ahead of the store: a backup was restored.
        """
        ...
