"""Predictions of streams in the prediction log, so that monitoring sees them as it sees others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from weakref import WeakSet

from mainspring.core.errors import NotFound
from mainspring.core.time import SECOND
from mainspring.ledger.model import Asked, Assigned, Failure
from mainspring.ledger.ports import PredictionLog, PredictionStore
from mainspring.ledger.recording import Recorder
from mainspring.serving.streaming.event import event_id
from mainspring.serving.streaming.partition import PREDICTIONS
from mainspring.serving.streaming.progress import BatchRecord, Lost, Made, Part
from mainspring.serving.streaming.state import PartitionState

_AT_ONCE = 64  # batches
_FAILED = 500  # status of a message that was given up


class PredictionSink:
    """Logs the predictions of each batch, under the ids of their events.

    An entry of the log has one instant: events within a second are logged with that of the newest.

    Args:
        recorder: Returns the recorder of a version that predicted.
        store: Where it is looked up after a start what was logged already.
        log: Takes the failures of rollouts' versions.
    """

    id = PREDICTIONS

    def __init__(
        self,
        endpoint: str,
        recorder: Callable[[Made], Recorder],
        store: PredictionStore,
        log: PredictionLog,
    ) -> None:
        self._endpoint = endpoint
        self._recorder = recorder
        self._store = store
        self._failures = log
        self._known: WeakSet[PartitionState] = WeakSet()  # of which it is known what was logged

    def deliver(self, file: PartitionState, partition: int) -> int:
        """Log the batches of a partition that were not logged. See `sinks.SinkWriter`."""
        count = done = 0
        doubtful = file not in self._known
        self._known.discard(file)  # until all is delivered
        batches = list(file.batches(file.done(self.id), limit=_AT_ONCE))
        known = self._known_lost([record for _, record in batches], partition) if doubtful else set[str]()
        for batch, record in batches:
            for part in record.parts:
                at = [record.at[row] for row in part.rows]
                ids = [event_id(self._endpoint, partition, int(record.offsets[row])) for row in part.rows]
                for start, end in _entries(at):
                    if not (doubtful and self._is_logged(ids[start])):
                        self._log(part, max(at[start:end]), slice(start, end), ids[start:end], record.latency_us)
            self._log_lost(record, partition, known)
            count, done = count + 1, batch
        if count:
            file.deliver(self.id, done)
        self._known.add(file)
        return count

    def _log(self, part: Part, at: int, rows: slice, ids: list[str], latency_us: int) -> None:
        features, outputs, sent, statuses = (
            {name: column[rows] for name, column in columns.items()}
            for columns in (part.features, part.outputs, part.sent, part.statuses)
        )
        for written in self._recorder(part).record(
            at=at,
            ids=ids,
            asked=[Asked(self._principal, latency_us, 1, id_) for id_ in ids],
            features=features,
            outputs=outputs,
            sent=sent,
            statuses=statuses,
            assigned=[Assigned(part.rollout, part.weight, unit) for unit in part.units[rows]],
        ):
            written.result()

    def _known_lost(self, records: list[BatchRecord], partition: int) -> set[str]:
        """Return the ids of lost messages that are logged; a look-up reads all segments, so there is one a rollout."""
        ids: dict[str, list[str]] = {}
        for each in (lost for record in records for lost in record.lost):
            ids.setdefault(each.rollout, []).append(self._lost_id(partition, each))
        return {known for rollout, some in ids.items() for known in self._store.failed(rollout, some)}

    def _lost_id(self, partition: int, lost: Lost) -> str:
        return f"{event_id(self._endpoint, partition, int(lost.offset))}@{lost.version}"

    def _log_lost(self, record: BatchRecord, partition: int, known: set[str]) -> None:
        """Log the messages that a rollout's version lost, each under its event's id and the version."""
        lost: list[Failure] = []
        for each in record.lost:
            id_ = self._lost_id(partition, each)
            if id_ in known:
                continue
            failure = self._recorder(each).failure(
                id_=id_,
                at=each.at,
                kind=each.kind,
                status=_FAILED,
                latency_us=record.latency_us,
                assigned=Assigned(each.rollout, each.weight, each.unit),
                principal=self._principal,
                request_id=event_id(self._endpoint, partition, int(each.offset)),
            )
            if failure is not None:
                lost.append(failure)
        written = self._failures.fail(lost, sync=True) if lost else None
        if written is not None:
            written.result()

    @property
    def _principal(self) -> str:
        return f"stream {self._endpoint}"

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
