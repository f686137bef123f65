"""Indexes on Postgres with the extension pgvector: a table of entries each, in a schema.

Table `vector_index`: the specification of each index, and the number of its table `entries_NUMBER`, in which a field is
a column. Searches are exact until `compact` finds enough entries for an HNSW index. `compact` writes another table
and swaps, so that searches go on and no byte of a deleted entry is left in a table; Postgres's log (WAL) and its
archives have them for as long as they are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from mainspring.core.expr.tree import Node
from mainspring.core.ids import check_id
from mainspring.core.schema import DType
from mainspring.core.settings import Url
from mainspring.vectors.adapters.pgvector_database import LOCK, Database, Run
from mainspring.vectors.adapters.pgvector_filters import compiled
from mainspring.vectors.columns import check_entries, check_search
from mainspring.vectors.conditions import Condition, Every, condition
from mainspring.vectors.model import Entries, Floats, Hit, IndexSpec, checked, no_index, other_spec

SCHEMA = "mainspring_vectors"
APPROXIMATE_ABOVE = 20_000
MOST_INDEXED = 2_000  # dimensions of a vector that pgvector's HNSW takes; longer ones are searched exactly
_AT_ONCE = 1_000  # entries of one statement
_WIDTH, _WIDEST = 100, 1_000  # of the search in the graph: at first, and pgvector's maximum
_TYPES = {
    DType.String: 'text COLLATE "C"',  # by code point
    DType.Boolean: "boolean",
    DType.Int32: "integer",
    DType.Int64: "bigint",
    DType.Float32: "real",
    DType.Float64: "double precision",
    DType.Timestamp: "bigint",  # microseconds
}
_OPERATORS = {
    "cosine": ("<=>", "vector_cosine_ops"),
    "dot": ("<#>", ""),  # no distance: graphs miss much where lengths differ
    "euclidean": ("<->", "vector_l2_ops"),
}
_NEXT = "SELECT nextval(pg_get_serial_sequence(%s, 'number'))"
# A filter inside the walk, or one that goes on for longer than its width, misses most of what passes where the filter
# goes with the vectors: so the nearest of all are filtered, and where too few of them pass, all that pass are compared.
_APPROXIMATELY = """
SELECT set_config('enable_indexscan', 'on', true), set_config('enable_seqscan', 'off', true),
    set_config('hnsw.ef_search', %s, true), set_config('hnsw.iterative_scan', 'off', true)
