"""Interactive online read: features as the online store has them now."""

from __future__ import annotations

from collections.abc import Mapping
from ctypes import c_float
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mainspring.core.errors import NotFound
from mainspring.core.schema import DType, Schema
from mainspring.core.time import SECOND, format_instant, from_datetime
from mainspring.data.arrow import ARROW_TYPES, INSTANT
from mainspring.features.layout import feature_dtype, slot
from mainspring.features.model import Status
from mainspring.features.offline.observed import as_read
from mainspring.features.online import OnlineReader
from mainspring.operations.features.choosing import Choice
from mainspring.operations.features.frames import index_of
from mainspring.operations.features.rows import Rows
from mainspring.operations.features.table import FeatureTable

if TYPE_CHECKING:
    from mainspring.project import Project

STATUS = ".status"  # suffix of a feature's name: the column of its statuses
_MISSING = Status.MISSING.value
_KINDS = {DType.String: str, DType.Boolean: bool, DType.Int32: int, DType.Int64: int, DType.Float64: float}


@dataclass(frozen=True)
class _Prepared:
    """A reader for rows with certain column types, and the types of the features."""

    reader: OnlineReader
    dtypes: Mapping[str, DType]


class OnlineFeatures:
    """The online read of some features of a project, prepared once. Threads may share it."""

    def __init__(self, project: Project, choice: Choice) -> None:
        self._project = project
        self._choice = choice
        self._features = frozenset(name for group in choice.groups for name in group.columns)
        # Whether a view is read whose statuses are not returned, because only on-demand features use it: then no status
        # shows that it was never materialised.
        self._untold = not {view.name for view in choice.views} <= {group.name for group in choice.groups}
        self._prepared: dict[tuple[tuple[str, DType], ...], _Prepared] = {}
        # The types of the required columns; None if a row itself determines one.
        self._schema: Schema | None = None
        declared = {name: dtype for name, dtype in choice.fields.items() if dtype is not None}
        if len(declared) == len(choice.fields):
            self._schema = {**declared, **choice.keys}

    def one(self, row: Mapping[str, Any], *, statuses: bool) -> dict[str, Any]:
        """Return a row with its features. Raises as `many` does."""
        columns = self._columns(row)
        if columns is None or self._schema is None:
            result: dict[str, Any] = self.many([row], statuses=statuses).table.to_pylist()[0]
            return result
        prepared = self._for(self._schema)
        read = prepared.reader.read(columns, self._project.clock.now())
        if self._untold or any(_MISSING in column for column in read.statuses.values()):
            self._materialised()
        result = dict(row)
        for name in self._choice.columns:
            result[name] = _typed(read.features[name][0], prepared.dtypes[name])
            if statuses and name in read.statuses:
                result[name + STATUS] = read.statuses[name][0]
        return result

    def many(self, given: Any, *, statuses: bool) -> FeatureTable:
        """Return the rows in their order, with their features.

        Raises:
            NotFound: A view has never been materialised.
            InvalidData: A column is missing or of another type.
            Unavailable: The store does not answer.
        """
        choice = self._choice
        rows = Rows(choice, given, "The rows")
        moment = self._project.clock.now()
        through = self._materialised()
        instants = pa.chunked_array([pa.array([moment] * len(rows.given), INSTANT)])
        rows.read = as_read(rows.read.append_column(rows.at, instants), choice.groups, rows.schema, rows.at)
        prepared = self._for(rows.schema)
        read = prepared.reader.read(rows.columns(), moment)
        table = rows.given
        for name in choice.columns:
            table = table.append_column(name, pa.array(read.features[name], ARROW_TYPES[prepared.dtypes[name]]))
            if statuses and name in read.statuses:
                table = table.append_column(name + STATUS, pa.array(read.statuses[name], pa.string()))
        notes = () if through is None else (f"materialised through {format_instant(through // SECOND * SECOND)}",)
        return FeatureTable(choice.title, table, features=choice.columns, notes=notes, index=index_of(given))

    def _for(self, schema: Schema) -> _Prepared:
        key = tuple(schema.items())
        prepared = self._prepared.get(key)
        if prepared is None:
            groups = self._choice.groups
            dtypes = {f"{group.name}.{name}": feature_dtype(group, name, schema)
                      for group in groups for name in group.names}  # fmt: skip
            prepared = _Prepared(OnlineReader(groups, self._project.online, schema=schema), dtypes)
            self._prepared[key] = prepared
        return prepared

    def _columns(self, row: Mapping[str, Any]) -> dict[str, list[Any]] | None:
        """Return the columns that the features read, for a row of plain values with exactly the declared types.

        Returns:
            `None` for any other row, which Arrow then converts or rejects.
        """
        if self._schema is None or not self._features.isdisjoint(row):
            return None
        if not all(type(name) is str and _is_plain(value) for name, value in row.items()):
            return None
        columns: dict[str, list[Any]] = {}
        for name, dtype in self._schema.items():
            value: Any = row.get(name)
            kind = type(value)
            if dtype is DType.Timestamp and kind is datetime and value.tzinfo is not None:
                value = from_datetime(value)
            elif dtype is DType.Float32 and kind is float:
                value = c_float(value).value
            elif kind is not _KINDS.get(dtype) or (dtype is DType.Int32 and not _fits(value, 32)):
                return None
            columns[name] = [value]
        return columns

    def _materialised(self) -> int | None:
        """Return the instant through which all views are materialised, `None` if no view is read."""
        positions = {view.name: self._project.online.position(slot(view)) for view in self._choice.views}
        missing = [name for name, position in positions.items() if position is None]
        if missing:
            raise NotFound(
                f"The online store has no values of {', '.join(missing)} for the current definitions.",
                fix=f"run `mainspring materialize {' '.join(missing)}`.",
            )
        return min((position for position in positions.values() if position is not None), default=None)


def is_one(rows: Any) -> bool:
    """Return whether the rows are one row, a dictionary of values."""
    return isinstance(rows, Mapping) and not any(
        hasattr(value, "__len__") and not isinstance(value, (str, bytes)) for value in rows.values()
    )


def _is_plain(value: Any) -> bool:
    """Return whether a value is unchanged by a round trip through Arrow."""
    kind = type(value)
    if kind is str:
        return value.isascii() or _is_text(value)
    return _fits(value, 64) if kind is int else kind in (float, bool, datetime) or value is None


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _fits(value: int, bits: int) -> bool:
    return -(1 << bits - 1) <= value < 1 << bits - 1


def _typed(value: Any, dtype: DType) -> Any:
    """Return a feature's value as from an Arrow column of its type."""
    if value is None or type(value) is _KINDS.get(dtype):
        return value
    if dtype is DType.Float32 and type(value) is float:
        return c_float(value).value
    return pa.array([value], ARROW_TYPES[dtype])[0].as_py()
