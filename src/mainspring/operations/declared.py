"""Definitions of a project for interactive use: one mapping by name per kind, with a repr and completion."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mainspring.core import html
from mainspring.core.errors import NotFound
from mainspring.core.nearest import meant
from mainspring.core.time import format_duration

if TYPE_CHECKING:
    from mainspring.data.model import Source
    from mainspring.features.model import FeatureGroup
    from mainspring.project.definitions.model import Definitions
    from mainspring.serving.model import Endpoint
    from mainspring.training.model import Model


T = TypeVar("T")


class Named(Mapping[str, T], Generic[T]):
    """Definitions by name, in order of declaration; those whose name is an identifier are attributes too.

    Args:
        kind: Word for one of them.
        headers: Columns of the repr.
        row: Returns the cells of a definition, shape (len(headers),).
    """

    def __init__(
        self, kind: str, items: Mapping[str, T], headers: Sequence[str], row: Callable[[T], Sequence[object]]
    ) -> None:
        self._kind = kind
        self._items = dict(items)
        self._headers = ("name", *headers)
        self._row = row

    def __getitem__(self, name: str) -> T:
        """Return the definition of this name.

        Raises:
            NotFound: There is none.
        """
        if name not in self._items:
            raise NotFound(f"The project has no {self._kind} {name!r}.", fix=meant(str(name), self._items))
        return self._items[name]

    def __getattr__(self, name: str) -> T:
        if name.startswith("_") or name not in self._items:
            raise AttributeError(f"The project has no {self._kind} {name!r}; {meant(name, self._items)}")
        return self._items[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self._items.get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(name for name in self._items if name.isidentifier())]

    def _ipython_key_completions_(self) -> list[str]:
        return list(self._items)

    def __repr__(self) -> str:
        rows = [[str(cell) for cell in row] for row in self._rows()]
        if not rows:
            return f"no {self._kind}s"
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)

    def _repr_html_(self) -> str:
        count = f"{len(self)} declared"
        rows = [(html.code(name), *cells) for name, *cells in self._rows()]
        return html.joined(html.title(f"{self._kind.capitalize()}s", count), html.table(self._headers, rows))

    def _rows(self) -> list[tuple[object, ...]]:
        return [(name, *self._row(item)) for name, item in self._items.items()]


def features(definitions: Definitions) -> Named[FeatureGroup]:
    """Return the feature views and the request features."""
    groups: dict[str, FeatureGroup] = {**definitions.views, **definitions.request_features}
    return Named("feature view", groups, ("entity", "source", "features", "owner", "description"), _group)


def _group(group: FeatureGroup) -> Sequence[object]:
    from mainspring.features.model import FeatureView

    names = ", ".join(group.names)
    if isinstance(group, FeatureView):
        return group.entity.name, group.source.name, names, group.owner, group.description
    return "", "the request", names, group.owner, group.description


def sources(definitions: Definitions) -> Named[Source]:
    return Named("source", definitions.sources, ("event time", "columns", "lag", "owner", "description"), _source)


def _source(source: Source) -> Sequence[object]:
    lag = format_duration(source.lag_us) if source.lag_us else ""
    return source.event_time, ", ".join(source.schema), lag, source.owner, source.description


def models(definitions: Definitions) -> Named[Model]:
    return Named("model", definitions.models, ("task", "label", "features", "gates", "owner"), _model)


def _model(model: Model) -> Sequence[object]:
    return model.task, model.truth, ", ".join(model.inputs), ", ".join(map(str, model.gates)), model.owner


def endpoints(definitions: Definitions) -> Named[Endpoint]:
    return Named("endpoint", definitions.endpoints, ("model",), lambda endpoint: (endpoint.model,))
