"""Ranks that must do the same."""

from __future__ import annotations

from collections.abc import Mapping

from mainspring.core.errors import Invalid
from mainspring.training.loop.world import World


def check_alike(world: World, digests: Mapping[str, str], function: str) -> None:
    """Raise where a rank trains something else than the first one. Every rank calls it.

    Args:
        digests: Digests of what must be equal, by the words for it.
        function: Name of the function that ranks call.

    Raises:
        Invalid: A digest differs; the message names the ranks and what differs.
    """
    every = world.gather(dict(digests))
    other = [rank for rank, each in enumerate(every) if each != every[0]]
    if other:
        differ = [name for name in digests if any(each[name] != every[0][name] for each in every)]
        raise Invalid(
            f"Rank {', '.join(map(str, other))} of {world.size} does not train what rank 0 does: "
            f"other {', other '.join(differ)}.",
            fix=f"call {function} alike in every process: the same seed, rows and model, whatever the rank.",
        )
