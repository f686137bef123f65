"""Differences between two versions of the data: rows, columns, and distributions.

Two versions of a table share most of their files; only the others are read to count added and removed rows. A row is
the same if its `_seq` and its own columns agree, whatever its flags. Distributions are compared over the whole
versions, by the tests of `stats.drift`. As the versions share rows, p-values err towards no difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from mainspring.core.expr.sql import quote_name
from mainspring.data import duck
from mainspring.data.arrow import schema_changes
from mainspring.data.bin_counts import Counts, bins_of, count_by_bin, reference_of, sketch_of
from mainspring.data.model import SEQUENCE, TableScan
from mainspring.data.ports import LakeTables
from mainspring.stats.drift import judge
from mainspring.stats.reference import CATEGORICAL, ColumnReference

if TYPE_CHECKING:
    import duckdb


Progress = Callable[[str, int, int], None]
Parts = Mapping[str, TableScan]  # the shared, removed and added files: `kept`, `gone` and `come`

_SHARES = 3  # number of categories shown, by largest change of share


@dataclass(frozen=True, slots=True)
class ColumnDiff:
    """Difference of one column.

    `distance` is the Kolmogorov-Smirnov statistic; for categories, half the sum of the differences of shares. Means and
    standard deviations are None for categories, shares are empty for numbers, and both are left out for columns that
    identify a person. `q_value` is Benjamini and Hochberg's over the columns of the table; `differs` also requires a
    minimum effect size.
    """

    column: str
    kind: str  # numeric, categorical
    null_share_before: float
    null_share: float
    distance: float
    shift_sd: float | None
    p_value: float
    q_value: float
    differs: bool
    mean_before: float | None = None
    mean: float | None = None
    sd_before: float | None = None
    sd: float | None = None
    shares: tuple[tuple[str, float, float], ...] = ()  # category, share before, share after


@dataclass(frozen=True, slots=True)
class TableDiff:
    """Difference of one table. A version is None if the table did not exist; columns are then not compared."""

    table: str
    before: int | None
    after: int | None
    rows_before: int
    rows: int
    added: int
    removed: int
    schema: tuple[str, ...] = ()
    columns: tuple[ColumnDiff, ...] = field(default=())


def diff(
    lake: LakeTables,
    before: Mapping[str, int],
    after: Mapping[str, int],
    *,
    pii: Mapping[str, Sequence[str]] | None = None,
    memory_limit: str = "2GB",
    progress: Progress | None = None,
) -> list[TableDiff]:
    """Return the differences of the tables whose versions differ, sorted by name.

    Args:
        before, after: Table -> version.
        pii: Table -> columns that identify a person.
        progress: Called with a table's name, the number of tables done, and the total.

    Raises:
        NotFound: A version was vacuumed.
        Corrupt: A file cannot be read.
    """
    tables = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    found = []
    for done, name in enumerate(tables):
        if progress is not None:
            progress(name, done, len(tables))
        found.append(
            _table(lake, name, before.get(name), after.get(name), set((pii or {}).get(name, ())), memory_limit)
        )
    if progress is not None and tables:
        progress(tables[-1], len(tables), len(tables))
    return found


def _table(
    lake: LakeTables, name: str, before: int | None, after: int | None, pii: set[str], memory_limit: str
) -> TableDiff:
    if before is None or after is None:
        rows_before = 0 if before is None else lake.describe(name, before).rows
        rows = 0 if after is None else lake.describe(name, after).rows
        return TableDiff(name, before, after, rows_before, rows, added=rows, removed=rows_before)
    was, now = lake.scan(name, before), lake.scan(name, after)
    old, new = was.schema or pa.schema([]), now.schema or pa.schema([])
    with duck.connect(memory_limit) as con, duck.duck_errors(name):
        parts = _parts(was, now)
        for part, scan in parts.items():
            duck.register(con, part, scan)
        added, removed = _rows(con)
        columns = tuple(_columns(con, was, _compared(old, new), pii)) if added or removed else ()
    return TableDiff(
        name,
        before,
        after,
        lake.describe(name, before).rows,
        lake.describe(name, after).rows,
        added,
        removed,
        schema_changes(old, new),
        columns,
    )


def _parts(was: TableScan, now: TableScan) -> Parts:
    """Split two versions into shared files, files only in the first, and files only in the second."""
    if was.files is None or now.files is None:
        return {"kept": replace(was, rows=None, files=()), "gone": was, "come": now}
    both = {*was.files} & {*now.files}
    return {
        "kept": replace(was, files=tuple(file for file in was.files if file in both)),
        "gone": replace(was, files=tuple(file for file in was.files if file not in both)),
        "come": replace(now, files=tuple(file for file in now.files if file not in both)),
    }


def _rows(con: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    """Return the number of rows in `come` but not in `gone`, and in `gone` but not in `come`."""
    gone, come = _types(con, "gone"), _types(con, "come")
    types = {**gone, **come}
    number = "0"
    if SEQUENCE in gone and SEQUENCE in come:
        number = SEQUENCE
        types = {name: kind for name, kind in types.items() if not name.startswith("_")}
    sides = []
    for view, there in (("gone", gone), ("come", come)):
        # A null in a column that did not exist before does not change a row, nor does a wider type.
        values = [f"CAST({quote_name(name) if name in there else 'NULL'} AS {kind})" for name, kind in types.items()]
        sides.append(f"SELECT '{view}' AS side, {number} AS s, hash({', '.join(['0', *values])}) AS h FROM {view}")
    added, removed = duck.one_row(
        con,
        f"""
        WITH counted AS (
            SELECT count(*) FILTER (side = 'come') - count(*) FILTER (side = 'gone') AS more
            FROM ({" UNION ALL ".join(sides)}) GROUP BY s, h)
        SELECT coalesce(sum(greatest(more, 0)), 0), coalesce(sum(greatest(-more, 0)), 0) FROM counted""",
    )
    return int(added), int(removed)


def _types(con: duckdb.DuckDBPyConnection, view: str) -> dict[str, str]:
    return {row[0]: row[1] for row in con.execute(f"DESCRIBE SELECT * FROM {view}").fetchall()}


def _compared(old: pa.Schema, new: pa.Schema) -> dict[str, pa.DataType]:
    """Return the columns whose distributions are compared; times are excluded, as they always advance."""

    def plain(kind: pa.DataType) -> bool:
        types = pa.types
        return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))

    found = {}
    for column in old:
        if column.name.startswith("_") or column.name not in new.names:
            continue
        other = new.field(column.name).type
        if (plain(column.type) and plain(other)) or (pa.types.is_string(column.type) and pa.types.is_string(other)):
            found[column.name] = column.type
    return found


def _columns(
    con: duckdb.DuckDBPyConnection, was: TableScan, kinds: dict[str, pa.DataType], pii: set[str]
) -> Iterator[ColumnDiff]:
    bins = bins_of(was, list(kinds))
    kept, gone, come = (count_by_bin(con, part, bins, kinds) for part in ("kept", "gone", "come"))
    befores = {name: kept[name].merge(gone[name]) for name in bins}
    afters = {name: kept[name].merge(come[name]) for name in bins}
    reference = reference_of(bins, befores)
    for verdict in judge(reference, sketch_of(reference, afters)):
        name = verdict.column
        found = ColumnDiff(
            name,
            bins[name].kind,
            befores[name].null_share,
            verdict.null_share,
            verdict.ks,
            verdict.shift_sd,
            verdict.p_value,
            verdict.q_value,
            verdict.drifted,
        )
        yield found if name in pii else _with_values(found, bins[name], befores[name], afters[name])


def _with_values(found: ColumnDiff, bins: ColumnReference, before: Counts, after: Counts) -> ColumnDiff:
    if bins.kind == CATEGORICAL:
        changes = [
            (category, was / max(before.rows, 1), now / max(after.rows, 1))
            for category, was, now in zip((*bins.categories, "(others)"), before.bins, after.bins, strict=True)
        ]
        most = sorted(changes, key=lambda change: -abs(change[2] - change[1]))
        return replace(found, shares=tuple(change for change in most[:_SHARES] if change[1] != change[2]))
    return replace(
        found,
        mean_before=before.mean if before.n else None,
        mean=after.mean if after.n else None,
        sd_before=before.sd if before.n else None,
        sd=after.sd if after.n else None,
    )
