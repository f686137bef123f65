"""One entity's features, read online and offline at one instant, side by side."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mainspring.core.errors import MainspringError
from mainspring.core.time import from_datetime
from mainspring.data.arrow import ARROW_TYPES, INSTANT
from mainspring.data.model import VISIBLE_AT, TableScan
from mainspring.features.describe.personal import personal_columns
from mainspring.features.describe.sampling import Bounds, rows_of
from mainspring.features.equal import same
from mainspring.features.layout import feature_dtype, slot
from mainspring.features.model import FeatureView, Mark
from mainspring.features.offline import point_in_time
from mainspring.features.online import OnlineReader
from mainspring.features.ports import OnlineStore

WAIT_S = 10.0  # at most, for the lake

Value = bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class FeatureValue:
    """One feature of the entity. Instants are UTC epoch microseconds.

    `offline` is `None` if it is null or could not be read (see `EntityValues.problem`). `personal` are the columns with
    a PII mark from which the value is computed; if it is `withheld`, both values are `None`.
    """

    feature: str
    dtype: str
    status: str
    online: Value
    offline: Value
    differs: bool
    personal: tuple[str, ...]
    withheld: bool = False


@dataclass(frozen=True, slots=True)
class EntityValues:
    """Feature values of one entity in one view at `at`.

    Attributes:
        mark: Materialisation progress of the view; `None` if it was never materialised.
        rows: Number of the entity's rows within reach of the view's features.
        pending: Number of these rows that became visible after `mark`, so the online store may not have them yet.
        problem: Reason why the offline values could not be read.
    """

    view: str
    key: Mapping[str, Value]
    at: int  # UTC epoch microseconds
    mark: Mark | None
    rows: int
    pending: int
    values: tuple[FeatureValue, ...]
    problem: str | None

    @property
    def differing(self) -> int:
        return sum(value.differs for value in self.values)


def entity_values(
    view: FeatureView,
    key: Mapping[str, Value],
    store: OnlineStore,
    scan: Callable[[str], TableScan],
    at: int,
    bounds: Bounds | None = None,
    *,
    shown: Collection[str] = (),
) -> EntityValues:
    """Return the values of the view's features for one entity at `at`, from the store and from the lake.

    Args:
        key: The entity's key values, typed (`features.keys.typed_key`).
        at: UTC epoch microseconds; now, since the online store has no other instant.
        shown: Columns with a PII mark: values computed from no others are returned too. The caller must audit this.

    Raises:
        Unavailable: The online store did not answer.
        Corrupt: The online store holds a damaged state.
    """
    mark = store.mark(slot(view))
    online = OnlineReader([view], store).read({name: [value] for name, value in key.items()}, at)
    offline: dict[str, Value] = {}
    rows, pending, problem = 0, 0, None
    try:
        offline, rows, pending = _offline(view, key, scan, at, mark, bounds or Bounds(seconds=WAIT_S))
    except MainspringError as error:
        problem = str(error)
    values = []
    for name, full_name in zip(view.names, view.columns, strict=True):
        served, personal = online.features[full_name][0], personal_columns(view, name)
        withheld = not {*personal} <= {*shown}
        values.append(
            FeatureValue(
                feature=name,
                dtype=feature_dtype(view, name).value,
                status=online.statuses[full_name][0],
                online=None if withheld else served,
                offline=None if withheld else offline.get(full_name),
                differs=problem is None and not same(served, offline[full_name]),
                personal=personal,
                withheld=withheld,
            )
        )
    return EntityValues(view.name, dict(key), at, mark, rows, pending, tuple(values), problem)


def _offline(
    view: FeatureView,
    key: Mapping[str, Value],
    scan: Callable[[str], TableScan],
    at: int,
    mark: Mark | None,
    bounds: Bounds,
) -> tuple[dict[str, Value], int, int]:
    schema = view.entity.keys
    keys = pa.table(
        {name: pa.array([key[name]], _logged(schema[name])).cast(ARROW_TYPES[schema[name]]) for name in schema}
    )
    part = rows_of(view, scan(view.source.name), keys, at, bounds)
    observed = keys.append_column("_at", pa.array([at], pa.int64()).cast(INSTANT))
    read = point_in_time(observed, [view], lambda _: part, schema=dict(schema), memory_limit=bounds.memory)
    visible = [] if part.rows is None else part.rows[VISIBLE_AT].cast(pa.int64()).to_numpy().tolist()
    late = sum(mark is not None and mark.position <= time for time in visible)
    return {name: _plain(read[name][0].as_py()) for name in view.columns}, len(visible), late


def _logged(dtype: Any) -> pa.DataType:
    kind = ARROW_TYPES[dtype]
    return pa.int64() if pa.types.is_timestamp(kind) else kind


def _plain(value: Any) -> Value:
    plain: Value = from_datetime(value) if hasattr(value, "tzinfo") else value
    return plain
