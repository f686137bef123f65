"""Random entities of a view with all their rows, few enough for plain Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mainspring.core.errors import Invalid, NotFound
from mainspring.core.expr.sql import quote_name
from mainspring.data import duck
from mainspring.data.model import SEQUENCE, TableScan
from mainspring.features.model import FeatureView
from mainspring.features.offline.asof import equal, listed
from mainspring.features.verify.brute import Fact, Version, superseded

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of the cost of one comparison: entities, their rows, and pairs that are recomputed by brute force."""

    entities: int = 200
    rows: int = 300_000
    recomputed: int = 200


@dataclass(frozen=True)
class Chosen:
    """Entities by number.

    Attributes:
        keys: Each entity's key values; instants as UTC epoch microseconds.
        scan: All rows of all of them, as a version of the source's table.
        facts: The same rows by entity.
    """

    keys: list[Key]
    scan: TableScan
    facts: dict[int, list[Fact]]


def choose(view: FeatureView, scan: TableScan, seed: int, bounds: Bounds) -> Chosen:
    """Return random entities, always the same for the same seed and data.

    Raises:
        NotFound: The source has no row without a null key.
        Invalid: Each entity alone has more rows than `bounds.rows`.
    """
    keys = list(view.entity.keys)
    condition = " AND ".join(f"{quote_name(key)} IS NOT NULL" for key in keys)
    con = duck.connect()
    try:
        with duck.duck_errors(view.source.name):
            duck.register(con, "source", scan)
            con.execute(
                f"CREATE TEMP TABLE counted AS SELECT {listed(keys)}, count(*) AS _rows FROM source "
                f"WHERE {condition} GROUP BY ALL"
            )
            _check_size(view, duck.one_row(con, "SELECT min(_rows) FROM counted")[0], bounds.rows)
            con.execute(
                f"CREATE TEMP TABLE chosen AS SELECT * FROM (SELECT *, sum(_rows) OVER (ORDER BY _n) AS _total "
                f"FROM (SELECT *, row_number() OVER (ORDER BY hash({listed(keys)}, {seed}), {listed(keys)}) AS _n "
                f"FROM counted WHERE _rows <= {bounds.rows})) "
                f"WHERE _total <= {bounds.rows} ORDER BY _n LIMIT {bounds.entities}"
            )
            key_table = con.sql(f"SELECT {listed(keys)} FROM chosen ORDER BY _n").to_arrow_table()
            rows = con.sql(
                f"SELECT s.* FROM source AS s SEMI JOIN chosen AS c ON {equal(keys, 's', 'c')} ORDER BY s.{SEQUENCE}"
            ).to_arrow_table()
            ended = superseded(_versions(con, view), view.source.lag_us) if view.source.id else {}
    finally:
        con.close()
    entities = list(zip(*(plain(key_table.column(key)) for key in keys), strict=True))
    return Chosen(entities, TableScan(scan.version, rows=rows, schema=rows.schema), _facts(view, entities, rows, ended))


def _check_size(view: FeatureView, smallest: int | None, most: int) -> None:
    source = view.source.name
    if smallest is None:
        raise NotFound(f"Source {source!r} has no rows of any {view.entity.name} yet.",
                       fix=f"run `mainspring ingest {source} FILE`.")  # fmt: skip
    if smallest > most:
        raise Invalid(
            f"Each {view.entity.name} has at least {smallest:,} rows in {source!r}; at most {most:,} rows are "
            "compared.",
            fix=f"allow more: --rows {smallest}.",
        )


def _versions(con: Any, view: FeatureView) -> list[Version]:
    """Return all versions, of any entity, of the facts with a version of the chosen entities."""
    source, keys = view.source, list(view.entity.keys)
    ids = f"SELECT DISTINCT {listed(source.id)} FROM source AS s SEMI JOIN chosen AS c ON {equal(keys, 's', 'c')}"
    retracts = "false" if source.retracted is None else f"coalesce({quote_name(source.retracted)}, false)"
    rows = con.sql(
        f"SELECT s.*, {retracts} AS _retracts FROM source AS s SEMI JOIN ({ids}) AS f ON {equal(source.id, 's', 'f')}"
    ).to_arrow_table()
    columns = [plain(rows.column(name)) for name in (source.event_time, source.times[-1], SEQUENCE, "_retracts")]
    named = zip(*(plain(rows.column(name)) for name in source.id), strict=True)
    return [Version(name, *row) for name, *row in zip(named, *columns, strict=True)]


def _facts(
    view: FeatureView, keys: list[Key], rows: pa.Table, ended: Mapping[int, tuple[int, int]]
) -> dict[int, list[Fact]]:
    numbers = {key: number for number, key in enumerate(keys)}
    facts: dict[int, list[Fact]] = {number: [] for number in numbers.values()}
    source = view.source
    columns = {name: plain(rows.column(name)) for name in source.columns}
    event, recorded = columns[source.event_time], columns[source.recorded_time or source.event_time]
    row_keys = zip(*(columns[key] for key in view.entity.keys), strict=True)
    for row, (key, seq) in enumerate(zip(row_keys, plain(rows.column(SEQUENCE)), strict=True)):
        values = {name: column[row] for name, column in columns.items()}
        facts[numbers[key]].append(Fact(event[row], recorded[row], seq, values, *ended.get(seq, ())))
    return facts


def plain(column: Any) -> list[Any]:
    """Return Python values; instants as UTC epoch microseconds."""
    values: list[Any] = (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
    return values
