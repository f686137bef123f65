"""Earlier answers in memory, bounded in bytes and in time.

Which of them leave is decided by S3-FIFO: Yang, Zhang, Qiu, Yue and Vinayak, FIFO queues are all you need for cache
eviction, SOSP 2023. A new answer that nobody asks for again leaves soon, so a caller with ever new questions takes no
more than a small part of the room from the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_ENTRY = 512  # bytes of an entry beside its answer
_SMALL = 10  # one part in so many of the room is for answers that are new
_MOST_USES = 3  # that are counted


class _Entry:
    __slots__ = ("answer", "cost", "ends", "owner", "uses")

    def __init__(self, owner: str, answer: object, cost: int, ends: int) -> None:
        self.owner, self.answer, self.cost, self.ends = owner, answer, cost, ends
        self.uses = 0


class Answers:
    """Answers by digest. Instants are microseconds."""

    def __init__(self, most_bytes: int, ttl_us: int, now: Callable[[], int]) -> None:
        self._most_bytes, self._ttl_us, self._now = most_bytes, ttl_us, now
        # Each in order of arrival.
        self._new: dict[bytes, _Entry] = {}
        self._proven: dict[bytes, _Entry] = {}
        self._left: dict[bytes, None] = {}  # keys of those that were new when they left
        self._new_bytes = self.nbytes = 0
        self.evicted = 0  # for want of room

    def __len__(self) -> int:
        return len(self._new) + len(self._proven)

    def get(self, key: bytes, max_age_us: int | None = None) -> Any:
        """Return an answer; `None` if there is none, or none as young as `max_age_us`."""
        entry = self._new.get(key) or self._proven.get(key)
        if entry is None:
            return None
        left = entry.ends - self._now()
        if left <= 0:
            self._drop(key)
            return None
        if max_age_us is not None and self._ttl_us - left > max_age_us:
            return None
        entry.uses = min(_MOST_USES, entry.uses + 1)
        return entry.answer

    def put(self, key: bytes, owner: str, answer: object, nbytes: int) -> None:
        """Keep an answer, if it is not larger than all room."""
        cost = nbytes + _ENTRY
        if cost > self._most_bytes:
            return
        proven = key in self._proven or key in self._left
        self._drop(key)
        self._left.pop(key, None)
        while self.nbytes + cost > self._most_bytes:
            self._make_room()
        entry = _Entry(owner, answer, cost, self._now() + self._ttl_us)
        self.nbytes += cost
        if proven:
            self._proven[key] = entry
        else:
            self._new[key] = entry
            self._new_bytes += cost

    def erase(self, owner: str | None = None) -> int:
        """Forget the answers of an owner, or all, and return how many there were."""
        found = [
            key for queue in (self._new, self._proven) for key, entry in queue.items() if owner in (None, entry.owner)
        ]
        for key in found:
            self._drop(key)
        self._left.clear()  # whose they were is not known
        return len(found)

    def _make_room(self) -> None:
        """Let an answer leave, or give it another turn."""
        if self._new_bytes > self._most_bytes // _SMALL or not self._proven:
            key, entry = next(iter(self._new.items()))
            self._drop(key)
            if entry.uses > 1:
                entry.uses = 0
                self._proven[key] = entry
                self.nbytes += entry.cost
            else:
                self.evicted += 1
                self._left[key] = None
                if len(self._left) > len(self):
                    del self._left[next(iter(self._left))]
            return
        key, entry = next(iter(self._proven.items()))
        del self._proven[key]
        if entry.uses and entry.ends > self._now():
            entry.uses -= 1
            self._proven[key] = entry
        else:
            self.evicted += 1
            self.nbytes -= entry.cost

    def _drop(self, key: bytes) -> None:
        if (entry := self._new.pop(key, None)) is not None:
            self._new_bytes -= entry.cost
            self.nbytes -= entry.cost
        elif (entry := self._proven.pop(key, None)) is not None:
            self.nbytes -= entry.cost
