"""A prediction log that lives in this process: both sides of the ports."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mainspring.core.errors import NotFound
from mainspring.ledger.model import Prediction

if TYPE_CHECKING:
    import pyarrow as pa


class MemoryLedger:
    """`PredictionLog` and `PredictionStore` in one."""

    def __init__(self) -> None:
        self._appended: list[Prediction] = []
        self._compacted: dict[str, Prediction] = {}
        self._lock = threading.Lock()

    def append(self, predictions: Sequence[Prediction]) -> None:
        with self._lock:
            self._appended.extend(predictions)

    def close(self) -> None:
        pass

    def compact(self) -> int:
        with self._lock:
            moved, self._appended = self._appended, []
            self._compacted.update((prediction.id, prediction) for prediction in moved)
        return len(moved)

    def find(self, prediction_id: str) -> Prediction:
        for prediction in self._all():
            if prediction.id == prediction_id:
                return prediction
        raise NotFound(f"There is no prediction {prediction_id!r}.")

    def recent(self, endpoint: str | None = None, limit: int = 50) -> list[Prediction]:
        wanted = [prediction for prediction in self._all() if endpoint in (None, prediction.endpoint)]
        return sorted(wanted, key=lambda prediction: prediction.at, reverse=True)[:limit]

    def read(self, endpoint: str, since: int, until: int) -> pa.Table:
        import pyarrow as pa

        from mainspring.ledger.columns import READ, to_batch

        with self._lock:
            compacted = list(self._compacted.values())
        wanted = [each for each in compacted if each.endpoint == endpoint and since <= each.at < until]
        wanted.sort(key=lambda prediction: prediction.at)
        return pa.Table.from_batches([to_batch(wanted)]).select(list(READ))

    def _all(self) -> list[Prediction]:
        with self._lock:
            return [*self._compacted.values(), *self._appended]
