"""Fusion of ranked lists: one ranking of what several searches found, with the reason for each place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mainspring.core.errors import Invalid
from mainspring.vectors.model import Hit

K = 60  # as in the paper: the smaller, the more the first ranks count


@dataclass(frozen=True, slots=True)
class Place:
    """A hit's place in one list.

    Attributes:
        rank: From 1.
        score: Score in the list, which no other list's can be compared with.
        share: Part of the fused score.
    """

    rank: int
    score: float
    share: float


@dataclass(frozen=True, slots=True)
class FusedHit:
    """A hit of several lists.

    Attributes:
        score: Sum of the shares of its places.
        places: List -> place in it; lists that have not found it are absent.
    """

    id: str
    score: float
    places: Mapping[str, Place]


def fuse(
    lists: Mapping[str, Sequence[Hit]], k: int, *, weights: Mapping[str, float] | None = None, constant: float = K
) -> list[FusedHit]:
    """Return the `k` best of several ranked lists by reciprocal rank fusion (Cormack, Clarke, Büttcher 2009).

    A place of rank r in a list adds weight / (constant + r). Ties are ordered by id.

    Args:
        lists: Name -> hits, the best first. An id counts at its first place in a list.
        weights: List -> weight, 1 where it is absent.

    Raises:
        Invalid: `k` is below 1, the constant or a weight is negative or not finite, or a weight is of no list.
    """
    given = weights or {}
    if k < 1:
        raise Invalid(f"A fusion is for the {k} best.", fix="ask for 1 or more.")
    unknown = sorted(set(given) - set(lists))
    if unknown:
        raise Invalid(f"{unknown[0]!r} has a weight and is no list.", fix=f"the lists are {sorted(lists)}.")
    for what, number in (("constant", constant), *((f"weight of {name!r}", each) for name, each in given.items())):
        if not 0 <= number < math.inf:
            raise Invalid(f"The {what} of a fusion is {number!r}.", fix="give a finite number from 0.")
    places: dict[str, dict[str, Place]] = {}
    for name in sorted(lists):
        weight = given.get(name, 1.0)
        for rank, hit in enumerate(lists[name], start=1):
            places.setdefault(hit.id, {}).setdefault(name, Place(rank, hit.score, weight / (constant + rank)))
    fused = [FusedHit(id, math.fsum(each.share for each in at.values()), at) for id, at in places.items()]
    return sorted(fused, key=lambda hit: (-hit.score, hit.id))[:k]
