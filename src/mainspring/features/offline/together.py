"""Grouping of views for the offline read: those of one entity and one source share a pass over its rows.

Last values share a join, windows of one width share their rows and tiles. A value is the same alone and together, but
for the last bit of a sum of fractions, which depends on which tiles are summed up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from mainspring.features.layout import SKETCHES, layout_of
from mainspring.features.model import FeatureView

_FEATURES = 64  # read together at most: more would be held in memory at once


@dataclass(frozen=True, slots=True)
class Together:
    """Some views as one, whose features are theirs.

    Attributes:
        view: A view alone as it is; else one whose features have their full names.
        prefix: What a feature's full name has before its name in `view`.
    """

    view: FeatureView
    prefix: str


def by_source(views: Iterable[FeatureView]) -> dict[str, list[Together]]:
    """Return, by the name of each source, what is read of it, one after another."""
    found: dict[str, dict[tuple[int, ...], list[FeatureView]]] = {}
    for view in views:
        # Another declaration of the same source may have other columns. Sketches are large: each view has its own.
        alone = (id(view),) if _sketches(view) else ()
        key = id(view.source), id(view.entity), *alone
        found.setdefault(view.source.name, {}).setdefault(key, []).append(view)
    return {
        source: [_together(tuple(some)) for group in groups.values() for some in _portions(group)]
        for source, groups in found.items()
    }


def _sketches(view: FeatureView) -> bool:
    return any(part in SKETCHES for feature in layout_of(view).windows for part in feature.parts)


def _portions(views: Sequence[FeatureView]) -> Iterator[list[FeatureView]]:
    portion: list[FeatureView] = []
    features = 0
    for view in views:
        if portion and features + len(view.features) > _FEATURES:
            yield portion
            portion, features = [], 0
        portion.append(view)
        features += len(view.features)
    yield portion


@lru_cache(1024)
def _together(views: tuple[FeatureView, ...]) -> Together:
    if len(views) == 1:
        return Together(views[0], f"{views[0].name}.")
    features = {f"{view.name}.{name}": feature for view in views for name, feature in view.features.items()}
    names = ", ".join(view.name for view in views)
    return Together(FeatureView(names, views[0].entity, views[0].source, features), "")
