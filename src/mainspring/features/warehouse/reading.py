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

from mainspring.core.errors import Corrupt
from mainspring.core.expr.dialects import dialect
from mainspring.core.expr.sql import quote_name
from mainspring.data import duck
from mainspring.data.arrow import ARROW_TYPES
from mainspring.data.warehouse.ports import Warehouse
from mainspring.features.layout import layout_of
from mainspring.features.model import FeatureGroup, FeatureView, views_of
from mainspring.features.needed import needed_for, stored_part
from mainspring.features.offline.placing import Keep, Kept, Kind
from mainspring.features.warehouse.sources import check_sources, check_tables
from mainspring.features.warehouse.statement import Tables, stored_statement

NUMBER, INSTANT = "_i", "_t"  # of an observation: its number, and its instant, microseconds
# Tags of a run: the engine that read its features, and of a warehouse its address, the statement's digest, the
# warehouse's own id of the statement, the bytes that it read, and the instant of the versions of its tables.
ENGINE, WAREHOUSE = "features_engine", "warehouse"
ADDRESS, STATEMENT, JOB = "warehouse", "warehouse_statement", "warehouse_job"
SCANNED, AS_OF, NO_VERSION = "warehouse_scanned", "warehouse_as_of", "none"


@dataclass(frozen=True, slots=True)
class Job:
    """A statement of a read in a warehouse.

    Attributes:
        digest: SHA-256 of the statement as it is for any observations and any version of the tables.
        observations: Number of the observations that were loaded.
        estimated_bytes: What it was to read, by the warehouse's own estimate; `None` where it makes none.
        as_of: Instant of the versions of the tables, UTC epoch microseconds; `None` if they were read as they were.
        id: Of the warehouse's own; empty where it has none, and before it runs.
        scanned_bytes: What it read; `None` where the warehouse does not tell.
    """

    statement: str
    digest: str
    observations: int
    estimated_bytes: int | None
    as_of: int | None
    id: str = ""
    scanned_bytes: int | None = None


class WarehouseRead:
    """Read of the stored features of views in a warehouse, as `features.offline.read` takes it.

    Args:
        name: The warehouse's address, for people and for runs.
        tables: Names of the sources' tables. Its observations are those that are loaded. Without an instant `as_of` the
            tables are read as of now, so that they can be read again as they were.
        versioned: Whether versions of the tables can be read, if the dialect can; else they are read as they are.
        told: Called with a statement before it runs.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        name: str,
        tables: Tables,
        *,
        versioned: bool = True,
        told: Callable[[Job], None] | None = None,
    ) -> None:
        self._warehouse, self.name, self._versioned = warehouse, name, versioned
        self._dialect = dialect(warehouse.dialect)
        self._tables = replace(tables, at=INSTANT, counted=True)
        self._told = told or (lambda _job: None)
        self.jobs: list[Job] = []

    @property
    def statement(self) -> str:
        return self.jobs[-1].statement if self.jobs else ""

    @property
    def tags(self) -> dict[str, str]:
        found = {ENGINE: WAREHOUSE, ADDRESS: self.name}
        if self.jobs:
            job = self.jobs[-1]
            scanned = {} if job.scanned_bytes is None else {SCANNED: str(job.scanned_bytes)}
            found |= {STATEMENT: job.digest, **({JOB: job.id} if job.id else {}), **scanned}
            found[AS_OF] = NO_VERSION if job.as_of is None else str(job.as_of)
        return found

    def check(self, groups: Sequence[FeatureGroup], only: Iterable[str]) -> None:
        """Raise if the features `only`, and those that they are computed from, cannot be read there.

        Raises:
            Invalid: The dialect has no equal of a feature, or a function computes a view's rows here.
        """
        self._statement(stored_part(views_of(groups), needed_for(groups, only)), self._tables)

    def __call__(self, con: Any, views: Sequence[FeatureView], keep: Keep) -> Iterator[Kept]:
        """Yield the one result that has all features.

        Raises:
            Invalid: As `check` and `check_tables`, before anything is loaded.
            Corrupt: The result has other rows than the observations.
        """
        if not views:
            return
        general, _ = self._statement(views, self._tables)
        check_tables(self._warehouse, views, self._tables)
        count, oldest, newest = duck.one_row(con, "SELECT count(*), min(_t), max(_t) FROM observed")
        keys = {name: ARROW_TYPES[dtype] for view in views for name, dtype in view.entity.keys.items()}
        schema = pa.schema([(NUMBER, pa.int64()), (INSTANT, pa.int64()), *keys.items()])
        asked = con.sql(f"SELECT {', '.join(map(quote_name, schema.names))} FROM observed")
        rows = (batch.cast(schema) for batch in asked.to_arrow_reader(duck.BATCH_ROWS))
        with self._warehouse.loaded(rows, schema) as table:
            as_of = self._tables.as_of
            if as_of is None and self._versioned:
                as_of = version_now(self._warehouse)
            observed = None if oldest is None else (oldest, newest)
            tables = replace(self._tables, observations=table, as_of=as_of, observed=observed)
            statement, columns = self._statement(views, tables)
            estimate = self._warehouse.estimate(statement)
            digest = hashlib.sha256(general.encode()).hexdigest()
            scanned = None if estimate is None else estimate.scanned_bytes
            job = Job(statement, digest, count, scanned, tables.as_of)
            self._told(job)
            with self._warehouse.read(statement) as found:
                kept = _kept(con, found, views, columns, keep, count)
            ran = self._warehouse.last()
        self.jobs.append(job if ran is None else replace(job, id=ran.id, scanned_bytes=ran.scanned_bytes))
        yield kept

    def _statement(self, views: Sequence[FeatureView], tables: Tables) -> tuple[str, dict[str, str]]:
        check_sources(views)
        return stored_statement(views, self._dialect, tables, NUMBER)


def version_now(warehouse: Warehouse) -> int | None:
    """Return an instant as of which tables can be read from now on, by the warehouse's clock, UTC epoch microseconds;
    `None` if its dialect has no versions.
    """
    named = dialect(warehouse.dialect)
    if "now" not in named.templates:
        return None
    with warehouse.read(f"SELECT {named.write('now')} AS {named.column('us')}") as found:
        return int(found.read_all().column(0)[0].as_py())


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
    try:
        kept = keep(f"SELECT {quote_name(NUMBER)}{values} FROM found", kinds, "")
    except Exception:
        if seen.failed is not None:  # DuckDB has made a text of it
            raise seen.failed from None
        raise
    con.unregister("found")
    if (seen.rows, seen.numbers) != (count, count * (count - 1) // 2):
        raise Corrupt(
            f"The warehouse returned {seen.rows:,} rows for {count:,} observations.",
            fix="check that the column of `arrivals` is distinct for each row of its table, or read from the lake.",
        )
    return kept


class _Seen:
    """Number of the rows that went by, the sum of their observations' numbers, and the error that ended them."""

    def __init__(self) -> None:
        self.rows = self.numbers = 0
        self.failed: Exception | None = None

    def counted(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        try:
            for batch in batches:
                self.rows += batch.num_rows
                self.numbers += int(batch.column(NUMBER).to_numpy().sum())
                yield batch
        except Exception as error:
            self.failed = error
            raise
