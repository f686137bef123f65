"""Search for feature views by words and by owner."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mainspring.features.describe.wording import definition
from mainspring.features.model import FeatureView


@dataclass(frozen=True, slots=True)
class Found:
    """A matching view, and its features that contain a word."""

    view: FeatureView
    features: tuple[str, ...]


def search(views: Iterable[FeatureView], words: str = "", owner: str | None = None) -> list[Found]:
    """Return the views that contain all `words`, ordered by name; matches of the view's name come first.

    Searched are the names of the view, its features, entity, keys and source, its owner and tags, and all descriptions.
    Case is ignored.
    """
    terms = words.casefold().split()
    matches = []
    for view in views:
        if owner is not None and view.owner != owner:
            continue
        about = _about(view)
        features = {name: _of_feature(view, name) for name in view.names}
        if all(word in about or any(word in text for text in features.values()) for word in terms):
            hits = tuple(name for name, text in features.items() if any(word in text for word in terms))
            matches.append(Found(view, hits))
    return sorted(matches, key=lambda match: (not _named(match.view, terms), match.view.name.casefold()))


def owners(views: Iterable[FeatureView]) -> list[str]:
    """Return all owners of views, sorted."""
    return sorted({view.owner for view in views if view.owner})


def _named(view: FeatureView, wanted: list[str]) -> bool:
    return any(word in view.name.casefold() for word in wanted)


def _about(view: FeatureView) -> str:
    tags = [part for tag in view.tags.items() for part in (*tag, "=".join(tag))]
    texts = [
        view.name,
        view.entity.name,
        *view.entity.keys,
        view.entity.description,
        view.source.name,
        view.source.description,
        view.owner,
        view.description,
        *tags,
    ]
    return "\n".join(texts).casefold()


def _of_feature(view: FeatureView, name: str) -> str:
    described = view.features[name].description if name in view.features else ""
    return f"{name}\n{described}\n{definition(view, name)}".casefold()
