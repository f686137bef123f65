"""Division of an amount among those who caused it: no part of it is lost or made."""

from __future__ import annotations

from collections.abc import Sequence


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """Return parts in the ratio of weights that together are the total, each within 1 of its exact part.

    By the largest remainder (Hamilton's method): each part is rounded down, and what is left goes, one by one, to those
    that lost most; among equals to the first. Without any weight above 0 the first part is all.

    Args:
        weights: At least one, none below 0.
    """
    whole = sum(weights)
    if not whole:
        return [total] + [0] * (len(weights) - 1)
    parts = [total * weight // whole for weight in weights]
    left = total - sum(parts)
    if left:
        remainders = [total * weight % whole for weight in weights]
        for place in sorted(range(len(weights)), key=lambda place: -remainders[place])[:left]:
            parts[place] += 1
    return parts
