"""Predictions of streams in the prediction log, so that monitoring sees them as it sees others."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mainspring.core.errors import NotFound
from mainspring.core.time import SECOND
from mainspring.ledger.model import Asked
from mainspring.ledger.ports import PredictionStore
from mainspring.ledger.recording import Recorder
from mainspring.serving.streaming.event import event_id
from mainspring.serving.streaming.partition import PREDICTIONS
from mainspring.serving.streaming.progress import BatchRecord
from mainspring.serving.streaming.state_file import StateFile

_AT_ONCE = 64  # batches


class PredictionSink:
    """Logs the predictions of each batch, under the ids of their events.

    An entry of the log has one instant: events within a second are logged with that of the newest.

    Args:
        recorder: Returns the recorder of the version that predicted a batch.
        store: Where it is looked up after a start what was logged already.
    """

    id = PREDICTIONS

    def __init__(self, endpoint: str, recorder: Callable[[BatchRecord], Recorder], store: PredictionStore) -> None:
        self._endpoint = endpoint
        self._recorder = recorder
        self._store = store
        self._known: set[int] = set()  # partitions of which what was logged is known

    def deliver(self, file: StateFile, partition: int) -> int:
        """Log the batches of a partition that were not logged. See `sinks.SinkWriter`."""
        count = done = 0
        for batch, record in list(file.batches(file.done(self.id), limit=_AT_ONCE)):
            doubtful = partition not in self._known
            for start, end in _entries(record.at):
                ids = [event_id(self._endpoint, partition, int(offset)) for offset in record.offsets[start:end]]
                if not (doubtful and self._is_logged(ids[0])):
                    self._log(record, start, end, ids)
            count, done = count + 1, batch
        if count:
            file.deliver(self.id, done)
        self._known.add(partition)
        return count

    def _log(self, record: BatchRecord, start: int, end: int, ids: list[str]) -> None:
        recorder = self._recorder(record)
        features, outputs, sent, statuses = (
            {name: column[start:end] for name, column in columns.items()}
            for columns in (record.features, record.outputs, record.sent, record.statuses)
        )
        written = recorder.record(
            at=max(record.at[start:end]),
            ids=ids,
            asked=[Asked(f"stream {self._endpoint}", record.latency_us, 1, id_) for id_ in ids],
            features=features,
            outputs=outputs,
            sent=sent,
            statuses=statuses,
        )
        if written is not None:
            written.result()

    def _is_logged(self, prediction_id: str) -> bool:
        try:
            self._store.find(prediction_id)
        except NotFound:
            return False
        return True


def _entries(at: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the bounds of entries: consecutive events within one second."""
    start, low, high = 0, 0, 0
    for place, each in enumerate(at):
        if place == start:
            low = high = each
        elif max(high, each) - min(low, each) >= SECOND:
            yield start, place
            start, low, high = place, each, each
        low, high = min(low, each), max(high, each)
    if at:
        yield start, len(at)
