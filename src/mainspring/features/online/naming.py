"""Names of a request's entities in an online store, cached across requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mainspring.core.schema import DType, Schema
from mainspring.features.keys import encode_key

_REMEMBERED = 65_536  # names of one view
_TYPES = {DType.String: str, DType.Boolean: bool}

Name = tuple[str, bytes]  # slot, key
Named = tuple[list[Name], list[int] | None]


class Names:
    """Names the entities of one view by the values of their keys.

    Names are remembered by value, and equal values of different types (1 and true) name different entities: a column
    that is not all of the declared type is not looked up.
    """

    def __init__(self, slot: str, keys: Schema) -> None:
        self._slot = slot
        self._keys = list(keys)
        self._types = [{_TYPES.get(dtype, int)} for dtype in keys.values()]
        self._known: dict[Any, Name] = {}

    def of(self, columns: Mapping[str, Sequence[Any]]) -> Named:
        """Return the names of the rows' entities, each once, and for each row which of them is its.

        No places (`None`): the rows' are all different, in their order. A row with a null key has the place after the
        last name.
        """
        if len(self._keys) == 1:
            rows: Sequence[Any] = columns[self._keys[0]]
            usual = {*map(type, rows)} == self._types[0]
        else:
            values = [columns[key] for key in self._keys]
            usual = [set(map(type, column)) for column in values] == self._types
            rows = [*zip(*values, strict=True)]
        if not usual:
            return self._unusual(rows)
        distinct = rows if len(rows) == 1 else [*dict.fromkeys(rows)]
        try:
            names = [*map(self._known.__getitem__, distinct)]
        except KeyError:
            names = self._learn(distinct)
        if len(names) == len(rows):
            return names, None
        place = {row: place for place, row in enumerate(distinct)}
        return names, [place[row] for row in rows]

    def _learn(self, rows: Sequence[Any]) -> list[Name]:
        if len(self._known) + len(rows) > _REMEMBERED:
            self._known.clear()
        names = [(self._slot, encode_key(self._values(row))) for row in rows]
        if len(names) <= _REMEMBERED:
            self._known.update(zip(rows, names, strict=True))
        return names

    def _unusual(self, rows: Sequence[Any]) -> Named:
        places: dict[Name, int] = {}
        found: list[int] = []
        nulls: list[int] = []
        for row in rows:
            values = self._values(row)
            if None in values:
                nulls.append(len(found))
                found.append(-1)
            else:
                found.append(places.setdefault((self._slot, encode_key(values)), len(places)))
        for row_place in nulls:
            found[row_place] = len(places)
        return list(places), found

    def _values(self, row: Any) -> Sequence[Any]:
        return (row,) if len(self._keys) == 1 else row
