"""What is kept of a view's rows so that its windows can be answered: measures, and mergeable parts of them.

A measure is an expression under a filter, one value a row, null where the filter does not hold. Windows that aggregate
the same measure share its parts, and windows of one hop share their tiles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from mainspring.core.expr import Node
from mainspring.features.model import Aggregation, FeatureView, hop

# The parts of a measure's state that each aggregation merges. `spread` is (n, origin, sum of differences from the
# origin, M2): the mean of values near 1e9 as a float alone would cost the variance seven digits.
PARTS = {
    "count": ("n",),
    "sum": ("n", "sum"),
    "mean": ("n", "sum"),
    "variance": ("spread",),
    "std": ("spread",),
    "min": ("min",),
    "max": ("max",),
}


@dataclass(frozen=True)
class Measure:
    """One value a row. Without `of` it is true, so that it can be counted."""

    of: Node | None
    where: Node | None


@dataclass(frozen=True)
class WindowFeature:
    """A windowed feature: which measure it reads, through how wide a window."""

    name: str
    kind: str
    measure: int
    window: int  # microseconds
    default: float | None


@dataclass(frozen=True)
class LastFeature:
    """A last value: the column of the candidates it reads."""

    name: str
    column: int
    ttl: int | None


class Layout:
    """How a view's state is laid out. A pure function of its definition.

    Attributes:
        lasts: The last values, in order; candidate column i is `last_exprs[i]`.
        windows: The windowed features, in order.
        measures: What they aggregate.
    """

    def __init__(self, view: FeatureView) -> None:
        self.view = view
        self.lasts: list[LastFeature] = []
        self.last_exprs: list[Node] = []
        self.windows: list[WindowFeature] = []
        self.measures: list[Measure] = []
        known: dict[bytes, int] = {}
        for name, feature in view.features.items():
            if feature.kind == "last":
                self._add_last(name, feature)
            else:
                self.windows.append(
                    WindowFeature(
                        name, feature.kind, self._measure(feature, known), feature.window or 0, feature.default
                    )
                )

    def _add_last(self, name: str, feature: Aggregation) -> None:
        if feature.of is not None:
            self.lasts.append(LastFeature(name, len(self.last_exprs), feature.ttl))
            self.last_exprs.append(feature.of)

    def _measure(self, feature: Aggregation, known: dict[bytes, int]) -> int:
        index = known.setdefault(msgspec.json.encode((feature.of, feature.where)), len(self.measures))
        if index == len(self.measures):
            self.measures.append(Measure(feature.of, feature.where))
        return index

    @cached_property
    def hops(self) -> dict[int, int]:
        """Hop -> the widest window that uses it, both in microseconds, ascending."""
        widest: dict[int, int] = {}
        for feature in self.windows:
            width = hop(feature.window)
            widest[width] = max(widest.get(width, 0), feature.window)
        return dict(sorted(widest.items()))

    def parts(self, windows: Sequence[WindowFeature]) -> list[tuple[int, str]]:
        """Return the (measure, part) pairs that `windows` need, sorted."""
        return sorted({(feature.measure, part) for feature in windows for part in PARTS[feature.kind]})

    def of_hop(self, width: int) -> list[WindowFeature]:
        return [feature for feature in self.windows if hop(feature.window) == width]

    @cached_property
    def slot(self) -> str:
        """The name of the view's states in an online store."""
        return slot(self.view)


def slot(view: FeatureView) -> str:
    """Return the name under which a view's states are stored: its name and a digest of what is stored for it.

    A changed view gets a slot of its own, so the states that a live bundle reads stay as they are while the new ones
    are built. Descriptions, owners and defaults, which reading applies, are no part of it.
    """
    source = view.source
    content: Any = (
        1,  # the format of a state
        view.entity.name,
        [(key, dtype.value) for key, dtype in view.entity.keys.items()],
        source.name,
        [source.event_time, source.recorded_time, source.lag_us],
        [(name, f.kind, f.of, f.where, f.window, f.ttl) for name, f in view.features.items()],
    )
    return f"{view.name}@{hashlib.sha256(msgspec.json.encode(content)).hexdigest()[:12]}"
