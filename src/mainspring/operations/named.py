"""Definitions of one kind, by name: a mapping with a repr for notebooks and completion of its names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from mainspring.core import html
from mainspring.core.errors import NotFound
from mainspring.core.nearest import meant

T = TypeVar("T")


class Named(Mapping[str, T], Generic[T]):
    """Definitions by name, in the order in which they are declared; those whose name allows it are attributes too.

    Args:
        kind: What one of them is called.
        headers: The columns in which they are shown.
        row: Gives one's cells, shape (len(headers),).
    """

    def __init__(
        self, kind: str, items: Mapping[str, T], headers: Sequence[str], row: Callable[[T], Sequence[object]]
    ) -> None:
        self._kind = kind
        self._items = dict(items)
        self._headers = ("name", *headers)
        self._row = row

    def __getitem__(self, name: str) -> T:
        """Return one.

        Raises:
            NotFound: None has that name.
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
