"""The process in which a feature function runs, apart from its caller: it cannot hang, crash or slow down the gateway.

It is started on the first call, killed when a call takes longer than the function's limit or when nobody holds this
object any more, and started again by the next call. Nothing is pickled.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mainspring.core.environment import for_foreign_code
from mainspring.core.errors import MainspringError
from mainspring.core.own_process import Child, python_path
from mainspring.core.sandbox import Confinement, policy
from mainspring.core.time import format_duration
from mainspring.features.functions.messages import Answer, Call, Load, Loaded
from mainspring.features.functions.model import FAIL, FeatureFunction

_CHILD = "mainspring.features.functions.child"
_LOAD_S = 120.0  # for its imports, which may be large


class FunctionFailed(MainspringError):
    """A feature function did not load, failed, ran too long, or ended its process."""


class FunctionProcess:
    """A feature function in another process. One call at a time; threads may share it.

    Args:
        limit_us: Maximum duration of a call, µs; by default the function's.
        loading_s: Maximum duration of the function's imports.
    """

    def __init__(self, function: FeatureFunction, *, limit_us: int | None = None, loading_s: float = _LOAD_S) -> None:
        self.function = function
        self._limit_us = function.timeout_us if limit_us is None else limit_us
        self._loading_s = loading_s
        self._running = threading.Lock()
        self._counting = threading.Lock()  # never held while the function runs, as an event loop asks what was spent
        self._rows, self._seconds = 0, 0.0  # of calls since `spent`
        # The order of a set of texts must not differ between processes.
        environment = for_foreign_code({"PYTHONPATH": python_path(), "PYTHONHASHSEED": "0"})
        self._child = Child(function.name, _CHILD, environment, Confinement(policy()))

    def start(self) -> None:
        """Start the process, unless it runs, so that the first call need not wait for the function's imports.

        Raises:
            FunctionFailed: The function does not load.
        """
        with self._running:
            if not self._child.runs:
                self._started()

    def values(self, columns: Mapping[str, Sequence[Any]], rows: int) -> dict[str, list[Any]]:
        """Return each output, of shape (rows,), for the function's inputs, each of shape (rows,).

        A row for which it fails has nulls.

        Raises:
            FunctionFailed: It fails altogether, or for a row where `on_error` is `fail`.
        """
        lists = {name: list(columns[name]) for name in self.function.columns}
        return self.call(Call(rows, lists=lists)).lists or {}

    def call(self, call: Call) -> Answer:
        """Return the answer to a call.

        Raises:
            FunctionFailed: As `values`.
        """
        self.start()
        with self._running:
            answer = self._asked(call)
        with self._counting:
            self._rows += 0 if answer.error else call.rows
            self._seconds += answer.seconds
        if answer.error:
            raise FunctionFailed(f"{self._named} failed: {answer.error}", fix="correct the function.")
        if answer.failures and self.function.on_error == FAIL:
            row, why = next(iter(sorted(answer.failures.items())))
            raise FunctionFailed(f"{self._named} failed for row {row}: {why}", fix="correct the function.")
        return answer

    def spent(self) -> tuple[int, float]:
        """Return the rows computed since this was called last, and the function's duration, seconds.

        It does not wait for a call that runs.
        """
        with self._counting:
            found = self._rows, self._seconds
            self._rows, self._seconds = 0, 0.0
        return found

    def close(self) -> None:
        """End the process."""
        self._child.stop()

    @property
    def _named(self) -> str:
        return f"The feature function {self.function.name} ({self.function.code})"

    def _asked(self, call: Call) -> Answer:
        if not self._child.runs:
            raise FunctionFailed(f"{self._named} was closed.")
        try:
            return msgspec.msgpack.decode(self._child.ask(call, self._limit_us / 1e6), type=Answer)
        except TimeoutError:
            limit = format_duration(self._limit_us)
            raise FunctionFailed(
                f"{self._named} was stopped: it ran for {limit} on {call.rows} rows.",
                fix="make it faster, give it fewer rows with batch_rows=, or more time with timeout=.",
            ) from None
        except (OSError, EOFError, msgspec.DecodeError) as error:
            self.close()
            raise FunctionFailed(
                f"{self._named} ended its process on {call.rows} rows: it crashed, or ran out of memory.",
                fix="run the function on these rows by itself.",
            ) from error

    def _started(self) -> None:
        try:
            answer = self._child.start(Load(self.function), self._loading_s)
            loaded = msgspec.msgpack.decode(answer, type=Loaded)
        except (OSError, EOFError, msgspec.DecodeError) as error:
            self.close()
            raise FunctionFailed(
                f"{self._named} does not load: its process ended, or took {self._loading_s:g} s.",
                fix="import its module by itself.",
            ) from error
        if loaded.error:
            self.close()
            raise FunctionFailed(f"{self._named} does not load: {loaded.error}", fix="correct its imports.")


class FunctionProcesses:
    """Processes of functions, each started once and kept, as a function's imports may take longer than its calls."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, int], FunctionProcess] = {}
        self.checked: set[str] = set()  # digests of functions that were found to repeat their values

    def of(self, function: FeatureFunction) -> FunctionProcess:
        """Return the process of a function."""
        return self._of.setdefault((function.digest, function.timeout_us), FunctionProcess(function))
