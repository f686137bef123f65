"""Derived tables: a function's outputs for each row of a source, kept in the lake beside it.

The derived table is, in the order of arrival, the outputs for the first rows of the source: its own rows and its
quarantine together name each of them once (`derived_from`). The rest is computed in that order, so ties are broken as
in the source, and a killed run is continued. Where the table is not such a beginning any more, because the source was
restored or an interrupted ingestion was completed, it is made again, from the outputs that are known already.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mainspring.core.expr.sql import quote_name
from mainspring.core.locks import Locks
from mainspring.data import duck
from mainspring.data.arrow import arrow_schema
from mainspring.data.ingest import Ingestor
from mainspring.data.keyings import Keyings
from mainspring.data.model import QUARANTINE_SUFFIX, SEQUENCE
from mainspring.data.ports import LakeTables
from mainspring.features.functions.checking import check_repeats
from mainspring.features.functions.messages import Answer
from mainspring.features.functions.model import COST_US, DERIVED_FROM, ENCODER, FAILURE, DerivedSource
from mainspring.features.functions.process import FunctionProcesses
from mainspring.features.functions.running import FunctionRunner, LocalRunner

_LOAD_ROWS = 65_536  # maximum rows of one ingestion
_LOAD_S = 20.0  # duration after which what is computed is ingested, so that a killed run loses little
_SAMPLE = 64  # rows by which a function is checked before it is computed for all
_WAIT_S = 3600.0

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class DeriveReport:
    """Result of one derivation: `rows` were computed, `failed` of them without a value, `kept` taken from before."""

    name: str  # of the function
    table: str
    rows: int
    failed: int
    kept: int
    seconds: float  # of the function alone


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a function so far. `behind` rows of the source are not computed yet."""

    rows: int
    failed: int
    seconds: float
    behind: int

    @property
    def rows_per_s(self) -> float | None:
        return self.rows / self.seconds if self.seconds else None


class Deriver:
    """Computes derived tables; one run per table at a time, across processes.

    Args:
        processes: The processes in which the functions run; by default its own.
        engines: Engine -> what computes there; called when a function asks for it.
    """

    def __init__(
        self,
        lake: LakeTables,
        ingestor: Ingestor,
        locks: Locks,
        processes: FunctionProcesses | None = None,
        engines: Mapping[str, Callable[[], FunctionRunner]] | None = None,
    ) -> None:
        self._engines = engines or {}
        self._lake = lake
        self._ingestor = ingestor
        self._locks = locks
        self._processes = processes or FunctionProcesses()

    def derive(self, source: DerivedSource, keyings: Keyings, progress: Progress | None = None) -> DeriveReport:
        """Compute the outputs for the rows of the parent that have none; nothing if there are none.

        Raises:
            FunctionFailed: The function does not load, runs too long, ends its process, does not return what it
                declares, or is not repeatable; what was computed before is kept.
            StorageFull: No space; the same call continues.
        """
        if self._lake.version(source.parent.name) is None:
            return DeriveReport(source.function.name, source.name, 0, 0, 0, 0.0)
        with self._locks.hold(f"derive.{source.name}", wait_s=_WAIT_S), duck.connect() as con:
            derivation = _Derivation(con, self._lake, self._ingestor, self._locks, source, keyings)
            return derivation.run(self._processes, self._runner(source.function.engine), progress)

    def _runner(self, engine: str) -> FunctionRunner:
        make = self._engines.get(engine)
        return LocalRunner(self._processes) if make is None else make()

    def cost(self, source: DerivedSource) -> Cost:
        """Return what the stored outputs cost."""
        with duck.connect() as con:
            return _Derivation(con, self._lake, self._ingestor, self._locks, source, {}).cost()


