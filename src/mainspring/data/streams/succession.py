"""Order of partitions that were split or merged: those that follow others wait until these were read to their end.

How far they were read is what is committed with the batches, so all workers know it, whichever of them reads what.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import chain

from mainspring.data.streams.ports import EventLog, Splitting


@dataclass(frozen=True, slots=True)
class Order:
    """Partitions of a topic.

    Attributes:
        ready: Those that may be read now, sorted, without those that were begun and are read to their end.
        waiting: Those that follow a partition which is not read to its end.
    """

    ready: list[int]
    waiting: frozenset[int] = frozenset()


def order(
    log: EventLog, topic: str, positions: Callable[[Collection[int]], Mapping[int, int | None]], *, from_first: bool
) -> Order:
    """Return which partitions of a topic may be read now.

    Args:
        positions: Returns partition -> the offset that is read next, of those of which one is committed; None keeps
            those that follow it waiting.
        from_first: Whether reading begins at the first messages; else partitions that ended before are passed over.
    """
    numbers = log.partitions(topic)
    if not isinstance(log, Splitting) or not (parents := log.parents(topic)):
        return Order(numbers)
    before = {*chain.from_iterable(parents.values())}
    at = positions({*numbers, *before})
    begun = {*at}  # or behind one that was
    for number in numbers:
        if not begun.isdisjoint(parents.get(number, ())):
            begun.add(number)
    ended = before.intersection(numbers)
    passed = set() if from_first else ended - begun
    asked = {each: at.get(each, 0) for each in ended - passed}
    empty = log.emptied(topic, {each: offset for each, offset in asked.items() if offset is not None})
    done = passed | (before - ended)
    waiting: set[int] = set()
    for number in numbers:
        if not done.issuperset(parents.get(number, ())):
            waiting.add(number)
        elif number in empty:
            done.add(number)
    left_out = waiting | passed | (done & at.keys())
    return Order([each for each in numbers if each not in left_out], frozenset(waiting))
