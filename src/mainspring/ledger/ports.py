"""The two sides of the prediction log: serving appends, everybody else reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from mainspring.ledger.model import Prediction

if TYPE_CHECKING:
    import pyarrow as pa


class PredictionLog(Protocol):
    """Where serving appends. What `append` has returned from survives a kill -9 of the process."""

    def append(self, predictions: Sequence[Prediction]) -> None:
        """Add predictions.

        Raises:
            StorageFull: No space; none of them was added.
        """
        ...

    def close(self) -> None:
        """Make everything durable and let go of the files."""
        ...


class PredictionStore(Protocol):
    """What was predicted, after compaction."""

    def compact(self) -> int:
        """Move what was appended into the store, each prediction once, and return how many it was."""
        ...

    def find(self, prediction_id: str) -> Prediction:
        """Return one prediction, compacted or not.

        Raises:
            NotFound: It was never logged.
        """
        ...

    def recent(self, endpoint: str | None = None, limit: int = 50) -> list[Prediction]:
        """Return the newest predictions, compacted or not, newest first."""
        ...

    def read(self, endpoint: str, since: int, until: int) -> pa.Table:
        """Return compacted predictions with `since <= at < until`, in order of `at`.

        Columns: `id`, `version`, `digest` (string), `at` (timestamp), `latency_us` (int64), `keys`, `request`,
        `statuses` (JSON strings), `features` (JSON string) and `score` (float64: the first output).
        """
        ...
