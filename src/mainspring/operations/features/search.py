"""Finding feature views by a few words, and by who owns them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mainspring.features.describe.wording import definition
from mainspring.features.model import FeatureView


@dataclass(frozen=True, slots=True)
class Found:
    """A view that was found, and those of its features that a word was found in."""

    view: FeatureView
    features: tuple[str, ...]


def search(views: Iterable[FeatureView], words: str = "", owner: str | None = None) -> list[Found]:
    """Return the views in which every one of `words` occurs, by name; those that are called so first.

    Looked at are the names of the view, its features, entity, keys and source, its owner and tags, and all
    descriptions. Upper and lower case are one.
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
    """Return all owners of views, sorted; views without an owner add none."""
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
