"""Write buffer of a run: kept in order, written every second and on demand."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

from mainspring.core.errors import MainspringError
from mainspring.registry.ports import Tracking

Metric = tuple[str, float, int, int]  # name, value, step, instant in µs

_MANY = 20_000  # buffered metrics that trigger a write at once
_PATIENCE_S = 60.0  # seconds for which background writes retry an unavailable store


class Buffer:
    """Buffer of a run's metrics, parameters and tags, between the training function and the store.

    After a failed write the content is kept, in order, for the next one; the store ignores duplicate metrics.
    """

    def __init__(self, tracking: Tracking, run_id: str, *, every_s: float, patience_s: float = _PATIENCE_S) -> None:
        self._tracking = tracking
        self._run_id = run_id
        self._every_s, self._patience_s = every_s, patience_s
        self._metrics: list[Metric] = []
        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = {}
        self._failure: Exception | None = None
        self._adding = threading.Lock()
        self._writing = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    def add(
        self,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Append to the buffer.

        Raises:
            MainspringError: A background write failed; the new content is buffered nevertheless.
        """
        with self._adding:
            self._metrics += metrics
            if params:
                self._params.update(params)
            if tags:
                self._tags.update(tags)
            many = len(self._metrics) >= _MANY
        if many:
            self._wake.set()
        if self._failure is not None:
            raise self._failure

    def flush(self) -> None:
        """Write everything buffered before this call; it is stored when this returns.

        Raises:
            MainspringError: This write, or an earlier one in the background, failed.
        """
        self._write()
        if self._failure is not None:
            raise self._failure

    def start(self) -> None:
        """Start writing in the background."""
        self._thread = threading.Thread(target=self._write_often, name=f"run-{self._run_id}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop writing in the background; the buffer keeps its content."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def _write(self) -> None:
        with self._writing:
            with self._adding:
                metrics, self._metrics = self._metrics, []
                params, self._params = self._params, {}
                tags, self._tags = self._tags, {}
            if not (metrics or params or tags):
                return
            try:
                self._tracking.log(self._run_id, params=params, metrics=metrics, tags=tags)
            except BaseException:
                with self._adding:
                    self._metrics[:0] = metrics
                    self._params = {**params, **self._params}
                    self._tags = {**tags, **self._tags}
                raise

    def _write_often(self) -> None:
        failing_since: float | None = None
        while True:
            self._wake.wait(self._every_s)
            if self._closing:
                return
            self._wake.clear()
            try:
                self._write()
                failing_since = None
            except Exception as error:  # raised in the training function's next call
                now = time.monotonic()
                failing_since = now if failing_since is None else failing_since
                may_come_back = isinstance(error, MainspringError) and error.retryable
                if not may_come_back or now - failing_since > self._patience_s:
                    self._failure = error
                    return
