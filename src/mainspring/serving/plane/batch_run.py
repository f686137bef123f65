"""Requests that run together, on their way through a lane: gathered, computed, logged, answered."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future as Pending
from dataclasses import dataclass, field
from itertools import compress
from typing import Any, Protocol

import msgspec
import numpy as np

from mainspring.core.errors import Corrupt, Unavailable
from mainspring.features.online import OnlineReader
from mainspring.features.state.blobs import DamagedState
from mainspring.ledger.model import Asked as Logged
from mainspring.ledger.model import Assigned
from mainspring.ledger.recording import Recorder
from mainspring.serving.batching.batcher import Job
from mainspring.serving.caching.responses import Response, Reuse
from mainspring.serving.plane.runtime import Runtime
from mainspring.serving.plane.screening import Screen, with_answer
from mainspring.serving.plane.statistics import Statistics
from mainspring.serving.plane.watch import StoreDamaged
from mainspring.serving.protocol.schema import Rows

Columns = Mapping[str, Any]  # name -> a list, or of a model of tensors an array of shape (rows, ...)
Outputs = Mapping[str, np.ndarray[Any, Any]]  # each of shape (rows, ...)


def monotonic_us() -> int:
    return time.monotonic_ns() // 1000


class Gathered:
    """The rows of several requests below one another, those by key first.

    Attributes:
        features: Inputs of the model.
        sent: Columns of the requests by key.
        statuses: Of the stored features of the rows by key.
        keyed: Number of rows by key.
    """

    __slots__ = ("features", "keyed", "sent", "statuses")

    def __init__(
        self,
        features: Columns,
        sent: Columns | None = None,
        statuses: Mapping[str, Sequence[str]] | None = None,
        keyed: int = 0,
    ) -> None:
        self.features = features
        self.sent: Columns = sent or {}
        self.statuses: Mapping[str, Sequence[str]] = statuses or {}
        self.keyed = keyed


def gather(
    parts: Sequence[Rows],
    names: Sequence[str],
    reader: OnlineReader,
    now: int,
    *,
    defaults: bool = False,
    without_store: bool = False,
) -> Gathered:
    """Return the rows of a model of features; what is by key stands first in `parts`.

    Args:
        names: The model's features.
        now: As of when stored features are read, UTC epoch microseconds.
        defaults: Whether stored features have their defaults where the online store does not answer.
        without_store: Whether it is not even asked.

    Raises:
        Unavailable: The online store does not answer, or is damaged.
        Invalid: A request feature cannot be computed.
    """
    keyed = [rows for rows in parts if rows.keyed]
    if not keyed:
        return Gathered(_joined([rows.columns for rows in parts], names))
    sent = _sent(keyed)
    count = sum(rows.count for rows in keyed)
    try:
        read = reader.read(sent, now, without_store=without_store)
    except DamagedState as error:
        raise StoreDamaged("The online store contains a damaged state.") from error
    except Unavailable:
        if not defaults:
            raise
        read = reader.read(sent, now, without_store=True)
    except Corrupt as error:
        raise StoreDamaged("The online store is damaged.", lambda: reader.read(sent, now)) from error
    features: Columns = {name: read.features[name] for name in names}
    if len(keyed) < len(parts):
        features = _joined([features, *(rows.columns for rows in parts[len(keyed) :])], names)
    return Gathered(features, sent, read.statuses, count)


def stack(parts: Sequence[Rows]) -> Gathered:
    """Return the rows of a model of tensors, of one tail, where it can read them."""
    first = parts[0].columns
    if len(parts) > 1:
        return Gathered({name: np.concatenate([rows.columns[name] for rows in parts]) for name in first})
    # Binary data begin wherever the JSON before them ended.
    return Gathered({name: array if array.flags.aligned else array.copy() for name, array in first.items()})


def _joined(parts: Sequence[Columns], names: Sequence[str]) -> Columns:
    if len(parts) == 1:
        return parts[0]
    return {name: [value for part in parts for value in part[name]] for name in names}


def _sent(parts: Sequence[Rows]) -> Columns:
    """Return the columns of requests by key; null where one request lacks a column of another."""
    first = parts[0].columns
    if len(parts) == 1:
        return first
    names = first if all(rows.columns.keys() == first.keys() for rows in parts) else _union(parts)
    return {
        name: [value for rows in parts for value in rows.columns.get(name) or [None] * rows.count] for name in names
    }


def _union(parts: Sequence[Rows]) -> Sequence[str]:
    return list(dict.fromkeys(name for rows in parts for name in rows.columns))


class Answer:
    """One request's part of a batch's outcome: its rows `start` to `end`."""

    __slots__ = ("_end", "_keyed", "_start", "work")

    def __init__(self, work: Work, start: int, end: int, keyed: bool) -> None:
        self.work = work
        self._start = start
        self._end = end
        self._keyed = keyed

    @property
    def ids(self) -> list[str]:
        return self.work.ids[self._start : self._end]

    def output(self, name: str) -> np.ndarray[Any, Any]:
        """Return an output, shape (rows, ...)."""
        return self.work.outputs[name][self._start : self._end]

    @property
    def inputs(self) -> dict[str, Any]:
        """Input of the model -> values, one for each row."""
        return {name: values[self._start : self._end] for name, values in self.work.gathered.features.items()}

    @property
    def unusual(self) -> list[str] | None:
        """For each row the feature by which it is unusual, empty if it is not; `None` if rows are not flagged."""
        found = self.work.unusual
        return None if found is None else [found.get(row, "") for row in range(self._start, self._end)]

    @property
    def fallback(self) -> bool:
        """Whether a fallback answered any of its rows."""
        return bool(self.work.fallback and any(self.unusual or ()))

    @property
    def statuses(self) -> dict[str, list[str]]:
        """Feature -> how it was found, by row; of requests by key."""
        found = self.work.gathered.statuses if self._keyed else {}
        return {name: list(column[self._start : self._end]) for name, column in found.items()}


class Waiter(Protocol):
    """A receiver of an answer: an `asyncio.Future` or another object. Called once, on the event loop."""

    def done(self) -> bool: ...
    def set_result(self, result: Answer, /) -> None: ...
    def set_exception(self, exception: Exception, /) -> None: ...


class Ask(msgspec.Struct, eq=False):
    """One request as it waits. `received` is monotonic, µs; `request_id` is its caller's name for it; `assigned` says
    to which arm of a rollout it belongs; `refused`, that nothing will be computed for it; `reuse`, of an endpoint with
    a cache, whether an earlier answer is one."""

    rows: Rows
    principal: str
    received: int
    waiter: Waiter
    request_id: str = ""
    assigned: Assigned | None = None
    refused: bool = False
    reuse: Reuse | None = None

    @property
    def cached(self) -> bool:
        """Whether its answer was computed for another request."""
        return self.reuse is not None and self.reuse.cached


@dataclass(eq=False, slots=True)
class Work:
    """Requests that run together, and what became of them so far. Instants are monotonic, µs.

    Attributes:
        taken: When they left the queue.
        begun: When it was their turn.
        at: When stored features were read, UTC epoch microseconds: the instant of the predictions.
        read: When their features were there.
        called: When the model was called.
        took_us: How long the model took.
        answered: When the requests were told.
        without_store: Whether stored features have their defaults, because the online store did not answer in time.
        unusual: Unusual rows, each with the feature by which it is; `None` if they are not flagged.
        fallback: Output -> its value in an unusual row, instead of the model's; empty without a fallback.
        unlogged: How many entries of the log have to be on the disk before the requests are answered.
        screen: By which unusual rows were looked for; `None` without one.
        cached: Whether all of it was computed for other requests.
    """

    jobs: list[Job[Ask]]
    taken: int
    begun: int
    rows: int = field(init=False)
    at: int = 0
    read: int = 0
    called: int = 0
    took_us: float = 0.0
    answered: int = 0
    gathered: Gathered = field(default_factory=lambda: Gathered({}))
    outputs: Outputs = field(default_factory=dict)
    without_store: bool = False
    ids: list[str] = field(default_factory=list)
    unusual: Mapping[int, str] | None = None
    fallback: Outputs = field(default_factory=dict)
    unlogged: int = 0
    screen: Screen | None = None
    cached: bool = False

    def __post_init__(self) -> None:
        self.rows = sum([job.rows for job in self.jobs])

    def gather(self, runtime: Runtime, names: Sequence[str], now: int, *, defaults: bool) -> None:
        """Put the requests' columns together, and read what is read for them. Arguments as of the function `gather`."""
        self.at = now
        if runtime.reader is None:
            self.gathered = stack([job.payload.rows for job in self.jobs])
        else:
            # Those by key first; a batch is mostly of one kind.
            self.jobs.sort(key=_is_full)
            parts = [job.payload.rows for job in self.jobs]
            self.gathered = gather(
                parts, names, runtime.reader, now, defaults=defaults, without_store=self.without_store
            )

    def keep(self, jobs: Sequence[Job[Ask]]) -> None:
        """Leave out the rows of all requests but these: the others were refused while their features were read."""
        stay = {id(job) for job in jobs}
        kept = [id(job) in stay for job in self.jobs]
        rows = [stays for job, stays in zip(self.jobs, kept, strict=True) for _ in range(job.rows)]
        self.jobs = list(compress(self.jobs, kept))
        self.rows = sum(rows)
        keyed = sum(job.rows for job in self.jobs if job.payload.rows.keyed)
        features, sent, statuses = (
            {name: list(compress(column, rows)) for name, column in columns.items()}
            for columns in (self.gathered.features, self.gathered.sent, self.gathered.statuses)
        )
        self.gathered = Gathered(features, sent, statuses, keyed)

    def parts(self) -> Iterator[tuple[Job[Ask], int, int]]:
        """Yield each request with its rows: the first, and the one behind the last."""
        start = 0
        for job in self.jobs:
            yield job, start, start + job.rows
            start += job.rows

    def response(self, start: int, end: int) -> Response:
        """Return the model's answer to a request by its rows, in memory of its own."""
        outputs = {name: np.array(array[start:end]) for name, array in self.outputs.items()}
        unusual = None
        if self.unusual is not None:
            unusual = {row - start: name for row, name in self.unusual.items() if start <= row < end}
        return Response(outputs, unusual, self.screen)

    def answer_by(self, responses: Sequence[Response], screen: Screen | None) -> None:
        """Take the outputs from earlier answers, one for each request, that were made by the same screen."""
        self.cached, self.screen = True, screen
        self.fallback = screen.answer if screen is not None else {}
        names = responses[0].outputs
        self.outputs = {name: _below([each.outputs[name] for each in responses]) for name in names}
        if responses[0].unusual is not None:
            rows = [start for _, start, _ in self.parts()]
            found = zip(rows, responses, strict=True)
            self.unusual = {start + row: name for start, each in found for row, name in (each.unusual or {}).items()}

    def again(self, jobs: Sequence[Job[Ask]], start: int, end: int) -> Work:
        """Return the work of requests that are equal to the one whose rows are `start` to `end`."""
        times, gathered = len(jobs), self.gathered
        found = Work(list(jobs), self.taken, self.begun)
        found.at, found.read, found.called = self.at, self.read, self.called
        features, sent, statuses = (
            {name: _repeated(column[start:end], times) for name, column in columns.items()}
            for columns in (gathered.features, gathered.sent, gathered.statuses)
        )
        found.gathered = Gathered(features, sent, statuses, found.rows if end <= gathered.keyed else 0)
        found.answer_by([self.response(start, end)] * times, self.screen)
        return found

    def fall_back(self) -> None:
        """Put the fallback answer in the place of the model's, in the unusual rows."""
        if self.fallback and self.unusual:
            self.outputs = with_answer(self.outputs, self.fallback, self.unusual)

    def record(self, recorder: Recorder, now: int, *, assigned: bool = False) -> list[Pending[None]]:
        """Log the predictions. Returns what has to be done before the requests are answered.

        Args:
            now: What time it is, monotonic.
            assigned: Whether a rollout may have assigned the requests.
        """
        asked = [
            Logged(job.payload.principal, now - job.payload.received, job.rows, job.payload.request_id)
            for job in self.jobs
        ]
        arms = [job.payload.assigned for job in self.jobs] if assigned else ()
        gathered, keyed = self.gathered, self.gathered.keyed
        features, outputs, sent, statuses = gathered.features, self.outputs, gathered.sent, gathered.statuses
        apart = sorted(self.unusual or ()) if self.fallback else []
        if keyed in (0, self.rows):
            return recorder.record(
                at=self.at,
                ids=self.ids,
                asked=asked,
                features=features,
                outputs=outputs,
                sent=sent,
                statuses=statuses,
                assigned=arms,
                fallback=apart,
                cached=self.cached,
            )
        by_key = sum(job.payload.rows.keyed for job in self.jobs)
        return [
            *recorder.record(
                at=self.at,
                ids=self.ids[:keyed],
                asked=asked[:by_key],
                features={name: column[:keyed] for name, column in features.items()},
                outputs={name: array[:keyed] for name, array in outputs.items()},
                sent=sent,
                statuses=statuses,
                assigned=arms[:by_key],
                fallback=[row for row in apart if row < keyed],
            ),
            *recorder.record(
                at=self.at,
                ids=self.ids[keyed:],
                asked=asked[by_key:],
                features={name: column[keyed:] for name, column in features.items()},
                outputs={name: array[keyed:] for name, array in outputs.items()},
                assigned=arms[by_key:],
                fallback=[row - keyed for row in apart if row >= keyed],
            ),
        ]

    def answer(self, statistics: Statistics, now: int) -> None:
        """Tell each request its rows' part."""
        self.answered = now
        start = waited = total = 0
        for job in self.jobs:
            ask, end = job.payload, start + job.rows
            waited += self.taken - job.arrived
            total += now - ask.received
            if not ask.waiter.done():
                ask.waiter.set_result(Answer(self, start, end, ask.rows.keyed))
            start = end
        if self.cached:
            statistics.found(rows=self.rows, requests=len(self.jobs), total_us=total)
            self.jobs = []
            return
        statistics.ran(
            rows=self.rows,
            requests=len(self.jobs),
            total_us=total,
            queue_us=waited,
            input_us=self.read - self.begun,
            infer_us=self.took_us,
            output_us=max(0.0, now - self.read - self.took_us),
        )
        self.jobs = []  # they lead back here, by way of their answers: arrays would wait for the cycle collector


def _below(arrays: Sequence[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _repeated(column: Any, times: int) -> Any:
    return column * times if isinstance(column, list) else np.concatenate([column] * times)


def alike(jobs: list[Job[Ask]]) -> list[list[Job[Ask]]]:
    """Return the jobs in groups that can run together: rows of one shape."""
    groups: dict[tuple[tuple[int, ...], ...], list[Job[Ask]]] = {}
    for job in jobs:
        groups.setdefault(job.payload.rows.tail, []).append(job)
    return list(groups.values())


def _is_full(job: Job[Ask]) -> bool:
    return not job.payload.rows.keyed
