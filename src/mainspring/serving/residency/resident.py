"""The executor of a model that may be out of memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from math import inf
from threading import Lock
from typing import TYPE_CHECKING, Any

from mainspring.core.errors import Unavailable
from mainspring.registry.model import TensorSpec
from mainspring.serving.ports import Executor
from mainspring.serving.residency.choice import Held
from mainspring.serving.scaling.crew import Crew

if TYPE_CHECKING:
    import numpy as np

JUST_S = 0.5  # a model that was asked for just now may be about to be called
_RETRY_FIRST_S, _RETRY_LAST_S = 1.0, 60.0

_numbers = itertools.count()


class ResidentExecutor:
    """An `Executor` whose model is in memory or out. It keeps the model's inputs and outputs.

    Args:
        digest: Of its bundle.
        nbytes: Its least size; more once it was measured.
        lock: Guards the state of all models together.
        clock: Monotonic, seconds.
        bring: Begins to load it.
        forget: Is told once it is closed, and how many executors it had in memory.
        make: Makes its executor anew, from the digest.
    """

    def __init__(
        self,
        digest: str,
        nbytes: int,
        *,
        lock: Lock,
        clock: Callable[[], float],
        bring: Callable[[ResidentExecutor], Future[None]],
        forget: Callable[[ResidentExecutor, int], None],
        make: Callable[[str], Executor],
    ) -> None:
        self.make = make
        self.number = next(_numbers)
        self.digest = digest
        self.nbytes = nbytes
        self.each = nbytes  # of one executor
        self.reserved = False  # whether its bytes count
        self.loads = self.evictions = 0
        self.load_s = 0.0  # of the last time
        self.inputs: Mapping[str, TensorSpec] = {}
        self.outputs: Mapping[str, TensorSpec] = {}
        self._nullable: frozenset[str] = frozenset()
        self._inline = False
        self.yields = False
        self._executor: Executor | None = None
        self._ready = False  # whether it is in memory, and all of its checks were made
        self._calls = 0
        self._asked = False  # since it was loaded
        self._used_at = 0.0
        self._stays_until = 0.0
        self.closed = False
        self._changing = lock
        self._clock = clock
        self._bring = bring
        self._forget = forget
        self._fetching: Future[None] | None = None
        self._began = 0.0
        self._retry_at = self._retry_s = 0.0

    @property
    def crew(self) -> Crew | None:
        """Its executors, where they are processes of their own and in memory."""
        executor = self._executor
        return executor if isinstance(executor, Crew) else None

    @property
    def size(self) -> int:
        """How many executors it has."""
        return crew.size if (crew := self.crew) is not None else int(self._ready)

    @property
    def inline(self) -> bool:
        return self._inline

    def nullable(self, name: str) -> bool:
        return name in self._nullable

    def predict(
        self, inputs: Mapping[str, Sequence[Any] | np.ndarray[Any, Any]], rows: int, executors: int = 1
    ) -> dict[str, Any]:
        """Return the outputs, as any executor does; `executors` as of `Crew.predict`."""
        executor = self._entered()
        try:
            if executors > 1 and isinstance(executor, Crew):
                return executor.predict(inputs, rows, executors)
            return executor.predict(inputs, rows)
        finally:
            self._left()

    def events(
        self, inputs: Mapping[str, Sequence[Any] | np.ndarray[Any, Any]], rows: int
    ) -> Generator[dict[str, Any], None, None]:
        executor = self._entered()
        try:
            yield from executor.events(inputs, rows)  # type: ignore[attr-defined]
        finally:
            self._left()

    def close(self) -> None:
        with self._changing:
            size = self.size if self._ready else 0
            self.closed, self.reserved, self._ready = True, False, False
            executor, self._executor = self._executor, None
        self._forget(self, size)
        if executor is not None:
            executor.close()

    def ask(self) -> bool:
        """Return whether the model is in memory; if so it stays for a moment, in which it may be called."""
        if self._executor is None:  # without the lock: one that leaves in this moment is loaded again by its call
            return False
        self._asked, self._used_at = True, self._clock()
        return True

    @property
    def here(self) -> bool:
        """Whether the model is in memory."""
        return self._ready

    def fetch(self) -> Future[None]:
        """Return the load that is under way, or begin one if the model is out.

        It raises in the result:
            Unavailable: The model cannot be loaded now; after that it is not tried again for a while.
        """
        with self._changing:
            if self._fetching is not None and (not self._fetching.done() or self._clock() < self._retry_at):
                return self._fetching
            if self._executor is not None:  # it came since the caller looked
                there: Future[None] = Future()
                there.set_result(None)
                return there
            self._began = self._clock()
            self._fetching = self._bring(self)
            return self._fetching

    def left_s(self) -> float:
        """Return how long the load that is under way takes from now on, as the last one did."""
        return max(0.0, self._began + self.load_s - self._clock())

    # For those who load it and have it leave

    def takes(self, executor: Executor, took_s: float) -> ResidentExecutor:
        """Have this model in memory.

        Raises:
            Unavailable: It was closed meanwhile, or has other inputs or outputs than before.
        """
        changed = bool(self.inputs) and (dict(executor.inputs) != self.inputs or dict(executor.outputs) != self.outputs)
        with self._changing:
            if not (closed := self.closed or changed):
                self._executor = executor
        if closed:
            executor.close()
            raise Unavailable(f"The model of bundle {self.digest[:12]} {'changed' if changed else 'was closed'}.")
        self.inputs, self.outputs = dict(executor.inputs), dict(executor.outputs)
        self._nullable = frozenset(name for name in self.inputs if executor.nullable(name))
        self._inline = executor.inline
        self.yields = bool(getattr(executor, "yields", False))
        self.load_s = took_s
        return self

    def came(self, stays_until: float) -> None:
        """Let it answer, and stay until then."""
        with self._changing:
            self._ready, self._asked = not self.closed, False
            self._used_at, self._stays_until = self._clock(), stays_until
            self._retry_s = 0.0
            self.each = self.nbytes
            self.loads += 1

    def failed(self) -> None:
        """Free its bytes after a load that failed, and let no other begin for a while."""
        with self._changing:
            executor, self._executor = self._executor, None
            self.reserved = self._ready = False
            self._retry_s = min(max(2 * self._retry_s, _RETRY_FIRST_S), _RETRY_LAST_S)
            self._retry_at = self._clock() + self._retry_s
        if executor is not None:
            executor.close()

    def leave(self) -> Executor | None:
        """Take the model out, with the lock held, and return what has to be closed."""
        executor, self._executor = self._executor, None
        self.reserved = self._ready = False
        self.nbytes = self.each
        self.evictions += 1
        return executor

    def held(self, *, pinned: bool) -> Held:
        """Return how it stands, with the lock held."""
        stays = inf if pinned else max(self._stays_until, self._used_at + JUST_S if self._asked else 0.0)
        return Held(self.number, self.nbytes, self._used_at, stays, busy=self._calls > 0 or not self._ready)

    def _entered(self) -> Executor:
        """Begin a call, and load the model first if it left since its lane saw it."""
        while (executor := self._enter()) is None:
            self.fetch().result()
        return executor

    def _left(self) -> None:
        with self._changing:
            self._calls -= 1
            self._used_at = self._clock()

    def _enter(self) -> Executor | None:
        with self._changing:
            if self._executor is not None:
                self._calls += 1
                self._asked, self._used_at = True, self._clock()
            elif self.closed:
                raise Unavailable("The model was closed.")
            return self._executor
