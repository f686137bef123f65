"""Versions that predict for a stream endpoint now, and which of them predicts an event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mainspring.serving.model import REQUEST, Route
from mainspring.serving.plane.live import Router, key_unit
from mainspring.serving.streaming.scoring import Columns, Predictor


@dataclass(frozen=True, slots=True)
class Chosen:
    """Events that one version predicts.

    Attributes:
        rows: Their places in the batch, ascending, shape (events,).
        weight: Probability of the version, as the rollout assigned it.
        units: Hash of each event's unit, shape (events,); without a rollout empty.
    """

    by: Predictor
    rows: Sequence[int]
    rollout: str = ""
    weight: float = 1.0
    units: Sequence[int] = ()


class Chooser(Protocol):
    """Choice of the version that predicts an event."""

    def choose(self, columns: Columns, ids: Sequence[str], /) -> list[Chosen]:
        """Return the versions with their events; each event has one.

        Args:
            columns: Fields and windows of the events, each of shape (events,).
            ids: Ids of the events.
        """
        ...


class Arms:
    """The versions of a route, the control first.

    A unit gets the version that a gateway gives it: a key stays in its arm, among the endpoint's requests too. Where
    requests are assigned, an event is one, by its id. So the choice is a function of the event and the route.

    Args:
        versions: As the route's arms, or the control alone.
        keys: Columns that are a key's unit.
    """

    def __init__(self, versions: Sequence[Predictor], route: Route | None = None, keys: Sequence[str] = ()) -> None:
        self.versions = versions
        self.rollout = "" if route is None else route.rollout
        self._router = None if route is None or len(versions) == 1 else Router(route.endpoint, route.arms, route.salt)
        self._by_id = route is not None and route.assign == REQUEST
        self._keys = keys

    def alone(self) -> Arms:
        """Return the control alone: nothing of the rollout counts."""
        return Arms(self.versions[:1])

    def choose(self, columns: Columns, ids: Sequence[str]) -> list[Chosen]:
        if self._router is None:
            units = [0] * len(ids) if self.rollout else ()
            return [Chosen(self.versions[0], range(len(ids)), self.rollout, 1.0, units)]
        found: dict[str, tuple[float, list[int], list[int]]] = {}
        for row, id_ in enumerate(ids):
            unit = id_.encode() if self._by_id else key_unit(columns[name][row] for name in self._keys)
            arm, weight, hashed = self._router.assign(unit)
            _, rows, units = found.setdefault(arm.version, (weight, [], []))
            rows.append(row)
            units.append(hashed)
        return [
            Chosen(by, rows, self.rollout, weight, units)
            for by in self.versions
            if by.version in found
            for weight, rows, units in [found[by.version]]
        ]


def taken(columns: Columns, rows: Sequence[int]) -> dict[str, Sequence[Any]]:
    """Return the rows of columns."""
    return {name: of if len(rows) == len(of) else [of[row] for row in rows] for name, of in columns.items()}
