"""Several executors of one model as one: a batch's rows are divided among them, and computed at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from mainspring.registry.model import TensorSpec
from mainspring.serving.ports import Executor

if TYPE_CHECKING:
    import numpy as np

    Values = Sequence[Any] | np.ndarray[Any, Any]


class Crew:
    """An `Executor` of one or more that are alike, each of which runs one call at a time.

    Args:
        first: Gives the inputs and outputs, and stays as long as the crew.
    """

    inline = False

    def __init__(self, first: Executor) -> None:
        self._first = first
        self._members = [_Member(first)]  # replaced, never changed
        self._changing = threading.Lock()
        self._closed = False
        self._threads: ThreadPoolExecutor | None = None

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        return self._first.inputs

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        return self._first.outputs

    @property
    def size(self) -> int:
        return len(self._members)

    def nullable(self, name: str) -> bool:
        return self._first.nullable(name)

    def predict(self, inputs: Mapping[str, Values], rows: int) -> dict[str, Any]:
        members = self._members[:rows] or self._members
        if len(members) == 1:
            return members[0].run(inputs, rows, members[0])
        bounds = [rows * place // len(members) for place in range(len(members) + 1)]

        def run(place: int) -> dict[str, Any]:
            first, last = bounds[place], bounds[place + 1]
            part = {name: values[first:last] for name, values in inputs.items()}
            return members[place].run(part, last - first, members[0])

        threads = self._threads or self._started()
        others = [threads.submit(run, place) for place in range(1, len(members))]
        try:
            parts = [run(0)]
        finally:
            for each in others:
                each.exception()  # none of them runs on after the batch has ended
        parts += [each.result() for each in others]
        import numpy as np

        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    @property
    def yields(self) -> bool:
        return bool(getattr(self._first, "yields", False))

    def events(self, inputs: Mapping[str, Values], rows: int) -> Generator[dict[str, Any], None, None]:
        found: Generator[dict[str, Any], None, None] = self._first.events(inputs, rows)  # type: ignore[attr-defined]
        return found

    def add(self, make: Callable[[], Executor]) -> bool:
        """Make another one, and let it take part. Returns whether it does: the crew may have been closed."""
        member = _Member(make())
        with self._changing:
            if not self._closed:
                self._members = [*self._members, member]
                return True
        member.close()
        return False

    def drop(self) -> None:
        """Close the last one once it is idle, if it is not the only one."""
        with self._changing:
            if len(self._members) == 1:
                return
            *self._members, last = self._members
        last.close()

    def close(self) -> None:
        with self._changing:
            members, self._closed = self._members, True
        for each in members:
            each.executor.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False)

    def _started(self) -> ThreadPoolExecutor:
        with self._changing:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(thread_name_prefix="crew")
            return self._threads


class _Member:
    """One executor of a crew."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self._running = threading.Lock()
        self._closed = False

    def run(self, inputs: Mapping[str, Values], rows: int, instead: _Member) -> dict[str, Any]:
        """Return the outputs; `instead` computes them if this one was dropped."""
        if self is not instead:
            with self._running:
                if not self._closed:
                    return self.executor.predict(inputs, rows)
        return instead.executor.predict(inputs, rows)

    def close(self) -> None:
        with self._running:
            self._closed = True
            self.executor.close()
