"""The online read: the same features as the offline read, for the entities of a request, as of now.

Entities are identified, their states are read in one round trip, and computed features are computed from the stored
ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.expr.evaluate import Vector, evaluate, vector
from mainspring.core.expr.types import columns_of
from mainspring.core.schema import DType, Schema
from mainspring.features.functions.model import RequestFunction, placeholder
from mainspring.features.functions.process import FunctionProcess
from mainspring.features.keys import encode_key
from mainspring.features.layout import layout_of, request_schema
from mainspring.features.model import FeatureGroup, FeatureView, RequestFeatures, Status, views_of
from mainspring.features.online.entity import Columns, EntityReader
from mainspring.features.ports import OnlineStore
from mainspring.features.state.blobs import SETTLING

_REMEMBERED = 65_536  # names of one view
_TYPES = {DType.String: str, DType.Boolean: bool}
_PRESENT, _NULL = Status.PRESENT.value, Status.NULL.value
_WORST = {Status.UNAVAILABLE.value: 4, Status.MISSING.value: 3, Status.EXPIRED.value: 2, _NULL: 1, _PRESENT: 0}

Name = tuple[str, bytes]  # slot, key
Named = tuple[list[Name], list[int] | None]
Value = bool | int | float | str | None


class Names:
    """Names of the entities of one view, by the values of their keys.

    Names are cached by value. Equal values of different types (1 and true) identify different entities, so a column
    with any value of another type is not looked up in the cache.
    """

    def __init__(self, slot: str, keys: Schema) -> None:
        self._slot = slot
        self._keys = list(keys)
        self._types = [{_TYPES.get(dtype, int)} for dtype in keys.values()]
        self._known: dict[Any, Name] = {}

    def of(self, columns: Mapping[str, Sequence[Any]]) -> Named:
        """Return the distinct names of the rows' entities, and for each row the index of its name.

        The indices are `None` if all names are different and in the order of the rows. A row with a null key has the
        index after the last name.
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
        row_places: list[int] = []
        nulls: list[int] = []
        for row in rows:
            values = self._values(row)
            if None in values:
                nulls.append(len(row_places))
                row_places.append(-1)
            else:
                row_places.append(places.setdefault((self._slot, encode_key(values)), len(places)))
        for row_place in nulls:
            row_places[row_place] = len(places)
        return list(places), row_places

    def _values(self, row: Any) -> Sequence[Any]:
        return (row,) if len(self._keys) == 1 else row


class Computed:
    """The computed features of one group, by full name.

    Args:
        fields: The fields of the request with their types, for a group of request features.
    """

    def __init__(self, group: FeatureView | RequestFeatures, fields: Schema) -> None:
        stored = isinstance(group, FeatureView)
        self._schema = layout_of(group).stored if isinstance(group, FeatureView) else request_schema(group, fields)
        expressions = group.derived if isinstance(group, FeatureView) else group.features
        self._prefix = f"{group.name}." if stored else ""
        self._expressions = [
            (f"{group.name}.{name}", expr, sorted(columns_of(expr))) for name, expr in expressions.items()
        ]
        self._used = sorted({name for _, _, names in self._expressions for name in names})
        self.process = FunctionProcess(group.function) if isinstance(group, RequestFunction) else None

    def values(self, known: Mapping[str, Sequence[Any]], rows: int) -> dict[str, list[Any]]:
        """Return each feature's values, shape (rows,).

        Args:
            known: The fields, and stored features by their full names, each of shape (rows,).

        Raises:
            InvalidData: A field is of another type.
            FunctionFailed: The function of the group failed.
        """
        if self.process is not None:
            found = self.process.values(known, rows)
            known = {**known, **{placeholder(name): column for name, column in found.items()}}
        vectors: dict[str, Vector] = {
            name: vector(known[self._prefix + name], self._schema[name]) for name in self._used
        }
        return {name: evaluate(expr, vectors, self._schema, rows).to_list() for name, expr, _ in self._expressions}

    def statuses(
        self, values: Mapping[str, Sequence[Any]], statuses: Mapping[str, Sequence[str]]
    ) -> dict[str, list[str]]:
        """Return PRESENT where a value is not null, else the worst status of its inputs."""
        combined = {}
        for name, _, names in self._expressions:
            sources = [statuses[self._prefix + source] for source in names]
            combined[name] = [
                _PRESENT if value is not None else _worst([column[row] for column in sources])
                for row, value in enumerate(values[name])
            ]
        return combined


