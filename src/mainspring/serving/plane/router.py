"""Weighted routing of requests to versions, sticky by key."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from hashlib import blake2b
from itertools import accumulate

from mainspring.serving.model import Arm


class Router:
    """Splits an endpoint's keys between its arms by their weights.

    A key's place in [0, 1) is a hash of it and the endpoint's name; the arms divide that interval in their order. So a
    key stays where it is while weights stay, and when one arm grows, only keys of its neighbours move.
    """

    def __init__(self, endpoint: str, arms: Sequence[Arm]) -> None:
        self._arms = arms
        self._person = blake2b(endpoint.encode(), digest_size=16).digest()
        bounds = list(accumulate(arm.weight for arm in arms))
        self._bounds = [bound / bounds[-1] for bound in bounds[:-1]]

    def pick(self, key: bytes) -> Arm:
        """Return the arm of a key."""
        if not self._bounds:
            return self._arms[0]
        hashed = blake2b(key, digest_size=8, person=self._person).digest()
        place = int.from_bytes(hashed, "big") / 2**64
        # An arm without weight has an empty interval; bisecting to the right steps over it.
        return self._arms[min(bisect_right(self._bounds, place), len(self._arms) - 1)]
