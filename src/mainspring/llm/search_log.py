"""Searches in the prediction log, for the monitor of a collection: how much was found, how near, in which chunk.

Neither the query nor its vector is recorded. The nearest chunk tells of which kind a search was.
"""

from __future__ import annotations

from collections.abc import Sequence

from mainspring.core.ids import new_id
from mainspring.core.time import Clock
from mainspring.ledger.model import Asked, Log
from mainspring.ledger.ports import PredictionLog
from mainspring.ledger.recording import Recorder
from mainspring.vectors.declaring import Collection
from mainspring.vectors.model import Build, Mode
from mainspring.vectors.searching import Found

NEAREST = "search.nearest"


class SearchLog:
    """Recorder of searches. Of a collection whose documents' keys are personal no chunk is in the log, as its id is a
    digest of the key."""

    def __init__(self, log: PredictionLog, clock: Clock) -> None:
        self._log, self._clock = log, clock

    def record(
        self, collection: Collection, build: Build, found: Sequence[Sequence[Found]], mode: Mode, *, asked: Asked
    ) -> None:
        """Log what each query of a request found."""
        name, tells = collection.name, collection.key not in collection.source.pii
        recorder = Recorder(
            self._log,
            endpoint=name,
            model=name,
            version=f"{build.index.rpartition('-')[2]}.{build.table_version}",
            digest=build.index,
            policy=Log(),
        )
        near = [[each.similarity for each in hits if each.similarity is not None] for hits in found]
        first = [hits[0].id if hits and tells else None for hits in found]
        recorder.record(
            at=self._clock.now(),
            ids=[new_id() for _ in found],
            asked=[asked],
            features={NEAREST: first, "search.mode": [mode] * len(found)},
            outputs={
                "found": [bool(hits) for hits in found],
                "hits": [len(hits) for hits in found],
                "best_score": [max(each, default=None) for each in near],
            },
        )
