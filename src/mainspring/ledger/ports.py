"""The two sides of the prediction log: serving appends, all others read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from mainspring.ledger.model import Batch, Failure, KeptExplanation, Prediction, Selection, Value

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa


class Seals(Protocol):
    """Encrypts personal values."""

    def seal(self, prediction_id: str, values: Mapping[str, Any]) -> bytes:
        """Return the values by name, encrypted for the holder of the key and for this prediction only."""
        ...


class PredictionLog(Protocol):
    """Append-only log of predictions, written by serving. Thread-safe.

    Attributes:
        sealer: Encrypts personal values; with `None` they are left out.
        unlogged: (endpoint, cause) -> predictions that were answered and are not in the log. The causes: `sampled`
            (not chosen), `disk_full`, `disk_error`, `buffer_full` (the disk is too slow), `closed`. The cause
            `explanation` counts explanations that are not kept.
        unlogged_failures: (endpoint, version) -> failures that could not be written yet.
    """

    sealer: Seals | None
    unlogged: Mapping[tuple[str, str], int]
    unlogged_failures: Mapping[tuple[str, str], int]

    def add(self, batch: Batch, *, sync: bool = False) -> Future[None] | None:
        """Append a batch without waiting. After some milliseconds it survives a kill of this process, after a second a
        power cut. A batch that cannot be written is counted in `unlogged`.

        Args:
            sync: Return a future, which is done when the batch is durable. If it cannot be, the future fails with
                `StorageFull` or `Unavailable`, and nothing is counted.
        """
        ...

    def fail(self, failures: Sequence[Failure], *, sync: bool = False) -> Future[None] | None:
        """Append failures without waiting, as durable as `add`.

        What cannot be written is summed up by arm, kind and weight (`Failure.count`), counted in `unlogged_failures`
        and written as soon as there is room, so that no arm seems better than it was.

        Args:
            sync: As of `add`: a future, which fails where they cannot be durable; then they are not written later.
        """
        ...

    def explain(self, explanations: Sequence[KeptExplanation]) -> None:
        """Append explanations without waiting, as durable as `add`. Those that cannot be written are counted."""
        ...

    def append(self, predictions: Sequence[Prediction]) -> None:
        """Add predictions, and return once they survive a kill of this process.

        Raises:
            StorageFull: No space; none of them was added.
        """
        ...

    def skip(self, endpoint: str, cause: str, rows: int) -> None:
        """Count predictions that are not logged."""
        ...

    def damaged(self) -> int:
        """Return the number of parts of the log that compaction could not read and set aside."""
        ...

    def close(self) -> None:
        """Make everything durable and close the files."""
        ...


class Arrivals(NamedTuple):
    """Predictions by arrival in a store: batches in no order, and the position after the last."""

    position: int
    batches: Iterator[pa.Table]


class Observations(NamedTuple):
    """Predictions and failures of a rollout, in no order, and the position behind them, a text to give back later."""

    position: str
    batches: Iterator[pa.Table]


class Observed(NamedTuple):
    """Predictions of one version by column, as an observer sees them.

    `at` (UTC epoch microseconds), `share` and `latency_us` have shape (rows,). `features` are the model's inputs by
    full name, with personal values decrypted; those that were left out are in `left_out`, and the names of all personal
    ones in `personal`. `score` is the first output, `None` where it is no number.
    """

    endpoint: str
    version: str
    digest: str
    at: npt.NDArray[np.int64]
    share: npt.NDArray[np.float64]
    latency_us: npt.NDArray[np.int64]
    features: Mapping[str, Sequence[Any]]
    score: Sequence[float | None]
    left_out: Collection[str] = ()
    personal: Collection[str] = ()


class Past(Protocol):
    """Predictions that are in a store already."""

    def hours(self) -> Mapping[int, int]:
        """Return the start of each hour with predictions, UTC epoch microseconds -> their number."""
        ...

    def between(self, since: int, until: int) -> Iterator[Observed]:
        """Yield the predictions with `since <= at < until`, in bounded memory."""
        ...


class Observer(Protocol):
    """Counts each prediction once, by column, as it comes into a store. The store calls it in mutual exclusion."""

    def observe(self, key: str, predictions: Sequence[Observed]) -> None:
        """Count predictions durably; nothing is done if the key was observed before."""
        ...

    def doubt(self, key: str, since: int | None, until: int | None) -> None:
        """Note durably that predictions with `since <= at < until` may not have been counted; `None` is unbounded."""
        ...

    def settle(self, past: Past) -> None:
        """Count doubtful times again, from the predictions that are there. Nothing is being moved meanwhile."""
        ...

    def started(self) -> bool:
        """Return whether anything was observed or doubted before."""
        ...

    def tidy(self, *, replaced_before: int, entries: int) -> None:
        """Delete files that are no longer needed, as of `PredictionStore.tidy`."""
        ...


class Cursor(NamedTuple):
    """A place among predictions, newest first: only what comes behind it follows."""

    at: int  # UTC epoch microseconds
    id: str


class PredictionPage(NamedTuple):
    """Predictions, newest first.

    Attributes:
        next: Where the next page begins; `None` behind the last.
        searched: If the page ended because very many rows did not match: all that is newer than this instant was
            looked at, UTC epoch microseconds.
    """

    predictions: list[Prediction]
    next: Cursor | None
    searched: int | None = None


class PredictionStore(Protocol):
    """Compacted predictions. Personal values stay sealed unless the caller asks for them.

    Failures are in here too, but only `observations` and `failures` return them; and explanations, which only
    `explanations` and `explained` return.
    """

    def compact(self) -> int:
        """Move appended predictions into the store, each once, and return their number.

        Damaged parts of the log are set aside and counted; the rest is moved.
        """
        ...

    def damaged(self) -> int:
        """Return the number of damaged parts of the log that `compact` has set aside."""
        ...

    def waiting(self) -> int:
        """Return the number of appended predictions that may not be in the store yet."""
        ...

    def tidy(self, *, made_before: int | None = None, replaced_before: int, entries: int = 1_000) -> int:
        """Delete predictions made before an instant, and files that the store no longer needs; return the number of
        predictions.

        Args:
            made_before: UTC epoch microseconds, by the clock that dated the predictions; `None` removes none.
            replaced_before: UTC epoch microseconds, by the machine's clock: files replaced later are kept, as they may
                be in use.
            entries: Number of versions of the store that keep their log entries, and so positions of `arrivals`.
        """
        ...

    def find(self, prediction_id: str) -> Prediction:
        """Return one prediction, compacted or not, with sealed personal values.

        Raises:
            NotFound: It was never logged.
        """
        ...

    def revealed(self, prediction: Prediction) -> Prediction:
        """Return a prediction with its sealed values decrypted. The caller must authorise the access.

        Raises:
            Corrupt: They were sealed by another installation's key, or there is no key.
        """
        ...

    def recent(self, endpoint: str | None = None, limit: int = 50) -> list[Prediction]:
        """Return the newest predictions, compacted or not, newest first, with sealed personal values."""
        ...

    def digests(self) -> set[str]:
        """Return the digests of all bundles that predictions name, compacted or not."""
        ...

    def read(self, endpoint: str, since: int, until: int) -> pa.Table:
        """Return compacted predictions with `since <= at < until`, ordered by `at`, for computations over many: joins
        with labels, drift. Sealed values are decrypted.

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
        """Return compacted predictions with `since <= at < until` in bounded memory, for computations over very many.

        Args:
            after: A position: return only predictions that arrived after it.
            by: A recent position: return only predictions that had arrived by then. Not with `after`.
            columns: Columns of the batches, by default all.

        Returns:
            Batches of some thousands of rows, with the columns of `read` except `request` and `statuses`; `None` if the
            arrivals after a position are no longer known.
        """
        ...

    def newest(self, selection: Selection, limit: int = 50, before: Cursor | None = None) -> PredictionPage:
        """Return the newest predictions of a selection, compacted or not, with sealed personal values.

        A page looks at a bounded number of rows: if few match, it ends early with the instant down to which it looked.

        Args:
            before: Where the page before ended.
        """
        ...

    def sample(self, selection: Selection, count: int, *, seed: int = 0) -> list[str]:
        """Return the ids of `count` compacted predictions of a selection, or of all if there are fewer: each as likely
        as any other, in memory for `count` ids. The same seed over the same store gives the same ids.
        """
        ...

    def sample_by_key(self, selection: Selection, count: int) -> list[str]:
        """Return the ids of `count` compacted predictions of a selection, or of all with entity keys if there are
        fewer: of the keys whose hashes are smallest the newest each, then the one before, and so on.

        So every selection gives the same keys, as far as it has them. In memory for `count` ids.
        """
        ...

    def scan(self, selection: Selection, ids: Collection[str] | None = None) -> Iterator[list[Prediction]]:
        """Yield the compacted predictions of a selection, in no order, some thousands at a time, with sealed personal
        values.

        Args:
            ids: Only these of them.
        """
        ...

    def erase(self, keys: Mapping[str, Value], *, dry_run: bool = False) -> int:
        """Delete the predictions of a subject with their explanations, compacted or not; return how many there were.

        On return no file of the store holds any, except what was set aside as damaged. Predictions whose keys were left
        out cannot be told from others, and stay.

        Args:
            keys: Entity keys, all of which a prediction of the subject has, in clear or encrypted.
        """
        ...

    def of_subject(self, keys: Mapping[str, Value]) -> Iterator[Prediction]:
        """Yield the predictions of a subject as `erase` finds them, with personal values decrypted."""
        ...

    def failures(self, rollout: str) -> list[Failure]:
        """Return the compacted failures of a rollout, oldest first."""
        ...

    def failed(self, rollout: str, ids: Collection[str]) -> set[str]:
        """Return those of these ids that are of failures of a rollout, compacted or not."""
        ...

    def explanations(self, prediction_id: str) -> list[KeptExplanation]:
        """Return the kept explanations of a prediction, compacted or not, one of each origin."""
        ...

    def explained(self, endpoint: str, version: str, since: int, until: int) -> list[KeptExplanation]:
        """Return the compacted explanations of origin `sampled` of predictions with `since <= at < until`, each once,
        oldest first."""
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
