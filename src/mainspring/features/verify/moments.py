"""Choice of entities and instants to compare: instants at which a value changes, and some others."""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mainspring.core.time import DAY, HOUR
from mainspring.features.model import FeatureView, hop
from mainspring.features.state.blobs import SETTLING
from mainspring.features.verify.brute import Fact

_HORIZONS = (0, HOUR, DAY)


@dataclass(frozen=True, slots=True)
class Moment:
    """One materialisation, at `through`, and the (entity, instant) pairs to be read from it, up to `through + horizon`.

    Entities are numbers; instants are UTC epoch microseconds.
    """

    through: int
    horizon: int
    pairs: tuple[tuple[int, int], ...]


class Edges:
    """Instants at which a view's features of some entities may change.

    Args:
        entities: The rows of each entity.
    """

    def __init__(self, view: FeatureView, entities: Mapping[int, Sequence[Fact]], chance: random.Random) -> None:
        self._chance = chance
        self._lag = view.source.lag_us
        self._events = {number: sorted(fact.event for fact in facts) for number, facts in entities.items()}
        self._visible = {
            number: sorted(fact.visible(self._lag) for fact in facts) for number, facts in entities.items()
        }
        self._numbers = [number for number, facts in entities.items() if facts]
        self._ways: list[tuple[int, Callable[[int], int]]] = [(0, lambda event: event)]
        for feature in view.features.values():
            if feature.window is not None:
                self._ways.append((feature.window + hop(feature.window), _leaving(feature.window)))
                self._ways.append((feature.window, _plus(feature.window)))
                self._ways.append((hop(feature.window), _next_hop(hop(feature.window))))
            if feature.ttl is not None:
                self._ways.append((feature.ttl, _plus(feature.ttl)))
        widest = max(reach for reach, _ in self._ways)
        self.start = min(events[0] for events in self._events.values() if events)
        self.end = max(visible[-1] for visible in self._visible.values() if visible) + widest

    def moments(self, sample: int) -> list[Moment]:
        """Return about `sample` pairs, in ascending order of their materialisations."""
        number = min(max(sample // 8, 1), 24)
        throughs = sorted(self.somewhere()[1] for _ in range(number))
        moments = []
        for index, through in enumerate(throughs):
            share = sample // number + (index < sample % number)
            horizon = self._chance.choice(_HORIZONS)
            pairs = tuple(self._near(through, horizon) for _ in range(share))
            moments.append(Moment(through, horizon, pairs))
        return moments

    def somewhere(self) -> tuple[int, int]:
        """Return an entity and an instant: at one of its edges, or in one of five cases anywhere."""
        entity = self._chance.choice(self._numbers)
        if self._chance.random() < 0.2:
            return entity, self._chance.randint(self.start, self.end)
        if self._chance.random() < 0.3:
            return entity, self._beside(self._chance.choice(self._visible[entity]))
        _, way = self._chance.choice(self._ways)
        return entity, self._beside(way(self._chance.choice(self._events[entity])))

    def _near(self, through: int, horizon: int) -> tuple[int, int]:
        """Return an entity and an instant in `[through - SETTLING, through + horizon]`, at an edge if there is one."""
        entity = self._chance.choice(self._numbers)
        first, last = through - SETTLING, through + horizon
        if self._chance.random() < 0.2:
            return entity, self._chance.choice([first, through, last, self._chance.randint(first, last)])
        visible = _between(self._visible[entity], first, last)
        if visible and self._chance.random() < 0.3:
            return entity, self._within(self._chance.choice(visible), first, last)
        reach, way = self._chance.choice(self._ways)
        events = _between(self._events[entity], first - reach, last)
        at = way(self._chance.choice(events)) if events else through
        return entity, self._within(at if first <= at <= last else self._chance.randint(first, last), first, last)

    def _beside(self, instant: int) -> int:
        return instant + self._chance.choice([-1, 0, 1])

    def _within(self, instant: int, first: int, last: int) -> int:
        return min(max(self._beside(instant), first), last)


def _between(instants: Sequence[int], first: int, last: int) -> Sequence[int]:
    return instants[bisect_left(instants, first) : bisect_right(instants, last)]


def _plus(duration: int) -> Callable[[int], int]:
    return lambda event: event + duration


def _next_hop(width: int) -> Callable[[int], int]:
    return lambda event: (event // width + 1) * width


def _leaving(window: int) -> Callable[[int], int]:
    """Return the function from an event to the instant at which it leaves the window, rounded down to its hop."""
    width = hop(window)
    return lambda event: (event // width + 1) * width + window
