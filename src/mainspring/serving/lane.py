"""One version behind one endpoint: its queue, and how a batch of it runs.

Everything here happens on the event loop, but for what is slow enough to be worth a thread: a model, and a read of an
online store on another machine. A batch is one read of the store, one call of the model, one append to the log; then
its requests are answered.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from copy import copy
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from mainspring.core.errors import DeadlineExceeded, Invalid, MainspringError, Overloaded
from mainspring.core.ids import new_id
from mainspring.core.time import Clock
from mainspring.ledger.model import Prediction
from mainspring.ledger.ports import PredictionLog
from mainspring.serving.batcher import Batcher, Job
from mainspring.serving.executor import ModelFailed
from mainspring.serving.metrics import EndpointMetrics
from mainspring.serving.runtime import MAX_ROWS, Runtime
from mainspring.serving.schema import Rows
from mainspring.serving.statistics import Statistics
from mainspring.serving.tensor import datatype_of, shown

INLINE_US = 200.0  # a model call predicted to take longer runs in a thread
LOGGED_VALUES = 64  # of one row of a tensor; of larger ones the log says what they were
_RECENT = 16  # batches

_Predicted = tuple[dict[str, np.ndarray[Any, Any]], float]  # the outputs, and how long the model took, µs

_log = logging.getLogger(__name__)


def monotonic_us() -> int:
    return time.monotonic_ns() // 1000


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request is told."""

    ids: list[str]
    outputs: dict[str, np.ndarray[Any, Any]]  # each of shape (rows, ...)
    statuses: dict[str, list[str]]


@dataclass(eq=False, slots=True)
class Ask:
    """One request as it waits. `received` is monotonic, µs."""

    rows: Rows
    principal: str
    received: int
    future: asyncio.Future[Answer]


@dataclass(eq=False, slots=True)
class _Work:
    """Requests that run together."""

    jobs: list[Job[Ask]]
    rows: int
    begun: int
    read: int = 0  # when its features were there, monotonic, µs
    features: Mapping[str, Any] = field(default_factory=dict)
    statuses: Mapping[str, Sequence[str]] = field(default_factory=dict)  # of the keyed rows, which come first