"""
_GRAPH = """
SELECT 1 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
WHERE i.indrelid = %s::regclass AND m.amname = 'hnsw'
"""
_EXACTLY = "SELECT set_config('enable_indexscan', 'off', true), set_config('enable_seqscan', 'on', true)"


class PgVectorStore:
    """Indexes in a schema of a database.

    Args:
        url: `postgresql://user:password@host:port/database`; the part after `?` is passed to libpq (`sslmode=...`).
        schema: It is created if missing, and so is the extension.
        approximate_above: Entries above which `compact` makes an HNSW index.
    """

    def __init__(self, url: Url, *, schema: str = SCHEMA, approximate_above: int = APPROXIMATE_ABOVE) -> None:
        self._database = Database(url, schema)
        self._above = approximate_above

    def create(self, name: str, spec: IndexSpec) -> PgVectorIndex:
        check_id(name, "index")
        written = msgspec.json.encode(spec).decode()

        def work(run: Run) -> str:
            run(LOCK)
            for (number,) in run(
                f"INSERT INTO {registry} (name, spec) VALUES (%s, %s) ON CONFLICT DO NOTHING RETURNING number",
                name,
                written,
            ):
                _make_table(run, spec, self._database.named(f"entries_{number}"))
            ((found,),) = run(f"SELECT spec FROM {registry} WHERE name = %s", name)
            return str(found)

        registry = self._database.registry
        self._database.prepare()
        if msgspec.json.decode(self._database.write(work), type=IndexSpec) != spec:
            raise other_spec(name)
        return PgVectorIndex(self._database, name, spec, self._above)

    def open(self, name: str) -> PgVectorIndex:
        check_id(name, "index")
        statement = f"SELECT spec FROM {self._database.registry} WHERE name = %s"
        found: list[Any] = self._database.read(lambda run: run(statement, name), [])
        if not found:
            raise no_index(name)
        return PgVectorIndex(self._database, name, msgspec.json.decode(found[0][0], type=IndexSpec), self._above)

    def names(self) -> list[str]:
        statement = f"SELECT name FROM {self._database.registry}"
        found: list[Any] = self._database.read(lambda run: run(statement), [])
        return sorted(each for (each,) in found)

    def drop(self, name: str) -> None:
        def work(run: Run) -> None:
            for (number,) in run(f"DELETE FROM {self._database.registry} WHERE name = %s RETURNING number", name):
                run(f"DROP TABLE {self._database.named(f'entries_{number}')}")

        self._database.prepare()
        self._database.write(work)

    def close(self) -> None:
        """Close the connections."""
        self._database.close()


class PgVectorIndex:
    def __init__(self, database: Database, name: str, spec: IndexSpec, above: int) -> None:
        self.spec = spec
        self._database, self._name, self._above = database, name, above
        self._columns = {field: f"f{place}" for place, field in enumerate(spec.fields)}
        self._operator, _ = _OPERATORS[spec.metric]

    def upsert(self, entries: Entries) -> None:
        ids, vectors, columns = check_entries(self.spec, entries)
        values = [column.to_list() for column in columns.values()]
        order = sorted(range(len(ids)), key=ids.__getitem__)  # two writers lock rows in the same order
        names = ["id", "vector", *self._columns.values()]
        kinds = ["text[]", "text[]", *map(_array, self.spec.fields.values())]
        arrays = ", ".join(f"%s::{kind}" for kind in kinds)
        changed = ", ".join(f"{each} = excluded.{each}" for each in names[1:])
        statement = (
            f" ({', '.join(names)}) SELECT {', '.join(['id', 'vector::vector', *names[2:]])} "
            f"FROM unnest({arrays}) AS u ({', '.join(names)}) ON CONFLICT (id) DO UPDATE SET {changed}"
        )

        def work(run: Run) -> None:
            table = self._table(run, writes=True)
            for start in range(0, len(order), _AT_ONCE):
                rows = order[start : start + _AT_ONCE]
                run(
                    f"INSERT INTO {table}{statement}",
                    [ids[row] for row in rows],
                    [msgspec.json.encode(vectors[row].tolist()).decode() for row in rows],
                    *([column[row] for row in rows] for column in values),
                )

        if ids:
            self._database.write(work)

    def delete(self, ids: Sequence[str]) -> int:
        def work(run: Run) -> int:
            table = self._table(run, writes=True)
            return len(run(f"DELETE FROM {table} WHERE id = ANY(%s::text[]) RETURNING 1", _known(ids)))

        return self._database.write(work) if ids else 0

    def search(self, vectors: Floats, k: int, *, where: Node | None = None, effort: float = 1.0) -> list[list[Hit]]:
        queries = checked(self.spec, vectors, "A query")
        check_search(self.spec, k, where)
        passes, given = compiled(self._wanted(where), self.spec.fields, self._columns)
        widths = self._widths(k, effort, filtered=where is not None)

        def work(run: Run) -> list[list[Hit]]:
            table = self._table(run)
            graph = run(_GRAPH, table)
            return [self._nearest(run, table, query, k, passes, given, widths if graph else []) for query in queries]

        return self._database.read(work) if len(queries) else []

    @staticmethod
    def _widths(k: int, effort: float, *, filtered: bool) -> list[int]:
        """Return how many of the nearest of all are asked for, one number after the other until enough of them pass."""
        first = min(_WIDEST, max(k, round(max(_WIDTH, 2 * k) * effort)))
        return [each for each in dict.fromkeys((first, *([_WIDEST] if filtered else []))) if each >= k]

    def _nearest(
        self, run: Run, table: str, query: Floats, k: int, passes: str, given: Sequence[Any], widths: Sequence[int]
    ) -> list[Hit]:
        distance = f"vector {self._operator} %s::vector"
        asked = msgspec.json.encode(query.tolist()).decode()
        for width in widths:
            run(_APPROXIMATELY, str(width))
            rows = run(
                f"WITH near AS MATERIALIZED (SELECT *, {distance} AS distance FROM {table} ORDER BY distance LIMIT %s) "
                f"SELECT id, distance FROM near WHERE {passes} ORDER BY distance, id LIMIT %s",
                asked,
                width,
                *given,
                k,
            )
            if len(rows) == k:
                return [self._hit(*row) for row in rows]
        run(_EXACTLY)
        rows = run(
            f"SELECT id, {distance} AS distance FROM {table} WHERE {passes} ORDER BY distance, id LIMIT %s",
            asked,
            *given,
            k,
        )
        return [self._hit(*row) for row in rows]

    def _hit(self, id: str, distance: float) -> Hit:
        return Hit(id, 1.0 - distance if self.spec.metric == "cosine" else 0.0 - distance)

    def get(self, ids: Sequence[str]) -> Entries:
        # A real is printed with fewer digits than its value has as a Python float.
        exact = {DType.Float32: "::double precision"}
        names = "".join(f", {each}{exact.get(self.spec.fields[field], '')}" for field, each in self._columns.items())

        def work(run: Run) -> list[tuple[Any, ...]]:
            return run(
                f"SELECT id, vector::text{names} FROM {self._table(run)} WHERE id = ANY(%s::text[])", _known(ids)
            )

        rows = {id: (vector, values) for id, vector, *values in self._database.read(work)}
        found = [each for each in ids if each in rows]
        vectors = np.array([msgspec.json.decode(rows[each][0]) for each in found], dtype=np.float32)
        return Entries(
            found,
            vectors.reshape(-1, self.spec.dimension),
            {field: [rows[each][1][place] for each in found] for place, field in enumerate(self.spec.fields)},
        )

    def ids(self, *, after: str = "", count: int = 1000, where: Node | None = None) -> list[str]:
        passes, given = compiled(self._wanted(where), self.spec.fields, self._columns)
        statement = "SELECT id FROM {} WHERE id > %s AND " + passes.replace("{", "{{") + " ORDER BY id LIMIT %s"
        return [
            each
            for (each,) in self._database.read(
                lambda run: run(statement.format(self._table(run)), after.replace("\0", "\x01"), *given, count)
            )
        ]

    def count(self, where: Node | None = None) -> int:
        passes, given = compiled(self._wanted(where), self.spec.fields, self._columns)
        ((found,),) = self._database.read(
            lambda run: run(f"SELECT count(*) FROM {self._table(run)} WHERE {passes}", *given)
        )
        return int(found)

    def compact(self) -> None:
        def work(run: Run) -> None:
            # Writers wait, searches go on.
            run(f"SELECT 1 FROM {registry} WHERE name = %s FOR UPDATE", self._name)
            old = self._table(run)
            ((number,),) = run(_NEXT, registry)
            new = self._database.named(f"entries_{number}")
            _make_table(run, self.spec, new)
            run(f"INSERT INTO {new} SELECT * FROM {old}")
            ((rows,),) = run(f"SELECT count(*) FROM {new}")
            kind = _OPERATORS[self.spec.metric][1]
            if kind and rows > self._above and self.spec.dimension <= MOST_INDEXED:
                run(f"CREATE INDEX ON {new} USING hnsw (vector {kind})")
            run(f"UPDATE {registry} SET number = %s WHERE name = %s", number, self._name)
            run(f"DROP TABLE {old}")

        registry = self._database.registry
        self._database.write(work, limit_s=0)

    def size_bytes(self) -> int:
        ((found,),) = self._database.read(
            lambda run: run("SELECT pg_total_relation_size(%s::regclass)", self._table(run))
        )
        return int(found)

    def close(self) -> None:
        """Do nothing: connections are the store's."""

    def _wanted(self, where: Node | None) -> Condition:
        return Every(()) if where is None else condition(where, self.spec.fields)

    def _table(self, run: Run, *, writes: bool = False) -> str:
        lock = " FOR SHARE" if writes else ""  # a compaction waits, and excludes writers
        found = run(f"SELECT number FROM {self._database.registry} WHERE name = %s{lock}", self._name)
        if not found:
            raise no_index(self._name)
        return self._database.named(f"entries_{found[0][0]}")


def _known(ids: Sequence[str]) -> list[str]:
    return [each for each in ids if "\0" not in each]


def _array(dtype: DType) -> str:
    return f"{_TYPES[dtype].split(' COLLATE')[0]}[]"


def _make_table(run: Run, spec: IndexSpec, table: str) -> None:
    """Create a table of entries. No statistics of values are gathered: they would outlive a deleted entry."""
    columns = [f"f{place}" for place in range(len(spec.fields))]
    fields = "".join(f", {name} {_TYPES[dtype]}" for name, dtype in zip(columns, spec.fields.values(), strict=True))
    run(f'CREATE TABLE {table} (id text COLLATE "C" PRIMARY KEY, vector vector({spec.dimension}) NOT NULL{fields})')
    unseen = ", ".join(f"ALTER COLUMN {each} SET STATISTICS 0" for each in ("id", "vector", *columns))
    run(f"ALTER TABLE {table} {unseen}")
