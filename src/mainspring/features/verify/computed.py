"""Comparison of on-demand features in SQL, NumPy and plain Python on a user's own observations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from mainspring.core.expr.sql import quote_name, to_sql
from mainspring.core.schema import Schema
from mainspring.data import duck
from mainspring.data.arrow import arrow_schema
from mainspring.data.model import TableScan
from mainspring.features.equal import same
from mainspring.features.functions.model import placeholder
from mainspring.features.functions.process import FunctionProcess
from mainspring.features.layout import request_schema
from mainspring.features.model import Observations, RequestFeatures
from mainspring.features.offline.observed import AT
from mainspring.features.offline.read import point_in_time
from mainspring.features.online.reader import Computed
from mainspring.features.verify.chosen import plain
from mainspring.features.verify.scalars import scalar
from mainspring.features.verify.verifier import Mismatch, Verification


def verify_computed(
    group: RequestFeatures,
    observations: Observations,
    scan: Callable[[str], TableScan],
    sample: int,
    seed: int,
) -> Verification:
    """Compare the three evaluations of each feature of `group` on up to `sample` random observations.

    Stored features among their inputs are read offline; those reads themselves are compared by `verifier.Verifier`.

    Raises:
        NotFound: A source has no table yet.
    """
    fields = observations.source.columns
    observed = _sampled(observations, scan(observations.source.name), sample, seed)
    read = point_in_time(observed, [*group.views, group], scan, schema=dict(fields))
    values_by_name: dict[str, Sequence[Any]] = {name: plain(read.column(name)) for name in read.column_names}
    computed = Computed(group, dict(fields))
    online = computed.values(values_by_name, observed.num_rows)
    if computed.process is not None:  # the third evaluation calls the function row by row
        values_by_name.update(_one_by_one(computed.process, values_by_name, observed.num_rows))
    mismatches = []
    schema = request_schema(group, dict(fields))
    for name, expression in group.features.items():
        full_name = f"{group.name}.{name}"
        slow = scalar(expression, schema)
        for row in range(observed.num_rows):
            offline, recomputed = values_by_name[full_name][row], slow(_Row(values_by_name, row))
            if not same(offline, online[full_name][row]) or not same(offline, recomputed):
                about = {field: values_by_name[field][row] for field in sorted(schema) if field in values_by_name}
                mismatches.append(
                    Mismatch(
                        full_name,
                        about,
                        values_by_name[AT][row],
                        "own",
                        offline,
                        online[full_name][row],
                        recomputed,
                        True,
                    )
                )
    values = observed.num_rows * len(group.features)
    return Verification(
        group.name, seed, 0, observed.num_rows, values, 0, values, 0, tuple(mismatches),
        () if observed.num_rows else ("there is no observation yet",),
    )  # fmt: skip


def _one_by_one(process: FunctionProcess, known: Mapping[str, Sequence[Any]], rows: int) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {placeholder(name): [] for name in process.function.outputs}
    for row in range(rows):
        values = process.values({name: [known[name][row]] for name in process.function.columns}, 1)
        for name, column in values.items():
            found[placeholder(name)] += column
    return found


class _Row(Mapping[str, Any]):
    """One row of columns."""

    def __init__(self, columns: Mapping[str, Sequence[Any]], row: int) -> None:
        self._columns = columns
        self._row = row

    def __getitem__(self, name: str) -> Any:
        return self._columns[name][self._row]

    def __iter__(self) -> Any:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def _sampled(observations: Observations, scan: TableScan, sample: int, seed: int) -> pa.Table:
    """Return random rows of the observations' source with a time, and that time as `_at`."""
    columns: Schema = dict(observations.source.columns)
    names = ", ".join(quote_name(name) for name in columns)
    con = duck.connect()
    try:
        with duck.duck_errors(observations.source.name):
            duck.register(con, "source", scan)
            con.execute("SET threads = 1")  # with more threads, the same seed would not give the same rows
            rows: pa.Table = con.sql(
                f"SELECT * FROM (SELECT {names}, epoch_us({to_sql(observations.at, columns)}) AS {AT} FROM source) "
                f"WHERE {AT} IS NOT NULL USING SAMPLE reservoir({sample} ROWS) REPEATABLE ({seed % 2**31})"
            ).to_arrow_table()
    finally:
        con.close()
    at = rows.column(AT).cast(pa.timestamp("us", tz="UTC"))
    return rows.drop_columns([AT]).cast(arrow_schema(columns)).append_column(AT, at)
