"""The models that leave the memory for another. A pure function of the models that are in it, and of the time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True)
class Held:
    """A model in memory.

    Attributes:
        name: Tells it from the others.
        nbytes: Its measured size.
        used_at: When a request last needed it, seconds.
        stays_until: Before then it does not leave, seconds; infinite for one that never does.
        busy: Whether it answers a call now.
    """

    name: int
    nbytes: int
    used_at: float
    stays_until: float = 0.0
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Leave:
    """These leave, and then there is room."""

    names: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Later:
    """There may be room at `at`, seconds; not before."""

    at: float


@dataclass(frozen=True, slots=True)
class Never:
    """The models that never leave take `taken` bytes, and beside them there is no room."""

    taken: int


def make_room(held: Iterable[Held], need: int, budget: int, now: float) -> Leave | Later | Never:
    """Return the models that leave so that `need` bytes more are within the budget: the least recently used ones.

    Of these none is taken without need: one stays if the room that later ones make is enough.
    """
    held = list(held)
    taken = sum(each.nbytes for each in held if each.stays_until == inf)
    if taken + need > budget:
        return Never(taken)
    over = sum(each.nbytes for each in held) + need - budget
    chosen: list[Held] = []
    for each in sorted(held, key=lambda each: each.used_at):
        if over <= 0:
            break
        if not each.busy and each.stays_until <= now:
            chosen.append(each)
            over -= each.nbytes
    if over > 0:
        left = sorted(each.stays_until for each in held if each not in chosen and each.stays_until < inf)
        return Later(max(now, left[0]))
    for each in reversed(chosen):  # the most recently used of them stays where it can
        if each.nbytes <= -over:
            chosen.remove(each)
            over += each.nbytes
    return Leave(tuple(each.name for each in chosen))
