"""The online read: the same features as the offline read, for the entities of a request, as of now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.core.schema import Schema
from mainspring.features import state as stored
from mainspring.features.answers import Computed
from mainspring.features.entity import EntityReader, Read
from mainspring.features.keys import encode_key
from mainspring.features.layout import Layout
from mainspring.features.model import FeatureGroup, FeatureView, RequestFeatures, views_of
from mainspring.features.ports import OnlineStore

Value = bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class OnlineRows:
    """Features of the rows of one request, by full name; statuses of the views' (`model.Status` values)."""

    features: dict[str, list[Any]]
    statuses: dict[str, list[str]]


class _View:
    def __init__(self, view: FeatureView) -> None:
        layout = Layout(view)
        self.keys = list(view.entity.keys)
        self.stored = [f"{view.name}.{name}" for name in view.features]
        self.slot = layout.slot
        self.reader = EntityReader(layout)
        self.derived = Computed(view, {}) if view.derived else None


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
        self._with_status = [name for group in groups if isinstance(group, FeatureView) for name in group.columns]

    def read(self, columns: Mapping[str, Sequence[Value]], now: int) -> OnlineRows:
        """Return the features of every row, in order, as they are known at `now`.

        Args:
            columns: The key columns of the entities and the fields of the request, each of shape (rows,); instants as
                UTC epoch microseconds. A null key, or one never seen, is MISSING.
            now: UTC epoch microseconds; from `materialise`'s position less a minute on, the answer is exact.

        Raises:
            Invalid: A column is missing, or lengths differ.
            Unavailable: The store did not answer.
            Corrupt: The store holds a damaged state.
        """
        rows = self._rows(columns)
        entities = self._entities(columns, now)
        known: dict[str, Sequence[Any]] = dict(columns) if self._requests else {}
        statuses: dict[str, list[str]] = {}
        for view in self._views:
            read = entities[view.slot]
            for place, name in enumerate(view.stored):
                known[name] = [values[place] for values, _ in read]
                statuses[name] = [of_row[place] for _, of_row in read]
            if view.derived is not None:
                derived = view.derived.values(known, rows)
                known.update(derived)
                statuses.update(view.derived.statuses(derived, statuses))
        features: dict[str, Any] = known
        for request in self._requests:
            features = {**features, **request.values(known, rows)}
        return OnlineRows(
            {name: features[name] for name in self._columns}, {name: statuses[name] for name in self._with_status}
        )

    def _rows(self, columns: Mapping[str, Sequence[Value]]) -> int:
        needed = self._needed
        missing = [name for name in needed if name not in columns]
        if missing:
            raise Invalid(f"The request lacks {missing}; it has {sorted(columns)}.")
        lengths = {len(columns[name]) for name in needed} or {len(values) for values in columns.values()}
        if len(lengths) > 1:
            raise Invalid(f"The request's columns have different lengths: {sorted(lengths)}.")
        return lengths.pop() if lengths else 0

    def _entities(self, columns: Mapping[str, Sequence[Value]], now: int) -> dict[str, list[Read]]:
        """Read each view's entities, one answer a row; an entity that several rows name is read once."""
        places: dict[tuple[str, bytes], int] = {}
        asked: list[tuple[_View, list[int | None]]] = []
        for view in self._views:
            slot = view.slot
            row_places: list[int | None] = []
            for values in zip(*(columns[key] for key in view.keys), strict=True):
                if None in values:
                    row_places.append(None)
                else:
                    row_places.append(places.setdefault((slot, encode_key(values)), len(places)))
            asked.append((view, row_places))
        states = self._store.read(list(places)) if places else []
        known: list[Read | None] = [None] * len(states)
        answers: dict[str, list[Read]] = {}
        for view, row_places in asked:
            nothing = view.reader.read(None, now)
            answer: list[Read] = []
            for place in row_places:
                if place is None:
                    answer.append(nothing)
                    continue
                read = known[place]
                if read is None:
                    held = states[place]
                    state = None if held is None else stored.decode(held.payload, view.slot)
                    read = known[place] = view.reader.read(state, now)
                answer.append(read)
            answers[view.slot] = answer
        return answers