def _worst(statuses: list[str]) -> str:
    worst = max(statuses, key=_WORST.__getitem__, default=_NULL)
    return _NULL if worst == _PRESENT else worst


class OnlineRows(msgspec.Struct, frozen=True):
    """Features of the rows of one request, by full name; statuses of the views' (`features.model.Status` values).

    Columns may share a list, so they must not be changed.
    """

    features: dict[str, list[Any]]
    statuses: dict[str, list[str]]


class _View:
    def __init__(self, view: FeatureView) -> None:
        layout = layout_of(view)
        self.slot = layout.slot
        self.keys = list(view.entity.keys)
        self.stored = [f"{view.name}.{name}" for name in view.features]
        self.names = Names(layout.slot, view.entity.keys)
        self.reader = EntityReader(layout)
        self.derived = Computed(view, {}) if view.derived else None

    def columns(self, payloads: list[bytes | None], places: list[int] | None, now: int) -> Columns:
        """Return the stored features of rows, given their entities' distinct payloads and the index of each row's
        payload.
        """
        if places is not None and max(places, default=0) == len(payloads):
            payloads = [*payloads, None]  # for the rows with a null key
        found = self.reader.columns(payloads, now)
        return found if places is None else (_taken(found[0], places), _taken(found[1], places))

    def columns_each(self, payloads: list[bytes | None], places: list[int] | None, at: Sequence[int]) -> Columns:
        """Return the same, each row as of its own instant."""
        payloads = [*payloads, None]  # for rows with a null key
        rows = payloads[: len(at)] if places is None else [payloads[place] for place in places]
        return self.reader.columns_each(rows, at)


