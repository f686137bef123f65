"""Several executors of one model as one: each call gets one that is idle, or several that divide its rows."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from mainspring.core.errors import Unavailable
from mainspring.registry.model import TensorSpec
from mainspring.serving.ports import Executor

if TYPE_CHECKING:
    import numpy as np

    Values = Sequence[Any] | np.ndarray[Any, Any]

T = TypeVar("T")
_MOST_PARTS = 64  # that are computed at once, beside the first of each call


class Crew:
    """An `Executor` of one or more that are alike, each of which runs one call at a time. Threads call it at once; a
    call that finds none idle waits for one. A stream has one executor to its end, and takes its time for a part alone.

    Args:
        first: Gives the inputs and outputs, and stays as long as the crew.
    """

    inline = False

    def __init__(self, first: Executor) -> None:
        self._first = first
        self._members = [first]
        self._idle = [first]  # the one that was used last comes first again: its memory is warm
        self._streams: Counter[int] = Counter()  # id of a member -> its streams that are under way
        self._changed = threading.Condition()
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

    def predict(self, inputs: Mapping[str, Values], rows: int, executors: int = 1) -> dict[str, Any]:
        """Return the outputs, as any executor does.

        Args:
            executors: How many may divide the rows, as far as they are idle.

        Raises:
            Unavailable: The crew was closed.
            As of any executor.
        """
        members = self._take(max(1, min(executors, rows)))
        if len(members) == 1:
            try:
                return members[0].predict(inputs, rows)
            finally:
                self._give_back(members[0])
        bounds = [rows * place // len(members) for place in range(len(members) + 1)]

        def run(place: int) -> dict[str, Any]:
            first, last = bounds[place], bounds[place + 1]
            try:
                part = {name: values[first:last] for name, values in inputs.items()}
                return members[place].predict(part, last - first)
            finally:
                self._give_back(members[place])

        others = self._begun(run, len(members))
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
        with self._changed:
            member = min(self._members, key=lambda each: self._streams[id(each)])
            self._streams[id(member)] += 1
        source: Generator[dict[str, Any], None, None] = member.events(inputs, rows)  # type: ignore[attr-defined]
        over = False
        try:
            while not over:
                over = True  # as it is if this part fails
                if (part := self._alone(member, lambda: next(source, None))) is not None:
                    over = False
                    yield part
        finally:
            try:
                if not over:
                    self._alone(member, source.close)
            finally:
                with self._changed:
                    self._streams[id(member)] -= 1
                    self._changed.notify_all()

    def add(self, make: Callable[[], Executor]) -> bool:
        """Make another one, and let it take part. Returns whether it does: the crew may have been closed."""
        member = make()
        with self._changed:
            if not self._closed:
                self._members.append(member)
                self._idle.append(member)
                self._changed.notify_all()
                return True
        member.close()
        return False

    def drop(self) -> bool:
        """Close one that has no stream, once it is idle. Returns whether it did: the first one stays, and the crew may
        have been closed."""
        with self._changed:
            while not self._closed and (others := [each for each in self._members[1:] if not self._streams[id(each)]]):
                found = next((each for each in self._idle if each in others), None)
                if found is not None:
                    self._idle.remove(found)
                    self._members.remove(found)
                    break
                self._changed.wait()
            else:
                return False
        found.close()
        return True

    def close(self) -> None:
        with self._changed:
            members, self._closed = [*self._members], True
            self._changed.notify_all()
        for each in members:
            each.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False)

    def _take(self, most: int) -> list[Executor]:
        """Return an executor, and further ones that are idle, for this call alone."""
        with self._changed:
            while not self._idle and not self._closed:
                self._changed.wait()
            if self._closed:
                raise _closed()
            return [self._idle.pop() for _ in range(min(most, len(self._idle)))]

    def _alone(self, member: Executor, work: Callable[[], T]) -> T:
        """Do a part of a stream, while its executor does nothing else. A closed one says so by itself."""
        with self._changed:
            while member not in self._idle and not self._closed:
                self._changed.wait()
            if member in self._idle:
                self._idle.remove(member)
        try:
            return work()
        finally:
            self._give_back(member)

    def _give_back(self, member: Executor) -> None:
        with self._changed:
            if member not in self._idle:
                self._idle.append(member)
            self._changed.notify_all()

    def _begun(self, run: Callable[[int], T], count: int) -> list[Future[T]]:
        """Have all parts computed in threads but the first.

        Raises:
            Unavailable: The crew was closed since its members were taken.
        """
        with self._changed:
            if self._closed:
                raise _closed()
            if self._threads is None:
                self._threads = ThreadPoolExecutor(_MOST_PARTS, thread_name_prefix="crew")
            return [self._threads.submit(run, place) for place in range(1, count)]


def _closed() -> Unavailable:
    return Unavailable("The model was closed.")
