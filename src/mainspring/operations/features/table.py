"""Rows with their features in memory: the result of a training set or of an online read."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core import html
from mainspring.operations.features import frames

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

_ROWS_SHOWN = 5
_COLUMNS_SHOWN = 100


@dataclass(frozen=True, eq=False, repr=False)
class FeatureTable:
    """Rows in the requested order: their own columns first, then one column per feature.

    An Arrow table that knows the roles of its columns. Libraries that read Arrow streams (Polars, DuckDB, pandas)
    accept it directly.

    Attributes:
        table: All columns; shape (rows, columns).
        features: Full names of the features, in the requested order.
        at: Name of the column with the instant of each row's features, `None` if that is now.
        label: Name of the label's column, if there is one; for several labels a tuple of names.
    """

    title: str
    table: pa.Table
    _: KW_ONLY
    features: tuple[str, ...]
    at: str | None = None
    label: str | tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    index: Any = None  # index of the given pandas frame

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), int(self.table.num_columns)

    @property
    def columns(self) -> list[str]:
        return list(self.table.column_names)

    def __getitem__(self, column: str) -> pa.ChunkedArray[Any]:
        return self.table.column(column)

    def to_arrow(self) -> pa.Table:
        """Return the Arrow table, without a copy."""
        return self.table

    def to_pandas(self) -> pd.DataFrame:
        """Return a pandas frame, with the index of the given pandas frame, if any."""
        return frames.to_pandas(self.table, self.index)

    def to_polars(self) -> pl.DataFrame:
        """Return a Polars frame.

        Raises:
            MissingExtra: Polars is not installed.
        """
        return frames.to_polars(self.table)

    def as_(self, kind: frames.Kind | None) -> Any:
        """Return it as this kind of frame; itself for `None`."""
        if kind is None:
            return self
        frames.check_kind(kind)
        return {"arrow": self.to_arrow, "pandas": self.to_pandas, "polars": self.to_polars}[kind]()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        stream: Any = self.table.__arrow_c_stream__
        return stream(requested_schema)

    def __repr__(self) -> str:
        lines = [f"{self.title}: {self._summary()}", *(f"  {note}" for note in self.notes)]
        width = max(map(len, self._shown()), default=0)
        for name in self._shown():
            column = self.table.column(name)
            lines.append(f"  {name:<{width}}  {shown_type(column.type):<10} {_nulls(column, len(self))}".rstrip())
        return "\n".join([*lines, *self._left_out()])

    def _repr_html_(self) -> str:
        first = self.table.slice(0, _ROWS_SHOWN)
        rows = [
            (
                html.code(name),
                shown_type(self.table.column(name).type),
                self._role(name),
                _nulls(self.table.column(name), len(self)),
                *(_cell(value) for value in first.column(name).to_pylist()),
            )
            for name in self._shown()
        ]
        headers = ("column", "type", "", "nulls", *(f"row {n}" for n in range(first.num_rows)))
        notes = [html.paragraph(html.dim(note)) for note in (*self.notes, *self._left_out())]
        return html.joined(html.title(self.title, self._summary()), html.table(headers, rows), *notes)

    def _summary(self) -> str:
        rows = f"{len(self):,} {'row' if len(self) == 1 else 'rows'} x {len(self.features)} features"
        if self.at is None or not len(self):
            return rows
        span: Any = pc.min_max(self.table.column(self.at)).as_py()
        return f"{rows}, {_cell(span['min'])} to {_cell(span['max'])}"

    def _shown(self) -> list[str]:
        return self.columns[:_COLUMNS_SHOWN]

    def _left_out(self) -> list[str]:
        more = len(self.columns) - _COLUMNS_SHOWN
        return [f"and {more} more columns"] if more > 0 else []

    def _role(self, name: str) -> str:
        if name == self.at:
            return "time"
        if name in ((self.label,) if isinstance(self.label, str) else self.label or ()):
            return "label"
        return "feature" if name in self.features else ""


def shown_type(kind: pa.DataType) -> str:
    return f"instant, {kind.tz}" if pa.types.is_timestamp(kind) else str(kind)


def _nulls(column: pa.ChunkedArray[Any], rows: int) -> str:
    return f"{column.null_count / rows:.1%} null" if column.null_count else ""


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    shown = str(value) if value is not None else "null"
    return shown if len(shown) <= 40 else f"{shown[:39]}…"
