"""Models within a bound on memory.

A model's bytes are reserved before it is loaded, and those that leave for it are closed before. So the bound holds at
each moment, but for a new model whose size is not known yet: of that the size of its files is reserved, and the rest
once it was measured. All of this is thread-safe.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from mainspring.core.errors import MainspringError, TooLarge, Unavailable
from mainspring.core.time import Clock, SystemClock
from mainspring.registry.model import Bundle
from mainspring.serving.ports import Executor, Loader
from mainspring.serving.residency.choice import Held, Later, Never, make_room
from mainspring.serving.residency.measuring import give_back, give_large_blocks_back, growth
from mainspring.serving.residency.memory import UNBOUND, Decision, Memory, Size, What
from mainspring.serving.residency.resident import ResidentExecutor
from mainspring.serving.scaling.crew import Crew
from mainspring.serving.scaling.policy import Observed

STAY_S = 5.0
_LOADS = 4  # at once
_ROOM_S = 30.0  # a load waits for room no longer
_MOMENT_S = 0.02
_FIX = "raise `memory` in the profile's table `gateway`, or let fewer endpoints be resident."
_NEW, _PINNED, _ASKED, _RETIRED = "a new version", "it is resident", "a request", "its version is served no longer"

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Residency:
    """The models of one process.

    Args:
        memory: Bytes that they may take together, what they were measured to take, and the log of what is decided.
        make: Makes a model's executor anew from its digest, with the checks of digest and signature.
        clock: Monotonic, seconds.
        wall: The time of the world, for the log.
        stay_s: A model that a request brought stays at least so long.
        where: Name of the memory, in messages.
        fix: Of a model that does not fit.
        measure: Returns the result of a piece of work, and the growth of the memory by it.
    """

    def __init__(
        self,
        memory: Memory,
        make: Callable[[str], Executor],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Clock | None = None,
        stay_s: float = STAY_S,
        where: str = "each process",
        fix: str = _FIX,
        measure: Callable[[Callable[[], Any]], tuple[Any, int]] = growth,
    ) -> None:
        self.budget = memory.nbytes
        if self.budget != UNBOUND:
            give_large_blocks_back()
        self._sizes, self._decisions = memory.sizes, memory.decisions
        self._where, self._fix, self._measure = where, fix, measure
        self._make = make
        self._clock = clock
        self._wall = wall or SystemClock()
        self._stay_s = stay_s
        self._changing = threading.Lock()
        self._models: dict[int, ResidentExecutor] = {}
        self._pinned: frozenset[str] = frozenset()
        self._users: Mapping[str, Sequence[str]] = {}
        self._decided = False  # whether anything was
        self._stopped = False
        self._loading = ThreadPoolExecutor(_LOADS, thread_name_prefix="resident")

    @property
    def used(self) -> int:
        """Bytes of the models that are in memory, or about to be."""
        with self._changing:
            return sum(each.nbytes for each in self._models.values() if each.reserved)

    def pin(self, digests: Collection[str], users: Mapping[str, Sequence[str]] | None = None) -> None:
        """Let these models never leave, and bring those that are out.

        Args:
            users: Digest -> the endpoints that its model answers for.
        """
        if users is not None:
            self._users = users
        self._pinned = frozenset(digests)
        for model in list(self._models.values()):
            if model.digest in self._pinned and not model.reserved:
                model.fetch()

    def first(
        self,
        digest: str,
        size: int,
        executors: Loader,
        load: Callable[[Loader], _T],
        again: Callable[[str], Executor] | None = None,
    ) -> _T:
        """Return what `load` makes of a model that is new, and measure the model's memory.

        Args:
            size: Bytes of the model's files: so much it takes at least.
            load: Gets the loader to use in place of `executors`.
            again: Makes its executor anew, where that is not done as of other models.

        Raises:
            TooLarge: It does not fit, whichever models leave.
            Unavailable: Models that may not leave yet take the room.
            As of `load`.
        """
        known = self._sizes.find(digest)
        need = max(size, known.nbytes) if known is not None else size
        sure = known is None or known.sure
        model = ResidentExecutor(
            digest, need, lock=self._changing, clock=self._clock, bring=self._submit, forget=self._forget,
            make=again or self._make,
        )  # fmt: skip
        load_s = 0.0

        def make(bundle: Bundle) -> Executor:
            nonlocal load_s
            begun = self._clock()
            executor = executors(bundle)
            load_s = self._clock() - begun
            if executor.inline and self.budget == UNBOUND:
                return executor  # it stays: nothing is to be known of it
            return model.takes(_crew(executor), load_s)

        made: _T
        try:
            try:
                self._admit(model, need, _NEW)
            except TooLarge:
                if sure:
                    raise
                self._admit(model, size, _NEW)
            made, grown = self._measure(lambda: load(make))
            self._measured(model, max(size, grown), load_s)
        except BaseException as error:
            model.close()
            self._note(What.REFUSED, model, str(error))
            raise
        if not model.outputs:
            self._forget(model, 0)
            return made
        model.came(0.0)
        self._note(What.LOADED, model, _NEW)
        return made

    def _measured(self, model: ResidentExecutor, nbytes: int, load_s: float) -> None:
        """Count what a model takes in place of what it was taken to need, and keep that for the next start."""
        size, before = Size(nbytes=nbytes, load_s=load_s, at=self._wall.now()), self._sizes.find(model.digest)
        self._sizes.keep(model.digest, size if before is None else before.again(size))
        if nbytes > model.nbytes:
            self._admit(model, nbytes, _NEW)
        else:
            with self._changing:
                model.nbytes = nbytes

    def reserve(self, model: ResidentExecutor, nbytes: int) -> None:
        """Count so many bytes for a model in memory.

        Raises:
            TooLarge, Unavailable: As of `first`.
        """
        try:
            self._admit(model, nbytes, _NEW)
        except BaseException as error:
            model.close()
            self._note(What.REFUSED, model, str(error))
            raise
        model.each = nbytes

    def renew(self, model: ResidentExecutor, nbytes: int) -> None:
        """Load a new model once more, with the bytes that it was measured to take. Nobody calls it yet.

        Raises:
            As of `first`.
        """
        with self._changing:
            executor = model.leave()
        if executor is not None:
            executor.close()
        try:
            self._admit(model, nbytes, _NEW)
            begun = self._clock()
            model.takes(model.make(model.digest), self._clock() - begun)
        except BaseException as error:
            model.close()
            self._note(What.REFUSED, model, str(error))
            raise
        model.came(0.0)

    def resize(self, model: ResidentExecutor, executors: int, why: str, seen: Observed | None = None) -> Future[None]:
        """Give a model in memory another number of executors, in a thread; with 0 it leaves.

        Args:
            seen: Its load, for the log.
        """
        return self._loading.submit(self._resize, model, executors, why, seen)

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
        self._stopped = True
        if self._decided:
            self._decided = False
            self._decisions.add(Decision(at=self._wall.now(), what=What.ENDED, digest="", why="the process ended"))

    def _resize(self, model: ResidentExecutor, executors: int, why: str, seen: Observed | None) -> None:
        if not executors:
            self._rest(model, why, seen)
            return
        crew, before = model.crew, model.size
        while crew is not None and crew.size > executors:
            if not crew.drop():
                return  # the model left, and its bytes with it; or streams take all but one
            with self._changing:
                if crew is model.crew:
                    model.nbytes -= model.each
        try:
            while crew is not None and crew.size < executors:
                self._admit(model, model.each * (crew.size + 1), why, within_s=0.0, grows=crew)
                if not crew.add(lambda: model.make(model.digest)):
                    return  # the model left, and its bytes with it
        except Exception as error:
            with self._changing:
                if crew is model.crew:
                    model.nbytes = model.each * crew.size if crew is not None else model.each
            self._note(What.REFUSED, model, f"an executor more, since {why}: {error}", before=before, seen=seen)
            return
        self._note(What.SCALED, model, why, before=before, seen=seen)

    def _rest(self, model: ResidentExecutor, why: str, seen: Observed | None) -> None:
        with self._changing:
            if not model.reserved or model.digest in self._pinned or model.held(pinned=False).busy:
                return
            before, nbytes = model.size, model.nbytes
            executor = model.leave()
        if executor is not None:
            executor.close()
        give_back()
        self._note(What.EVICTED, model, why, before=before, nbytes=nbytes, seen=seen)

    def _submit(self, model: ResidentExecutor) -> Future[None]:
        try:
            return self._loading.submit(self._load, model)
        except RuntimeError:  # it was stopped
            stopped: Future[None] = Future()
            stopped.set_exception(Unavailable("The gateway is stopping."))
            return stopped

    def _forget(self, model: ResidentExecutor, executors: int) -> None:
        with self._changing:
            self._models.pop(model.number, None)
        if executors:
            self._note(What.EVICTED, model, _RETIRED, before=executors)

    def _load(self, model: ResidentExecutor) -> None:
        why = _PINNED if model.digest in self._pinned else _ASKED
        try:
            self._admit(model, model.nbytes, why)
            begun = self._clock()
            executor = _crew(model.make(model.digest))
            model.takes(executor, self._clock() - begun)
        except BaseException as error:
            model.failed()
            self._note(What.REFUSED, model, str(error))
            if isinstance(error, MainspringError) and not isinstance(error, Unavailable):
                raise Unavailable(error.what) from error
            raise
        model.came(self._clock() + self._stay_s)
        self._note(What.LOADED, model, why)

    def _admit(
        self, model: ResidentExecutor, need: int, why: str, within_s: float = _ROOM_S, grows: Crew | None = None
    ) -> None:
        """Reserve a model's bytes; wait for the room, and close what leaves for it."""
        until = self._clock() + within_s
        while True:
            with self._changing:
                if model.closed or (grows is not None and model.crew is not grows):
                    raise Unavailable("The model left.")
                found = make_room(self._held(model), need, self.budget, self._clock())
                if not isinstance(found, (Later, Never)):
                    leaving = [self._models[number] for number in found.names]
                    had = [(each.size, each.nbytes) for each in leaving]
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
        for each, executor, (before, nbytes) in zip(leaving, closing, had, strict=True):
            if executor is not None:
                executor.close()
            said = f"{need:,} bytes are needed for bundle {model.digest[:12]}: {why}"
            self._note(What.EVICTED, each, said, before=before, nbytes=nbytes)
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
            f"The model of bundle {model.digest[:12]} takes {need:,} bytes, and {self._where} has {self.budget:,} "
            f"bytes for models{others}: {need + taken - self.budget:,} bytes are missing.",
            fix=self._fix,
        )

    def _note(
        self,
        what: What,
        model: ResidentExecutor,
        why: str,
        *,
        before: int = 0,
        nbytes: int | None = None,
        seen: Observed | None = None,
    ) -> None:
        """Log a decision, until all is stopped.

        Args:
            before: How many executors the model had.
            nbytes: Memory that it had, of one that leaves.
        """
        if self._stopped:
            return
        size, used, bytes_ = model.size, self.used, model.nbytes if nbytes is None else nbytes
        more = {
            What.LOADED: bytes_,
            What.EVICTED: -bytes_,
            What.SCALED: model.each * (size - before),
        }.get(what, 0)
        self._decided = True
        self._decisions.add(
            Decision(
                at=self._wall.now(),
                what=what,
                digest=model.digest,
                why=why,
                endpoints=tuple(self._users.get(model.digest, ())),
                nbytes=bytes_,
                executors=size,
                before=before,
                used=used,
                used_before=max(0, used - more),
                budget=0 if self.budget == UNBOUND else self.budget,
                delay_ms=None if seen is None else seen.delay_s * 1000,
                lost=None if seen is None else seen.lost,
                busy=None if seen is None else seen.busy,
            )
        )
        _log.info("Model %s %s, %d executors, %s bytes: %s", model.digest[:12], what, size, f"{bytes_:,}", why)


def _crew(executor: Executor) -> Executor:
    return executor if executor.inline else Crew(executor)