class _Derivation:
    """One run. Views in `con`: `parent`, `done` (derived_from, outputs, failure, cost) and, if needed, `known`."""

    def __init__(
        self,
        con: Any,
        lake: LakeTables,
        ingestor: Ingestor,
        locks: Locks,
        source: DerivedSource,
        keyings: Keyings,
    ) -> None:
        self._con, self._lake, self._ingestor, self._locks = con, lake, ingestor, locks
        self._source, self._function, self._keyings = source, source.function, keyings
        self._computed = {name: source.columns[name] for name in (*self._function.outputs, FAILURE, COST_US)}
        self._tables = [
            name for name in (source.name, source.name + QUARANTINE_SUFFIX) if lake.version(name) is not None
        ]

    def run(self, processes: FunctionProcesses, runner: FunctionRunner, progress: Progress | None) -> DeriveReport:
        duck.register(self._con, "parent", self._lake.scan(self._source.parent.name))
        self._see_done()
        known = not self._is_beginning()
        if known:
            self._begin_again()
        last = duck.one_row(self._con, f"SELECT coalesce(max({DERIVED_FROM}), -1) FROM done")[0]
        query = f"SELECT {SEQUENCE} FROM parent WHERE {SEQUENCE} > {int(last)} ORDER BY 1"
        missing = self._con.sql(query).fetchnumpy()[SEQUENCE].astype(np.int64)
        rows = failed = kept = 0
        seconds = 0.0
        embeds = self._function.engine == ENCODER
        if len(missing) and last < 0 and not known and not embeds and self._function.digest not in processes.checked:
            sample = self._rows(missing[:_SAMPLE]).select(list(self._function.columns))
            check_repeats(processes.of(self._function), sample)
            processes.checked.add(self._function.digest)
        if embeds:
            known = self._see_texts("known" if known else "done", int(last)) or known
        for made, taken in self._loads(self._batches(runner, missing, known=known)):
            first, until = made[DERIVED_FROM][0].as_py(), made[DERIVED_FROM][-1].as_py()
            self._ingestor.ingest(self._source, made, keyings=self._keyings, batch_id=f"{first}-{until}")
            rows, kept = rows + len(made) - taken, kept + taken
            failed += len(made) - made[FAILURE].null_count
            seconds += float(np.nansum(made[COST_US].to_numpy())) / 1e6
            if progress is not None:
                progress(rows + kept, len(missing))
        return DeriveReport(self._function.name, self._source.name, rows, failed, kept, seconds)

    def cost(self) -> Cost:
        self._see_done()
        query = f"SELECT count(*), count({FAILURE}), coalesce(sum({COST_US}), 0) / 1e6 FROM done"
        rows, failed, seconds = duck.one_row(self._con, query)
        parent = self._source.parent.name
        there = 0 if self._lake.version(parent) is None else self._lake.describe(parent).rows
        return Cost(int(rows), int(failed), float(seconds), max(0, there - int(rows)))

    def _see_done(self) -> None:
        """Create the view `done` of the outputs that are stored; the quarantine holds texts."""
        types = {field.name: field.type for field in arrow_schema(self._computed)}
        parts = []
        for number, table in enumerate(self._tables):
            duck.register(self._con, f"done_{number}", self._lake.scan(table))
            names = ", ".join(
                f"TRY_CAST({quote_name(name)} AS {duck_type(kind)}) AS {quote_name(name)}"
                for name, kind in types.items()
            )
            parts.append(f"SELECT CAST({DERIVED_FROM} AS BIGINT) AS {DERIVED_FROM}, {names} FROM done_{number}")
        if not parts:
            names = ", ".join(f"CAST(NULL AS {duck_type(kind)}) AS {quote_name(name)}" for name, kind in types.items())
            parts.append(f"SELECT CAST(0 AS BIGINT) AS {DERIVED_FROM}, {names} WHERE false")
        self._con.execute(f"CREATE OR REPLACE TEMP VIEW done AS {' UNION ALL '.join(parts)}")

    def _is_beginning(self) -> bool:
        """Return whether the stored outputs are those of the first rows of the parent, each once."""
        stored = f"SELECT count(*), count(DISTINCT {DERIVED_FROM}), sum({DERIVED_FROM}), max({DERIVED_FROM}) FROM done"
        count, distinct, total, last = duck.one_row(self._con, stored)
        if not count:
            return True
        there = f"SELECT count(*), sum({SEQUENCE}) FROM parent WHERE {SEQUENCE} <= {int(last)}"
        return bool(count == distinct and (count, total) == duck.one_row(self._con, there))

    def _begin_again(self) -> None:
        """Empty the derived tables; their outputs stay readable as the view `known`."""
        self._con.execute(f"CREATE TEMP TABLE known AS SELECT DISTINCT ON ({DERIVED_FROM}) * FROM done")
        with self._locks.hold(f"ingest.{self._source.name}", wait_s=_WAIT_S):
            for table in self._tables:
                self._lake.restore(table, None)
        self._see_done()

    def _rows(self, numbers: Any) -> pa.Table:
        """Return the parent's rows with these numbers, in order: `derived_from`, the carried and the read columns."""
        carried = [name for name in self._source.columns if name not in (*self._computed, DERIVED_FROM)]
        names = ", ".join(map(quote_name, dict.fromkeys([*carried, *self._function.columns])))
        first, last = int(numbers[0]), int(numbers[-1])
        found: pa.Table = self._con.sql(
            f"SELECT {SEQUENCE} AS {DERIVED_FROM}, {names} FROM parent "
            f"WHERE {SEQUENCE} BETWEEN {first} AND {last} ORDER BY {SEQUENCE}"
        ).to_arrow_table()
        return found

    def _loads(self, batches: Iterable[tuple[pa.Table, int]]) -> Iterator[tuple[pa.Table, int]]:
        """Yield rows to ingest together, and how many of them were known."""
        waiting: list[pa.Table] = []
        count = taken = 0
        began = time.monotonic()
        for made, old in batches:
            waiting.append(made)
            count, taken = count + len(made), taken + old
            if count + self._function.batch_rows > _LOAD_ROWS or time.monotonic() - began > _LOAD_S:
                yield pa.concat_tables(waiting), taken
                waiting, count, taken, began = [], 0, 0, time.monotonic()
        if waiting:
            yield pa.concat_tables(waiting), taken

    def _batches(self, runner: FunctionRunner, missing: Any, *, known: bool) -> Iterator[tuple[pa.Table, int]]:
        """Yield derived rows in order, and how many of them were known."""
        step = self._function.batch_rows
        given = (self._rows(missing[first : first + step]) for first in range(0, len(missing), step))
        if known:
            yield from (self._partly_known(runner, rows) for rows in given)
            return
        for rows, found, answer in runner.run(self._function, given):
            yield self._derived(rows, found, answer), 0

    def _see_texts(self, given: str, last: int) -> bool:
        """Create the view `known` for the rows whose texts have outputs already, and return whether there are some: no
        encoder is asked twice for a text.

        Args:
            given: View with outputs.
            last: Number of the last row that is not missing.
        """
        (column,) = map(quote_name, self._function.columns)
        names = ", ".join(map(quote_name, self._function.outputs))
        self._con.execute(f"""
            CREATE OR REPLACE TEMP TABLE texts AS
            SELECT DISTINCT ON (parent.{column}) parent.{column}, {names}
            FROM {given} JOIN parent ON parent.{SEQUENCE} = {given}.{DERIVED_FROM}
            WHERE {given}.{FAILURE} IS NULL
            AND parent.{column} IN (SELECT {column} FROM parent WHERE {SEQUENCE} > {last})""")
        count = int(duck.one_row(self._con, "SELECT count(*) FROM texts")[0])
        if count:
            self._con.execute(f"""
                CREATE OR REPLACE TEMP TABLE known AS
                SELECT parent.{SEQUENCE} AS {DERIVED_FROM}, {names}, CAST(NULL AS VARCHAR) AS {FAILURE},
                    CAST(0 AS FLOAT) AS {COST_US}
                FROM parent JOIN texts USING ({column}) WHERE parent.{SEQUENCE} > {last}""")
        return bool(count)

    def _partly_known(self, runner: FunctionRunner, rows: pa.Table) -> tuple[pa.Table, int]:
        self._con.register("wanted", rows)
        carried = [name for name in self._source.columns if name not in self._computed]
        names = ", ".join(f"known.{quote_name(name)}" for name in self._computed)
        mine = ", ".join(f"wanted.{quote_name(name)}" for name in carried)
        old = self._con.sql(f"SELECT {mine}, {names} FROM wanted JOIN known USING ({DERIVED_FROM})").to_arrow_table()
        new = self._con.sql(f"SELECT wanted.* FROM wanted ANTI JOIN known USING ({DERIVED_FROM})").to_arrow_table()
        self._con.unregister("wanted")
        parts = [old.select(list(self._source.columns))]
        if len(new):
            parts += [self._derived(*computed) for computed in runner.run(self._function, [new])]
        return pa.concat_tables(parts, promote_options="permissive").sort_by(DERIVED_FROM), len(old)

    def _derived(self, rows: pa.Table, found: pa.Table, answer: Answer) -> pa.Table:
        """Return the derived rows of some rows of the parent, given the outputs for them."""
        failures = pa.array([answer.failures.get(row) for row in range(len(rows))], pa.string())
        share = pa.array(np.full(len(rows), answer.seconds * 1e6 / max(1, len(rows)), np.float32))
        carried: dict[str, Any] = {
            name: rows.column(name) for name in self._source.columns if name not in self._computed
        }
        computed: dict[str, Any] = dict(zip(found.column_names, found.columns, strict=True))
        return pa.table({**carried, **computed, FAILURE: failures, COST_US: share}).select(list(self._source.columns))


def duck_type(kind: pa.DataType) -> str:
    """Return DuckDB's name of an Arrow type."""
    names = {
        pa.string(): "VARCHAR", pa.bool_(): "BOOLEAN", pa.int32(): "INTEGER", pa.int64(): "BIGINT",
        pa.float32(): "FLOAT", pa.float64(): "DOUBLE",
    }  # fmt: skip
    return names.get(kind, "TIMESTAMPTZ")
