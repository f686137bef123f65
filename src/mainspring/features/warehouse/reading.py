"""Read of stored features in a warehouse: the observations are loaded there, one statement runs, its rows come back.

Computed features are no part of the statement: they are computed here, from what it returns, as for the read from the
lake. So every function of Python and every expression is the same code with either engine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from mainspring.core.errors import Corrupt, Invalid
from mainspring.core.expr.dialects import Dialect, dialect
from mainspring.core.expr.sql import quote_name
from mainspring.core.schema import DType
from mainspring.data import duck
from mainspring.data.arrow import ARROW_TYPES
from mainspring.data.warehouse.ports import Warehouse
from mainspring.features.functions.model import DerivedSource
from mainspring.features.layout import layout_of
from mainspring.features.model import FeatureView
from mainspring.features.offline.placing import Keep, Kept, Kind
from mainspring.features.warehouse.statement import Tables, stored_statement

NUMBER, INSTANT = "_i", "_t"  # of an observation: its number, and its instant, microseconds


@dataclass(frozen=True, slots=True)
class Planned:
    """A statement that is about to run.

    Attributes:
        observations: Number of the observations that were loaded.
        scanned_bytes: What it would read, by the warehouse's own estimate; `None` where it makes none.
    """

    statement: str
    observations: int
    scanned_bytes: int | None

    @property
    def digest(self) -> str:
        """SHA-256 of the statement."""
        return hashlib.sha256(self.statement.encode()).hexdigest()


class WarehouseRead:
    """Read of the stored features of views in a warehouse, as `features.offline.read` takes it.

    Args:
        tables: Names of the sources' tables. Its observations are those that are loaded.
        told: Called with a statement before it runs.
    """

    def __init__(self, warehouse: Warehouse, tables: Tables, told: Callable[[Planned], None] | None = None) -> None:
        self._warehouse = warehouse
        self._tables = replace(tables, at=INSTANT, counted=True)
        self._told = told or (lambda _planned: None)

    def __call__(self, con: Any, views: Sequence[FeatureView], keep: Keep) -> Iterator[Kept]:
        """Yield the one result that has all features.

        Args:
            con: A DuckDB connection that has `observed`, as `features.offline.stored.read_views` takes it.

        Raises:
            Invalid: The dialect has no equal of a feature; a view's rows are computed by a function, here.
            Corrupt: The result has other rows than the observations.
        """
        check_there(views)
        if not views:
            return
        named = dialect(self._warehouse.dialect)
        (count,) = duck.one_row(con, "SELECT count(*) FROM observed")
        keys = {name: dtype for view in views for name, dtype in view.entity.keys.items()}
        schema = pa.schema([(NUMBER, pa.int64()), (INSTANT, pa.int64()), *_arrow(keys)])
        rows = con.sql(f"SELECT {', '.join(map(quote_name, schema.names))} FROM observed").to_arrow_reader(
            duck.BATCH_ROWS
        )
        # Refused before anything is loaded.
        self._statement(views, named, "observations")
        with self._warehouse.loaded((batch.cast(schema) for batch in rows), schema) as table:
            statement, columns = self._statement(views, named, table)
            estimate = self._warehouse.estimate(statement)
            self._told(Planned(statement, count, None if estimate is None else estimate.scanned_bytes))
            with self._warehouse.read(statement) as found:
                yield _kept(con, found, views, columns, keep, count)

    def _statement(
        self, views: Sequence[FeatureView], named: Dialect, observations: str
    ) -> tuple[str, dict[str, str]]:
        return stored_statement(views, named, replace(self._tables, observations=observations), NUMBER)


def check_there(views: Iterable[FeatureView]) -> None:
    """Raise if a warehouse cannot have the rows of a view.

    Raises:
        Invalid: A function of Python computes them, here.
    """
    for view in views:
        if isinstance(view.source, DerivedSource):
            raise Invalid(
                f"The rows of {view.name} are computed here, by {view.source.function.name}, so no warehouse has them.",
                fix="read it from the lake (--engine lake), or leave it out.",
            )


def _arrow(keys: Mapping[str, DType]) -> list[tuple[str, pa.DataType]]:
    return [(name, ARROW_TYPES[dtype]) for name, dtype in keys.items()]


def _kept(
    con: Any,
    found: pa.RecordBatchReader,
    views: Sequence[FeatureView],
    columns: Mapping[str, str],
    keep: Keep,
    count: int,
) -> Kept:
    """Return what `keep` makes of a result, of which each observation must be one row."""
    kinds = {}
    for view in views:
        layout = layout_of(view)
        for name in view.features:
            kinds[f"{view.name}.{name}"] = Kind(ARROW_TYPES[layout.dtype(name)])
    seen = _Seen()
    con.register("found", pa.RecordBatchReader.from_batches(found.schema, seen.counted(found)))
    values = "".join(f", {quote_name(columns[name])} AS {quote_name(name)}" for name in kinds)
    kept = keep(f"SELECT {quote_name(NUMBER)}{values} FROM found", kinds, "")
    con.unregister("found")
    if (seen.rows, seen.numbers) != (count, count * (count - 1) // 2):
        raise Corrupt(
            f"The warehouse returned {seen.rows:,} rows for {count:,} observations.",
            fix="check that the column of `arrivals` is distinct for each row of its table, or read from the lake.",
        )
    return kept


class _Seen:
    """Number of the rows that went by, and the sum of their observations' numbers."""

    def __init__(self) -> None:
        self.rows = self.numbers = 0

    def counted(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            self.rows += batch.num_rows
            self.numbers += int(batch.column(NUMBER).to_numpy().sum())
            yield batch
