"""Usage in this process's memory."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence

from mainspring.core.time import DAY, HOUR
from mainspring.cost.ports import FIELDS
from mainspring.cost.usage import MOST_SUBJECTS, Subject, Usage, bounded, fitting, order, shortened, summed

_Key = tuple[str, int, bool, Subject, str]  # machine, start, whether it is a day, subject, measure


class MemoryUsage:
    """For tests and experiments."""

    def __init__(self, most: int = MOST_SUBJECTS) -> None:
        self._most = most
        self._amounts: dict[_Key, int] = {}
        self._sources: dict[str, tuple[int, bytes, int]] = {}
        self._lock = threading.Lock()

    def add(self, source: str, sequence: int, usages: Sequence[Usage], state: bytes = b"") -> bool:
        with self._lock:
            if sequence <= self._sources.get(source, (0, b"", 0))[0]:
                return False
            newest = max((each.start for each in usages), default=self._sources.get(source, (0, b"", 0))[2])
            self._sources[source] = sequence, state, newest
            for each in summed(usages):
                self._put(each)
            return True

    def _put(self, each: Usage) -> None:
        hour = each.start - each.start % HOUR
        subject = shortened(each.subject)
        here = {key[3] for key in self._amounts if key[0] == each.machine and key[1] == hour and not key[2]}
        subject = fitting(subject, here.__contains__, len(here), self._most)
        key = (each.machine, hour, False, subject, each.measure)
        self._amounts[key] = self._amounts.get(key, 0) + each.amount

    def last(self, source: str) -> tuple[int, bytes]:
        sequence, state, _ = self._sources.get(source, (0, b"", 0))
        return sequence, state

    def read(
        self,
        since: int,
        until: int,
        *,
        by: Collection[str] = FIELDS,
        daily: bool = True,
        kinds: Collection[str] | None = None,
    ) -> list[Usage]:
        found = summed(
            Usage(
                machine=machine if "machine" in by else "",
                start=start - start % DAY if daily else 0,
                subject=_only(subject, by),
                measure=measure,
                amount=amount,
            )
            for (machine, start, _, subject, measure), amount in self._amounts.items()
            if since <= start < until and (kinds is None or subject.kind in kinds)
        )
        return sorted(found, key=order)

    def roll_up(self, before: int, forget: int = 0) -> int:
        with self._lock:
            count = len(self._amounts)
            for key in [key for key in self._amounts if key[1] < forget]:
                del self._amounts[key]
            until = before - before % DAY
            merged = {key[1] - key[1] % DAY for key in self._amounts if key[1] < until and not key[2]}
            old = {key: amount for key, amount in self._amounts.items() if key[1] - key[1] % DAY in merged}
            for key in old:
                del self._amounts[key]
            days = bounded(
                (
                    Usage(machine=key[0], start=key[1] - key[1] % DAY, subject=key[3], measure=key[4], amount=amount)
                    for key, amount in old.items()
                ),
                self._most,
            )
            for each in days:
                self._amounts[each.machine, each.start, True, each.subject, each.measure] = each.amount
            self._sources = {name: held for name, held in self._sources.items() if held[2] >= forget}
            return count - len(self._amounts)


def _only(subject: Subject, by: Collection[str]) -> Subject:
    kept = {name: getattr(subject, name) for name in FIELDS[1:] if name in by}
    return Subject(**{"kind": "", "id": "", **kept}, inside=subject.inside)
