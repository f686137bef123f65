"""Collections that a server searches: on threads of their own, in the builds that it follows."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from mainspring.core.errors import Denied, NotFound, NotReady, Overloaded
from mainspring.core.schema import Schema
from mainspring.vectors.declaring import Collection
from mainspring.vectors.model import Build, EncoderAway
from mainspring.vectors.ports import Encoder, TextIndex, VectorIndex

T = TypeVar("T")
_THREADS = 2
_MOST_WAITING = 64
_RETRY_MS = 1000
_SHARES = 2  # of the queue: a caller has one of them


@dataclass(frozen=True, slots=True)
class Opened:
    """Open parts of a build that a search uses.

    Attributes:
        words: Opens the index of its words; raises `Invalid` where there is none.
    """

    build: Build
    index: VectorIndex
    encoder: Encoder
    words: Callable[[], TextIndex]


class Open(Protocol):
    """Opens a build; called in the thread of a search."""

    def __call__(self, collection: Collection, build: Build, *, restoring: bool) -> Opened:
        """Return what a search in a build uses.

        Args:
            restoring: Whether an index that is not there is made again from the table of chunks.

        Raises:
            NotFound: The index is not there.
        """
        ...


class SearchThreads:
    """Threads of one collection's searches, so that neither the event loop nor another collection waits for them."""

    def __init__(self, name: str, *, threads: int = _THREADS, most_waiting: int = _MOST_WAITING) -> None:
        self._name, self._most = name, threads + most_waiting
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"search-{name}")
        self._under_way = Counter[str]()
        self._lock = threading.Lock()

    async def run(self, search: Callable[[], T], caller: str) -> T:
        """Return what a search returns. It is not begun if its caller leaves before.

        Args:
            caller: Id of the caller, who has a part of the queue at most.

        Raises:
            Overloaded: Too many wait, or too many of the caller's.
        """
        with self._lock:
            if self._under_way.total() >= self._most or self._under_way[caller] >= self._most // _SHARES:
                raise Overloaded(f"Too many searches in {self._name!r} wait.", retry_after_ms=_RETRY_MS)
            self._under_way[caller] += 1
        future = self._pool.submit(search)
        future.add_done_callback(lambda _: self._over(caller))
        return await asyncio.wrap_future(future)

    def _over(self, caller: str) -> None:
        with self._lock:
            self._under_way[caller] -= 1
            if not self._under_way[caller]:
                del self._under_way[caller]

    def close(self) -> None:
        """Let searches that have begun end, and begin no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, slots=True, eq=False)
class ServedCollection:
    """A collection that is searched.

    Attributes:
        builds: Returns the newest known build of each collection.
        look: Brings `builds` up to date with the catalog; returns whether that responded.
        open: Opens a build; called in a search's thread.
        watched: Whether it has a monitor.
    """

    declared: Collection
    builds: Callable[[], Mapping[str, Build]]
    look: Callable[[], bool]
    open: Open
    threads: SearchThreads = field(repr=False)
    watched: bool = False

    @property
    def filterable(self) -> Schema:
        """Fields that a caller's filter may name: the declared ones and the key, without those that identify a person,
        whose values could be guessed by filters."""
        declared, personal = self.declared, self.personal
        named = {declared.key, *declared.fields} - personal
        return {name: dtype for name, dtype in declared.filters.items() if name in named}

    @property
    def personal(self) -> frozenset[str]:
        """Columns that identify a person, which no caller of an API sees."""
        declared = self.declared
        return frozenset(declared.source.pii) & {declared.text, *declared.filters}

    def searched(self, act: Callable[[Opened], T]) -> T:
        """Return what an act returns with the build that searches use; again with a newer one if that was swapped
        meanwhile. Called in a thread.

        Raises:
            NotReady: There is no build, or it was swapped and the new one is not known yet.
            NotReady: The encoder is elsewhere, and does not answer, or not to our key.
        """
        build = self._build()
        try:
            return self._act(act, build)
        except NotFound:  # swapped, or lost
            known = self.look()
        newer = self._build()
        try:
            # Of a build that may be an old one, no index is made again: its chunks may be gone.
            return self._act(act, newer, restoring=known and newer == build)
        except NotFound:
            raise NotReady(f"Collection {self.declared.name!r} is being built anew.", fix="ask again.") from None

    def _act(self, act: Callable[[Opened], T], build: Build, *, restoring: bool = False) -> T:
        try:
            return act(self.open(self.declared, build, restoring=restoring))
        except (Denied, EncoderAway) as error:  # a caller would take our key for its own; the fix is logged alone
            what = f"The encoder of collection {self.declared.name!r} gives no vectors now."
            raise NotReady(what, fix=f"{error.what} {error.fix or ''}".strip()) from error

    def _build(self) -> Build:
        name = self.declared.name
        build = self.builds().get(name)
        if build is None:
            raise NotReady(f"Collection {name!r} has no build yet.", fix=f"run `mainspring collections build {name}`.")
        return build
