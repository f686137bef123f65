"""Equality of routing tables."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mainspring.core.errors import Invalid
from mainspring.serving.model import Route


def normalised(routes: Iterable[Route]) -> dict[str, Route]:
    """Return endpoint -> route, sorted and without revisions, so that equal tables compare equal.

    Raises:
        Invalid: Two routes have one endpoint, or a route has no arm or a negative or zero total weight.
    """
    table: dict[str, Route] = {}
    for route in sorted(routes, key=lambda route: route.endpoint):
        if route.endpoint in table:
            raise Invalid(f"Two routes are for the endpoint {route.endpoint!r}.")
        weights = [arm.weight for arm in route.arms]
        if not weights or min(weights) < 0 or not 0 < sum(weights) < float("inf"):
            raise Invalid(f"The route of {route.endpoint!r} has the weights {weights}.", fix="give an arm some weight.")
        table[route.endpoint] = msgspec.structs.replace(route, revision=0)
    return table


def stamped(table: dict[str, Route], revision: int) -> dict[str, Route]:
    """Return the table with its revision on every route."""
    return {name: msgspec.structs.replace(route, revision=revision) for name, route in table.items()}
