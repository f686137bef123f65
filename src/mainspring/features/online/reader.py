"""The online read: the same features as the offline read, for the entities of a request, as of now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.schema import Schema
from mainspring.features.layout import Layout
from mainspring.features.model import FeatureGroup, FeatureView, RequestFeatures, Status, views_of
from mainspring.features.online.answers import Computed
from mainspring.features.online.entity import Columns, EntityReader
from mainspring.features.online.naming import Names
from mainspring.features.ports import OnlineStore

Value = bool | int | float | str | None


class OnlineRows(msgspec.Struct, frozen=True):
    """Features of the rows of one request, by full name; statuses of the views' (`model.Status` values).

    They are to be read: columns may share a list.
    """

    features: dict[str, list[Any]]
    statuses: dict[str, list[str]]


class _View:
    def __init__(self, view: FeatureView) -> None:
        layout = Layout(view)
        self.keys = list(view.entity.keys)
        self.stored = [f"{view.name}.{name}" for name in view.features]
        self.names = Names(layout.slot, view.entity.keys)
        self.reader = EntityReader(layout)
        self.derived = Computed(view, {}) if view.derived else None

    def columns(self, payloads: list[bytes | None], places: list[int] | None, now: int) -> Columns:
        """Return the stored features of the rows whose entities' payloads, each once, are at these places."""
        if places is not None and max(places, default=0) == len(payloads):
            payloads = [*payloads, None]  # of the rows with a null key
        found = self.reader.columns(payloads, now)
        return found if places is None else (_taken(found[0], places), _taken(found[1], places))


class OnlineReader:
    """Reads the stored and computes the other features of `groups`, in one round trip to the store.

    Args:
        groups: The features wanted, in order.
        store: Holds the states of the views.
        schema: The fields of a request (`observations.source.columns`); needed where `groups` has request features.

    Raises:
        Invalid: There are request features and no `schema`.
    """

    def __init__(self, groups: Sequence[FeatureGroup], store: OnlineStore, *, schema: Schema | None = None) -> None:
        self._store = store
        self._views = [_View(view) for view in views_of(groups)]
        requests = [group for group in groups if isinstance(group, RequestFeatures)]
        if requests and schema is None:
            raise Invalid(
                f"{requests[0].name} computes features from the request, whose fields are not given.",
                fix="pass schema=observations.source.columns.",
            )
        self._requests = [Computed(group, schema or {}) for group in requests]
        fields = sorted({name for group in requests for name in group.fields})
        self._needed = [*fields, *(key for view in self._views for key in view.keys)]
        self._columns = [name for group in groups for name in group.columns]
        stored = [name for view in self._views for name in view.stored]
        self._plain = stored == self._columns  # nothing is computed
        self._with_status = [name for group in groups if isinstance(group, FeatureView) for name in group.columns]

    def read(self, columns: Mapping[str, Sequence[Value]], now: int, *, without_store: bool = False) -> OnlineRows:
        """Return the features of every row, in order, as they are known at `now`.

        Args:
            columns: The key columns of the entities and the fields of the request, each of shape (rows,); instants as
                UTC epoch microseconds. A null key, or one never seen, is MISSING.
            now: UTC epoch microseconds; from `materialise`'s position less a minute on, the answer is exact.
            without_store: Ask the store nothing: every stored feature has its default, and is UNAVAILABLE.

        Raises:
            Invalid: A column is missing, or lengths differ.
            Unavailable: The store did not answer.
            Corrupt: The store holds a damaged state.
        """
        rows = self._rows(columns)
        found = self._defaults(columns, rows, now) if without_store else self._stored(columns, now)
        if self._plain and len(found) == 1:
            return OnlineRows(*found[0])
        known: dict[str, Any] = dict(columns) if self._requests else {}
        statuses: dict[str, list[str]] = {}
        for view, (values, of_view) in zip(self._views, found):  # noqa: B905  (it costs time)
            known.update(values)
            statuses.update(of_view)
            if view.derived is not None:
                derived = view.derived.values(known, rows)
                known.update(derived)
                statuses.update(view.derived.statuses(derived, statuses))
        if self._plain:
            return OnlineRows(known, statuses)
        features = known
        for request in self._requests:
            features = {**features, **request.values(known, rows)}
        return OnlineRows(
            {name: features[name] for name in self._columns}, {name: statuses[name] for name in self._with_status}
        )

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
        """Return each view's features as if no entity had ever been seen."""
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
        asked = [view.names.of(columns) for view in self._views]
        wanted = [name for names, _ in asked for name in names]
        payloads = self._store.payloads(wanted) if wanted else []
        found, start = [], 0
        for view, (names, places) in zip(self._views, asked, strict=True):
            end = start + len(names)
            found.append(view.columns(payloads[start:end], places, now))
            start = end
        return found


def _taken(columns: dict[str, list[Any]], places: list[int]) -> dict[str, list[Any]]:
    return {name: [column[place] for place in places] for name, column in columns.items()}