class Lane:
    """Runs the requests of one (endpoint, version).

    Args:
        version: The version's number, for replies and the log.
        log: Gets every prediction before its caller does.
        clock: Says what time it is for features and the log; deadlines go by the monotonic time.
        threads: Where slow models run.
        alone: Says whether no other request is on its way to this process, so that there is nothing to wait for.
    """

    def __init__(
        self,
        endpoint: str,
        version: str,
        runtime: Runtime,
        *,
        log: PredictionLog,
        clock: Clock,
        metrics: EndpointMetrics,
        threads: Executor,
        alone: Callable[[], bool],
        max_queue_rows: int,
    ) -> None:
        self.version = version
        self.runtime = runtime
        self._endpoint = endpoint
        self._log = log
        self._clock = clock
        self._metrics = metrics
        self._threads = threads
        self._alone = alone
        self._loop = asyncio.get_running_loop()
        self._recent_us: deque[float] = deque(maxlen=_RECENT)
        self._scheduled = False
        self._names = tuple(spec.name for spec in runtime.inputs)
        self._rest: deque[list[Job[Ask]]] = deque()  # of the batch that runs: what cannot run beside the others
        self._batch = _Work([], 0, 0)
        self._sound = True  # whether all of it ran to its end
        self.statistics = Statistics()
        self.batcher: Batcher[Ask] = Batcher(
            monotonic_us, max_queue_rows=max_queue_rows, max_batch_rows=MAX_ROWS, cost=copy(runtime.cost)
        )

    def submit(self, rows: Rows, *, received: int, deadline: int, priority: int, principal: str) -> Job[Ask]:
        """Let a request wait for its batch. Its future gives the answer; the caller may set the job's `cancelled`.

        Raises:
            Overloaded: The queue is full.
            DeadlineExceeded: It would be answered too late.
        """
        job = Job(Ask(rows, principal, received, self._loop.create_future()), rows.count, deadline, priority)
        try:
            self.batcher.offer(job)
        except Overloaded:
            self._metrics.rejections["queue_full"] += 1
            raise
        except DeadlineExceeded:
            self._metrics.rejections["too_late"] += 1
            raise
        self._wake()
        return job

    def _wake(self) -> None:
        if not self.batcher.idle or self._scheduled:
            return
        self._scheduled = True
        if self._alone():
            self._run()
        else:
            # By the next turn of the loop every request that this turn has decoded waits too: they run together.
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._scheduled = False
        batch = self.batcher.take()
        for job in batch.late:
            self._metrics.rejections["expired"] += 1
            _fail(job, DeadlineExceeded("The deadline passed while the request waited."))
        if batch.jobs:
            self._batch, self._sound = _Work(batch.jobs, batch.rows, monotonic_us()), True
            self._metrics.batch_rows.observe(batch.rows)
            queue = self._metrics.stages["queue"]
            for job in batch.jobs:
                queue.observe((self._batch.begun - job.arrived) / 1e6)
            self._rest.extend(_alike(batch.jobs))
            self._go_on()

    def _go_on(self) -> None:
        while self._rest:
            jobs = self._rest.popleft()
            if not self._start(_Work(jobs, sum(job.rows for job in jobs), monotonic_us())):
                return
        if self._sound:
            self.batcher.done(self._batch.rows, monotonic_us() - self._batch.begun)
        else:
            self.batcher.failed()
        if self.batcher.waiting_rows:
            self._wake()

    def _start(self, work: _Work) -> bool:
        """Run requests together. Returns whether they are done; if not, `_computed` will go on."""
        try:
            if self.runtime.remote and any(job.payload.rows.keyed for job in work.jobs):
                self._elsewhere(work, self._read_and_predict)
                return False
            self._read_features(work)
            if self._slow(work.rows):
                self._elsewhere(work, self._predict)
                return False
            self._finish(work, *self._predict(work))
        except Exception as error:
            self._failed(work, error)
        return True

    def _elsewhere(self, work: _Work, do: Callable[[_Work], _Predicted]) -> None:
        running = self._loop.run_in_executor(self._threads, do, work)
        running.add_done_callback(lambda done: self._computed(work, done))

    def _read_and_predict(self, work: _Work) -> _Predicted:
        self._read_features(work)
        return self._predict(work)

    def _computed(self, work: _Work, done: asyncio.Future[_Predicted]) -> None:
        try:
            self._finish(work, *done.result())
        except Exception as error:
            self._failed(work, error)
        self._go_on()

    def _read_features(self, work: _Work) -> None:
        if self.runtime.reader is None:
            work.features = _stacked([job.payload.rows.columns for job in work.jobs])
            work.read = monotonic_us()
            return
        # Keyed rows first, so that statuses line up; a batch is mostly of one kind.
        work.jobs.sort(key=lambda job: not job.payload.rows.keyed)
        keyed = [job.payload.rows for job in work.jobs if job.payload.rows.keyed]
        full = [job.payload.rows for job in work.jobs[len(keyed) :]]
        parts: list[Mapping[str, Sequence[Any]]] = [rows.columns for rows in full]
        if keyed:
            names = self.runtime.schema.keyed
            read = self.runtime.reader.read(_joined(keyed, names), self._clock.now())
            parts.insert(0, read.features)
            work.statuses = read.statuses
        if len(parts) == 1:
            work.features = parts[0]
        else:
            work.features = {name: [value for part in parts for value in part[name]] for name in self._names}
        work.read = monotonic_us()

    def _slow(self, rows: int) -> bool:
        """Return whether a batch belongs in a thread: by what warming up measured, and by the fastest of late. Code
        that is not ours always does.

        The fastest, because on a busy machine the others tell how long a call waited for a processor; moving them to a
        thread would only add to that.
        """
        predicted = max(self.runtime.cost.predict(rows), min(self._recent_us, default=0.0))
        return predicted > INLINE_US or not self.runtime.executor.inline

    def _predict(self, work: _Work) -> _Predicted:
        begun = time.perf_counter_ns()
        outputs = self.runtime.executor.predict(work.features, work.rows)
        return outputs, (time.perf_counter_ns() - begun) / 1000

    def _finish(self, work: _Work, outputs: Mapping[str, np.ndarray[Any, Any]], took_us: float) -> None:
        self._recent_us.append(took_us)
        self._metrics.stages["features"].observe((work.read - work.begun) / 1e6)
        self._metrics.stages["compute"].observe(took_us / 1e6)
        predictions = self._predictions(work, {name: _listed(array, work.rows) for name, array in outputs.items()})
        self._log.append(predictions)
        self._metrics.rows += len(predictions)
        start = 0
        for job in work.jobs:
            end = start + job.rows
            if not job.payload.future.done():
                keyed = job.payload.rows.keyed
                job.payload.future.set_result(
                    Answer(
                        ids=[prediction.id for prediction in predictions[start:end]],
                        outputs={name: array[start:end] for name, array in outputs.items()},
                        statuses={name: list(column[start:end]) for name, column in work.statuses.items()}
                        if keyed
                        else {},
                    )
                )
            start = end

    def _predictions(self, work: _Work, values: Mapping[str, Sequence[Any]]) -> list[Prediction]:
        runtime, names, at, now = self.runtime, self._names, self._clock.now(), monotonic_us()
        features = zip(*(_listed(work.features[name], work.rows) for name in names), strict=True)
        outputs = zip(*values.values(), strict=True)
        output_names = tuple(values)
        statuses = zip(*work.statuses.values(), strict=True)
        found = []
        for job in work.jobs:
            ask = job.payload
            keyed = ask.rows.keyed
            sent = zip(*ask.rows.columns.values(), strict=True)
            sent_names = tuple(ask.rows.columns)
            for _ in range(job.rows):
                row = dict(zip(sent_names, next(sent), strict=True)) if keyed else {}
                found.append(
                    Prediction(
                        id=new_id(),
                        endpoint=self._endpoint,
                        model=runtime.manifest.model,
                        version=self.version,
                        digest=runtime.digest,
                        at=at,
                        keys={name: row.pop(name) for name in runtime.key_names} if keyed else {},
                        request=row,
                        features=dict(zip(names, next(features), strict=True)),
                        statuses=dict(zip(work.statuses, next(statuses), strict=True))
                        if keyed and work.statuses
                        else {},
                        outputs=dict(zip(output_names, next(outputs), strict=True)),
                        latency_us=now - ask.received,
                        principal=ask.principal,
                    )
                )
        return found

    def _failed(self, work: _Work, error: Exception) -> None:
        self._sound = False
        if len(work.jobs) > 1 and not _shared(error):
            # One request's rows made the batch fail: each answers for itself.
            self._rest.extendleft([job] for job in reversed(work.jobs))
            return
        if not isinstance(error, MainspringError):
            _log.error("A batch of endpoint %s failed.", self._endpoint, exc_info=error)
            error = ModelFailed("The model failed.")
        for job in work.jobs:
            _fail(job, error)


