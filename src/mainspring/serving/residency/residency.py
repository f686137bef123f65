"""Models within a bound on memory.

A model's bytes are reserved before it is loaded, and those that leave for it are closed before. So the bound holds at
each moment, but for a new model whose size is not known yet: of that the size of its files is reserved, and the rest
once it was measured. All of this is thread-safe.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from mainspring.core.errors import MainspringError, TooLarge, Unavailable
from mainspring.registry.model import Bundle
from mainspring.serving.ports import Executor, Loader
from mainspring.serving.residency.choice import Held, Later, Never, make_room
from mainspring.serving.residency.measuring import give_back, growth
from mainspring.serving.residency.resident import ResidentExecutor
from mainspring.serving.scaling.crew import Crew

STAY_S = 5.0
LOADED, EVICTED, REFUSED, SCALED = "loaded", "evicted", "refused", "scaled"
UNBOUND = 1 << 62
_LOADS = 4  # at once
_ROOM_S = 30.0  # a load waits for room no longer
_MOMENT_S = 0.02
_KEPT = 256  # decisions
_NEW, _PINNED, _ASKED = "a new version", "it is resident", "a request"

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Decision:
    """A model that came, left, could not come, or got another number of executors. `at` is monotonic, seconds."""

    at: float
    what: str
    digest: str
    nbytes: int
    why: str
    executors: int = 0


class Residency:
    """The models of one process.

    Args:
        budget: Bytes that they may take together.
        make: Makes a model's executor anew from its digest, with the checks of digest and signature.
        clock: Monotonic, seconds.
        stay_s: A model that a request brought stays at least so long.
    """

    def __init__(
        self,
        budget: int,
        make: Callable[[str], Executor],
        *,
        clock: Callable[[], float] = time.monotonic,
        stay_s: float = STAY_S,
    ) -> None:
        self.budget = budget
        self.decisions: deque[Decision] = deque(maxlen=_KEPT)
        self._make = make
        self._clock = clock
        self._stay_s = stay_s
        self._changing = threading.Lock()
        self._models: dict[int, ResidentExecutor] = {}
        self._pinned: frozenset[str] = frozenset()
        self._loading = ThreadPoolExecutor(_LOADS, thread_name_prefix="resident")

    @property
    def used(self) -> int:
        """Bytes of the models that are in memory, or about to be."""
        with self._changing:
            return sum(each.nbytes for each in self._models.values() if each.reserved)

    def pin(self, digests: Collection[str]) -> None:
        """Let these models never leave, and bring those that are out."""
        self._pinned = frozenset(digests)
        for model in list(self._models.values()):
            if model.digest in self._pinned and not model.reserved:
                model.fetch()

    def first(self, digest: str, size: int, executors: Loader, load: Callable[[Loader], _T]) -> _T:
        """Return what `load` makes of a model that is new, and measure the model's memory.

        Args:
            size: Bytes of the model's files: so much it takes at least.
            load: Gets the loader to use in place of `executors`.

        Raises:
            TooLarge: It does not fit, whichever models leave.
            Unavailable: Models that may not leave yet take the room.
            As of `load`.
        """
        model = ResidentExecutor(
            digest, size, lock=self._changing, clock=self._clock, bring=self._submit, forget=self._forget
        )

        def make(bundle: Bundle) -> Executor:
            begun = self._clock()
            executor = executors(bundle)
            if executor.inline and self.budget == UNBOUND:
                return executor  # it stays: nothing is to be known of it
            return model.takes(_crew(executor), self._clock() - begun)

        try:
            self._admit(model, size, _NEW)
            made, grown = growth(lambda: load(make))
            if grown > size:
                self._admit(model, grown, _NEW)
        except BaseException as error:
            model.close()
            self._decided(REFUSED, model, str(error))
            raise
        if not model.outputs:
            self._forget(model)
            return made
        model.came(0.0)
        self._decided(LOADED, model, _NEW)
        return made

    def resize(self, model: ResidentExecutor, executors: int, why: str) -> Future[None]:
        """Give a model in memory another number of executors, in a thread; with 0 it leaves."""
        return self._loading.submit(self._resize, model, executors, why)

    def expected_s(self, model: ResidentExecutor) -> float:
        """Return in how long a model that is out will have been loaded, if all goes as it did last."""
        with self._changing:
            if model.reserved:
                return model.left_s()
            found = make_room(self._held(model), model.nbytes, self.budget, self._clock())
        return model.load_s + (max(0.0, found.at - self._clock()) if isinstance(found, Later) else 0.0)

    def stop(self) -> None:
        """Load nothing any more. Idempotent."""
        self._loading.shutdown(wait=False, cancel_futures=True)

    def _resize(self, model: ResidentExecutor, executors: int, why: str) -> None:
        if not executors:
            self._rest(model, why)
            return
        crew = model.crew
        while crew is not None and crew.size > executors:
            crew.drop()
            with self._changing:
                model.nbytes -= model.each
        try:
            while crew is not None and crew.size < executors:
                self._admit(model, model.each * (crew.size + 1), why, within_s=0.0, grows=crew)
                if not crew.add(lambda: self._make(model.digest)):
                    return  # the model left, and its bytes with it
        except Exception as error:
            with self._changing:
                if crew is model.crew:
                    model.nbytes = model.each * crew.size if crew is not None else model.each
            self._decided(REFUSED, model, f"an executor more, since {why}: {error}")
            return
        self._decided(SCALED, model, why)

    def _rest(self, model: ResidentExecutor, why: str) -> None:
        with self._changing:
            if not model.reserved or model.digest in self._pinned or model.held(pinned=False).busy:
                return
            executor = model.leave()
        if executor is not None:
            executor.close()
        give_back()
        self._decided(EVICTED, model, why)

    def _submit(self, model: ResidentExecutor) -> Future[None]:
        try:
            return self._loading.submit(self._load, model)
        except RuntimeError:  # it was stopped
            stopped: Future[None] = Future()
            stopped.set_exception(Unavailable("The gateway is stopping."))
            return stopped

    def _forget(self, model: ResidentExecutor) -> None:
        with self._changing:
            self._models.pop(model.number, None)

    def _load(self, model: ResidentExecutor) -> None:
        why = _PINNED if model.digest in self._pinned else _ASKED
        try:
            self._admit(model, model.nbytes, why)
            begun = self._clock()
            executor = _crew(self._make(model.digest))
            model.takes(executor, self._clock() - begun)
        except BaseException as error:
            model.failed()
            self._decided(REFUSED, model, str(error))
            if isinstance(error, MainspringError) and not isinstance(error, Unavailable):
                raise Unavailable(error.what) from error
            raise
        model.came(self._clock() + self._stay_s)
        self._decided(LOADED, model, why)

    def _admit(
        self, model: ResidentExecutor, need: int, why: str, within_s: float = _ROOM_S, grows: Crew | None = None
    ) -> None:
        """Reserve a model's bytes; wait for the room, and close what leaves for it."""
        until = self._clock() + within_s
        while True:
            with self._changing:
                if grows is not None and model.crew is not grows:
                    raise Unavailable("The model left.")
                found = make_room(self._held(model), need, self.budget, self._clock())
                if not isinstance(found, (Later, Never)):
                    leaving = [self._models[number] for number in found.names]
                    closing = [each.leave() for each in leaving]
                    model.nbytes, model.reserved = need, True
                    self._models[model.number] = model
                    break
            if isinstance(found, Never):
                raise self._too_large(model, need, found.taken)
            left_s = until - self._clock()
            if left_s <= 0:
                raise Unavailable("Models that are in use take the memory for models.")
            time.sleep(min(max(found.at - self._clock(), _MOMENT_S), left_s))
        for each, executor in zip(leaving, closing, strict=True):
            if executor is not None:
                executor.close()
            self._decided(EVICTED, each, f"{need:,} bytes are needed for bundle {model.digest[:12]}: {why}")
        if leaving:
            give_back()

    def _held(self, but: ResidentExecutor) -> list[Held]:
        return [
            each.held(pinned=each.digest in self._pinned)
            for each in self._models.values()
            if each.reserved and each is not but
        ]

    def _too_large(self, model: ResidentExecutor, need: int, taken: int) -> TooLarge:
        others = f", of which resident models hold {taken:,}" if taken else ""
        return TooLarge(
            f"The model of bundle {model.digest[:12]} takes {need:,} bytes, and each process has {self.budget:,} bytes "
            f"for models{others}: {need + taken - self.budget:,} bytes are missing.",
            fix="raise `memory` in the profile's table `gateway`, or let fewer endpoints be resident.",
        )

    def _decided(self, what: str, model: ResidentExecutor, why: str) -> None:
        self.decisions.append(Decision(self._clock(), what, model.digest, model.nbytes, why, model.size))
        _log.info(
            "Model %s %s, %d executors, %s bytes: %s", model.digest[:12], what, model.size, f"{model.nbytes:,}", why
        )


def _crew(executor: Executor) -> Executor:
    return executor if executor.inline else Crew(executor)