class OnlineReader:
    """Reader of the features of `groups`: one round trip to the store for stored features; the others are computed.

    Args:
        groups: The requested features, in order.
        store: Holds the states of the views.
        schema: Fields of a request (`observations.source.columns`); needed if `groups` has request features.

    Raises:
        Invalid: There are request features and no `schema`.
    """

    def __init__(self, groups: Sequence[FeatureGroup], store: OnlineStore, *, schema: Schema | None = None) -> None:
        self._store = store
        self._views = [_View(view) for view in views_of(groups)]
        requests = [group for group in groups if isinstance(group, RequestFeatures)]
        if requests and schema is None:
            raise Invalid(
                f"{requests[0].name} computes features from the request, but its fields are not given.",
                fix="pass schema=observations.source.columns.",
            )
        self._requests = [Computed(group, schema or {}) for group in requests]
        fields = sorted({name for group in requests for name in group.fields})
        self._needed = [*fields, *(key for view in self._views for key in view.keys)]
        self._columns = [name for group in groups for name in group.columns]
        stored = [name for view in self._views for name in view.stored]
        self._plain = stored == self._columns  # nothing is computed
        self._with_status = [name for group in groups if isinstance(group, FeatureView) for name in group.columns]

    @property
    def functions(self) -> tuple[FunctionProcess, ...]:
        """The functions that a read waits for, in other processes, so that an event loop should not make it."""
        return tuple(request.process for request in self._requests if request.process is not None)

    def start(self) -> None:
        """Start the processes of functions, so that the first read need not wait for their imports.

        Raises:
            FunctionFailed: A function does not load.
        """
        for process in self.functions:
            process.start()

    def read(self, columns: Mapping[str, Sequence[Value]], now: int, *, without_store: bool = False) -> OnlineRows:
        """Return the features of every row, in order, as known at `now`.

        Args:
            columns: The key columns of the entities and the fields of the request, each of shape (rows,); instants as
                UTC epoch microseconds. A null key, or one never seen, is MISSING.
            now: UTC epoch microseconds; the result is exact from a minute before the materialised position on.
            without_store: Do not read the store: every stored feature has its default, and is UNAVAILABLE.

        Raises:
            Invalid: A column is missing, or lengths differ.
            Unavailable: The store did not respond.
            Corrupt: The store has a damaged state.
        """
        rows = self._rows(columns)
        stored = self._defaults(columns, rows, now) if without_store else self._stored(columns, now)
        return self._computed(columns, stored, rows)

    def _computed(self, columns: Mapping[str, Sequence[Value]], stored: list[Columns], rows: int) -> OnlineRows:
        """Return all features, given the stored ones of each view."""
        if self._plain and len(stored) == 1:
            return OnlineRows(*stored[0])
        values_by_name: dict[str, Any] = dict(columns) if self._requests else {}
        statuses: dict[str, list[str]] = {}
        for view, (values, of_view) in zip(self._views, stored):  # noqa: B905  (it costs time)
            values_by_name.update(values)
            statuses.update(of_view)
            if view.derived is not None:
                derived = view.derived.values(values_by_name, rows)
                values_by_name.update(derived)
                statuses.update(view.derived.statuses(derived, statuses))
        if self._plain:
            return OnlineRows(values_by_name, statuses)
        features = values_by_name
        for request in self._requests:
            features = {**features, **request.values(values_by_name, rows)}
        return OnlineRows(
            {name: features[name] for name in self._columns}, {name: statuses[name] for name in self._with_status}
        )

    def read_each(self, columns: Mapping[str, Sequence[Value]], at: Sequence[int]) -> tuple[OnlineRows, int]:
        """Return the features of every row as of its own instant, and how many instants the store no longer answers.

        A state answers exactly from a minute before the materialised position on. A row of an earlier instant is
        answered as of that minute.

        Args:
            columns: As of `read`.
            at: UTC epoch microseconds, shape (rows,).

        Raises:
            Invalid: As of `read`, as are the others.
        """
        self._rows(columns)
        named = [view.names.of(columns) for view in self._views]
        payloads = self._store.payloads([name for names, _ in named for name in names]) if named else []
        # Read after the payloads, positions are not behind them.
        floors = [(self._store.position(view.slot) or 0) - SETTLING for view in self._views]
        stored, start = [], 0
        for view, (names, places), floor in zip(self._views, named, floors, strict=True):
            end = start + len(names)
            stored.append(view.columns_each(payloads[start:end], places, [max(each, floor) for each in at]))
            start = end
        floor = max(floors, default=0)
        return self._computed(columns, stored, len(at)), sum(each < floor for each in at)

    def _rows(self, columns: Mapping[str, Sequence[Value]]) -> int:
        try:
            lengths = {len(columns[name]) for name in self._needed}
        except KeyError:
            missing = [name for name in self._needed if name not in columns]
            raise Invalid(f"The request lacks {missing}; it has {sorted(columns)}.") from None
        if len(lengths) == 1:
            return lengths.pop()
        lengths = lengths or {len(values) for values in columns.values()}
        if len(lengths) > 1:
            raise Invalid(f"The request's columns have different lengths: {sorted(lengths)}.")
        return lengths.pop() if lengths else 0

    def _defaults(self, columns: Mapping[str, Sequence[Value]], rows: int, now: int) -> list[Columns]:
        """Return each view's features as for entities that were never seen."""
        found = []
        for view in self._views:
            names, places = view.names.of(columns)
            values, _ = view.columns([None] * len(names), places, now)
            found.append((values, {name: [Status.UNAVAILABLE.value] * rows for name in values}))
        return found

    def _stored(self, columns: Mapping[str, Sequence[Value]], now: int) -> list[Columns]:
        """Read each view's features; an entity that several rows name is read once."""
        if len(self._views) == 1:
            (view,) = self._views
            names, places = view.names.of(columns)
            return [view.columns(self._store.payloads(names) if names else [], places, now)]
        named = [view.names.of(columns) for view in self._views]
        unique = [name for names, _ in named for name in names]
        payloads = self._store.payloads(unique) if unique else []
        results, start = [], 0
        for view, (names, places) in zip(self._views, named, strict=True):
            end = start + len(names)
            results.append(view.columns(payloads[start:end], places, now))
            start = end
        return results


def _taken(columns: dict[str, list[Any]], places: list[int]) -> dict[str, list[Any]]:
    return {name: [column[place] for place in places] for name, column in columns.items()}