def _shared(error: Exception) -> bool:
    """Return whether an error would meet every request of the batch: a store or a disk, not a value."""
    return isinstance(error, MainspringError) and not isinstance(error, (Invalid, ModelFailed))


def _fail(job: Job[Ask], error: Exception) -> None:
    if not job.payload.future.done():
        job.payload.future.set_exception(error)


def _joined(parts: Sequence[Rows], names: Mapping[str, Any]) -> Mapping[str, Sequence[Any]]:
    """Return the columns of several requests below one another; null where a request left a column out."""
    if len(parts) == 1:
        return parts[0].columns
    joined: dict[str, Sequence[Any]] = {}
    for name in names:
        column: list[Any] = []
        for rows in parts:
            column.extend(rows.columns.get(name) or [None] * rows.count)
        joined[name] = column
    return joined


def _alike(jobs: Sequence[Job[Ask]]) -> list[list[Job[Ask]]]:
    """Return the jobs in groups that can run together: rows of one shape."""
    groups: dict[tuple[tuple[int, ...], ...], list[Job[Ask]]] = {}
    for job in jobs:
        groups.setdefault(job.payload.rows.tail, []).append(job)
    return list(groups.values())


def _stacked(parts: Sequence[Mapping[str, np.ndarray[Any, Any]]]) -> Mapping[str, np.ndarray[Any, Any]]:
    """Return the tensors of several requests below one another, where a model can read them."""
    first = parts[0]
    if len(parts) > 1:
        return {name: np.concatenate([part[name] for part in parts]) for name in first}
    # Binary data begin wherever the JSON before them ended.
    return {name: array if array.flags.aligned else array.copy() for name, array in first.items()}


def _listed(column: Any, rows: int) -> Sequence[Any]:
    """Return a column for the log: a value a row, of a tensor a list, or its type and shape where it is large."""
    if not isinstance(column, np.ndarray):
        return cast("Sequence[Any]", column)
    if column.size > LOGGED_VALUES * rows:
        return [f"{datatype_of(column.dtype)}{shown(column.shape[1:])}"] * rows
    return cast("Sequence[Any]", column.tolist())
