"""Rows with their features in a file, for training sets larger than memory."""

from __future__ import annotations

import itertools
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mainspring.core import html
from mainspring.operations.features.table import FeatureTable, shown_type


@dataclass(frozen=True, eq=False, repr=False)
class FeatureFile:
    """A Parquet file with the columns of the corresponding `FeatureTable`, in their order.

    It can be used as a path: `pd.read_parquet(written)`, `pl.scan_parquet(written)`.

    Attributes:
        path: Path of the file.
        rows: Number of its rows.
        features: Full names of the features, in the requested order.
        at: Name of the column with the instant of each row's features.
        label: Name of the label's column, if there is one; for several labels a tuple of names.
        seconds: Duration of its creation.
    """

    title: str
    path: Path
    _: KW_ONLY
    rows: int
    features: tuple[str, ...]
    at: str
    label: str | tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    seconds: float

    def __fspath__(self) -> str:
        return str(self.path)

    def __len__(self) -> int:
        return self.rows

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds if self.seconds else 0.0

    @property
    def schema(self) -> pa.Schema:
        """The columns and their types."""
        return pq.read_schema(self.path)

    @property
    def columns(self) -> list[str]:
        return list(self.schema.names)

    def head(self, rows: int = 5) -> FeatureTable:
        """Return the first rows."""
        with pq.ParquetFile(self.path) as file:
            batches = list(itertools.islice(file.iter_batches(batch_size=max(rows, 1)), 1))
            table = pa.Table.from_batches(batches, file.schema_arrow).slice(0, rows)
        return FeatureTable("The first rows", table, features=self.features, at=self.at, label=self.label)

    def __repr__(self) -> str:
        columns = [(field.name, shown_type(field.type)) for field in self.schema]
        width = max(len(name) for name, _ in columns)
        lines = [f"{self.title}: {self._summary()}", *(f"  {note}" for note in self.notes)]
        return "\n".join([*lines, *(f"  {name:<{width}}  {kind}" for name, kind in columns)])

    def _repr_html_(self) -> str:
        notes = [html.paragraph(html.dim(note)) for note in self.notes]
        return html.joined(html.title(self.title, self._summary()), *notes, html.Markup(self.head()._repr_html_()))

    def _summary(self) -> str:
        rows = f"{self.rows:,} {'row' if self.rows == 1 else 'rows'} x {len(self.features)} features"
        return f"{rows} in {self.path}, {self.path.stat().st_size / 1e6:,.1f} MB, {self.rows_per_second:,.0f} rows/s"
