"""Table of a collection's chunks in the lake, one row a chunk with its vector.

A row never changes but for `_gone`: a chunk that is replaced, or whose document vanished, stays with the mark until the
table is written anew, so that its vector is known where the same text comes again. A document's rows are written in
one version, so it is in the table whole or not at all.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mainspring.core.expr.sql import quote_name, quote_text
from mainspring.core.ids import new_id
from mainspring.core.time import DAY, to_datetime
from mainspring.data import duck
from mainspring.data.arrow import arrow_schema, no_rows
from mainspring.data.model import SEQUENCE, SUPERSEDED_AT, VISIBLE_AT, chunks_table
from mainspring.data.ports import LakeTables
from mainspring.vectors.chunking.model import Chunk
from mainspring.vectors.declaring import DOCUMENT, END, NUMBER, PAGE, PATH, START, TEXT, Collection, path_text
from mainspring.vectors.model import Entries, Floats

if TYPE_CHECKING:
    import duckdb

MADE_AT = "_made_at"
_COLUMNS: Mapping[str, pa.DataType] = {
    SEQUENCE: pa.int64(),
    "_id": pa.string(),
    "_document": pa.string(),
    "_digest": pa.string(),  # of the document's text and fields
    "_recipe": pa.string(),  # of chunker and encoder
    "_encoder": pa.string(),
    "_number": pa.int32(),
    "_start": pa.int64(),
    "_end": pa.int64(),
    "_page": pa.int32(),
    "_path": pa.string(),
    "_text": pa.string(),
    "_text_digest": pa.string(),
    "_tokens": pa.int32(),
    "_vector": pa.list_(pa.float32()),
    "_gone": pa.bool_(),
    MADE_AT: pa.timestamp("us", "UTC"),  # null of chunks that were made before it was recorded
}
_LIVE = "_gone IS NOT TRUE"
_LEAST_GONE = 10_000  # rows, below which a table is not written anew
_AT_ONCE = 2_048  # rows
EXAMPLES = 20
NO_KEY, NO_TEXT, EMPTY = "no key", "no text", "empty"


@dataclass(frozen=True, slots=True)
class Document:
    """A document as the source has it.

    Attributes:
        id: Its key as text.
        digest: Digest of its text and fields.
        fields: Its values of `Collection.filters`.
    """

    id: str
    digest: str
    text: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """Work of a build.

    Attributes:
        documents: Number of documents that have text.
        waiting: Number of those whose chunks are to be made.
        gone: Row numbers of chunks of documents that vanished or have no text any more, by document.
        refused: Reason -> number of documents.
        examples: Document -> reason.
    """

    documents: int
    waiting: int
    gone: Mapping[str, Sequence[int]]
    refused: Mapping[str, int]
    examples: Mapping[str, str]


def chunk_id(document: str, digest: str, number: int, start: int, end: int, text: str) -> str:
    """Return an entry's id: equal ids have equal entries, whatever the build.

    Args:
        digest: As of `Document`.
    """
    parts = [document, digest, str(number), str(start), str(end), text]
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]


class ChunkTable:
    """A collection's table, and its source's documents, for one build.

    Args:
        con: Session of DuckDB of this build alone.
        source_version: Version of the source's table.
        now: Instant at which documents count, UTC epoch microseconds.
    """

    def __init__(
        self, con: duckdb.DuckDBPyConnection, lake: LakeTables, collection: Collection, source_version: int, now: int
    ) -> None:
        self._con, self._lake, self._collection, self._now = con, lake, collection, now
        self.name = chunks_table(collection.name)
        self._schema = _schema_of(collection)
        scan = lake.scan(collection.source.name, source_version)
        duck.register(con, "rows", scan)
        con.execute(f"CREATE OR REPLACE TEMP VIEW documents AS {_documents(collection, scan.schema, now)}")
        _register(con, lake, self.name, self._schema)
        self._next = int(duck.one_row(con, f"SELECT coalesce(max({SEQUENCE}) + 1, 0) FROM chunks")[0])

    def plan(self, recipe: str) -> Plan:
        """Compare the documents with the chunks, and keep what differs for `waiting`."""
        blanks = "' ' || chr(9) || chr(10) || chr(13)"
        self._con.execute(f"""
            CREATE OR REPLACE TEMP TABLE wanted AS
            SELECT _document, _digest, CASE WHEN _document IS NULL THEN '{NO_KEY}' WHEN _text IS NULL THEN '{NO_TEXT}'
                WHEN trim(_text, {blanks}) = '' THEN '{EMPTY}' END AS _reason
            FROM documents""")
        self._con.execute(f"""
            CREATE OR REPLACE TEMP TABLE had AS
            SELECT _document, any_value(_digest) AS _digest, any_value(_recipe) AS _recipe, list({SEQUENCE}) AS _rows
            FROM chunks WHERE {_LIVE} GROUP BY _document""")
        self._con.execute(f"""
            CREATE OR REPLACE TEMP TABLE todo AS
            SELECT wanted._document, had._rows FROM wanted LEFT JOIN had USING (_document)
            WHERE _reason IS NULL AND (had._digest IS DISTINCT FROM wanted._digest
                OR had._recipe IS DISTINCT FROM {quote_text(recipe)})""")
        fetched = self._con.execute
        gone = fetched("""
            SELECT _document, _rows FROM had
            ANTI JOIN (SELECT _document FROM wanted WHERE _reason IS NULL) USING (_document)""").fetchall()
        refused = fetched("SELECT _reason, count(*) FROM wanted WHERE _reason IS NOT NULL GROUP BY 1").fetchall()
        examples = fetched(f"""
            SELECT _document, _reason FROM wanted WHERE _reason IS NOT NULL AND _document IS NOT NULL
            ORDER BY 1 LIMIT {EXAMPLES}""").fetchall()
        documents, waiting = duck.one_row(
            self._con, "SELECT (SELECT count(*) FROM wanted WHERE _reason IS NULL), (SELECT count(*) FROM todo)"
        )
        return Plan(int(documents), int(waiting), dict(gone), dict(refused), dict(examples))

    def documents(self) -> dict[str, str]:
        """Return the documents that have text, with their digests."""
        query = "SELECT _document, _digest FROM documents WHERE _document IS NOT NULL AND _text IS NOT NULL"
        return dict(self._con.execute(query).fetchall())

    def waiting(self) -> Iterator[tuple[Document, list[int]]]:
        """Yield the documents whose chunks are to be made, with the numbers of the rows that they replace."""
        fields = list(self._collection.filters)
        listed = ", ".join(["_document", "_digest", "_text", "_rows", *map(quote_name, fields)])
        query = f"SELECT {listed} FROM documents JOIN todo USING (_document)"
        for batch in self._con.sql(query).to_arrow_reader(_AT_ONCE):
            for row in batch.to_pylist():
                values = {name: row[name] for name in fields}
                yield Document(row["_document"], row["_digest"], row["_text"], values), row["_rows"] or []

    def known(self, encoder: str, digests: Iterable[str]) -> dict[str, Floats]:
        """Return the stored vectors of texts, by the digests of those that have one of this encoder."""
        asked = pa.table({"_text_digest": pa.array(sorted(set(digests)), pa.string())})
        with duck.session() as con:
            _register(con, self._lake, self.name, self._schema)
            con.register("asked", asked)
            found = con.execute(f"""
                SELECT _text_digest, any_value(_vector) FROM chunks SEMI JOIN asked USING (_text_digest)
                WHERE _encoder = {quote_text(encoder)} GROUP BY 1""").fetchall()
        return {digest: np.asarray(vector, dtype=np.float32) for digest, vector in found}

    def write(
        self, made: Sequence[tuple[Document, Sequence[Chunk], Floats]], recipe: str, encoder: str, gone: Sequence[int]
    ) -> None:
        """Add the chunks of documents, and mark rows as gone, as one version of the table."""
        rows = self._rows(made, recipe, encoder)
        if not gone:
            if len(rows):
                self._lake.append(self.name, rows.to_batches(), self._schema, key=new_id())
            return
        marks: dict[str, Any] = {
            SEQUENCE: pa.array(gone, pa.int64()),
            "_gone": pa.array([True] * len(gone), pa.bool_()),
        }
        self._lake.rewrite(self.name, rows, pa.table(marks), SEQUENCE, key=new_id())

    def _rows(self, made: Sequence[tuple[Document, Sequence[Chunk], Floats]], recipe: str, encoder: str) -> pa.Table:
        columns: dict[str, list[Any]] = {name: [] for name in self._schema.names}
        for document, chunks, vectors in made:
            pages = [match.start() + 1 for match in re.finditer("\f", document.text)] or None
            for number, (chunk, vector) in enumerate(zip(chunks, vectors, strict=True)):
                values = {
                    SEQUENCE: self._next,
                    "_id": chunk_id(document.id, document.digest, number, chunk.start, chunk.end, chunk.text),
                    "_document": document.id,
                    "_digest": document.digest,
                    "_recipe": recipe,
                    "_encoder": encoder,
                    "_number": number,
                    "_start": chunk.start,
                    "_end": chunk.end,
                    "_page": None if pages is None else bisect_right(pages, chunk.start) + 1,
                    "_path": path_text(chunk.path),
                    "_text": chunk.text,
                    "_text_digest": text_digest(chunk.embedded),
                    "_tokens": chunk.tokens,
                    "_vector": vector,
                    "_gone": False,
                    MADE_AT: to_datetime(self._now),
                    **document.fields,
                }
                for name, value in values.items():
                    columns[name].append(value)
                self._next += 1
        return pa.table(columns, schema=self._schema)


class StoredChunks:
    """The chunks that count, at one version of a collection's table; by default the newest."""

    def __init__(self, lake: LakeTables, collection: Collection, version: int | None = None) -> None:
        self._lake, self._collection = lake, collection
        self.name = chunks_table(collection.name)
        self._schema = _schema_of(collection)
        self.version = lake.version(self.name) if version is None else version

    def ids(self, recipe: str) -> set[str]:
        """Return the ids of all that were made with a recipe."""
        found: set[str] = set()
        with duck.session() as con:
            self._register(con)
            query = f"SELECT _id FROM chunks WHERE {_LIVE} AND _recipe = {quote_text(recipe)}"
            for batch in con.sql(query).to_arrow_reader(duck.BATCH_ROWS):
                found.update(batch.column(0).to_pylist())
        return found

    def texts(self, encoder: str) -> list[str]:
        """Return the texts of the chunks whose vectors are an encoder's, by its digest, in the order of documents."""
        with duck.session() as con:
            self._register(con)
            query = f"SELECT _text FROM chunks WHERE {_LIVE} AND _encoder = {quote_text(encoder)}"
            return [text for (text,) in con.execute(f"{query} ORDER BY _document, _number").fetchall()]

    def documents(self, recipe: str) -> int:
        """Return the number of documents."""
        with duck.session() as con:
            self._register(con)
            query = f"SELECT count(DISTINCT _document) FROM chunks WHERE {_LIVE} AND _recipe = {quote_text(recipe)}"
            return int(duck.one_row(con, query)[0])

    def entries(self, recipe: str, ids: Iterable[str]) -> Iterator[Entries]:
        """Yield some of the chunks as entries of an index; all of a document's are in one piece."""
        fields = list(self._collection.filters)
        chosen = {DOCUMENT: "_document", NUMBER: "_number", START: "_start", END: "_end", PAGE: "_page"}
        chosen |= {PATH: "_path", TEXT: "_text"}
        listed = ", ".join([f"{column} AS {name}" for name, column in chosen.items()] + list(map(quote_name, fields)))
        with duck.session() as con:
            self._register(con)
            con.register("asked", pa.table({"_id": pa.array(sorted(ids), pa.string())}))
            query = f"""
                SELECT _id, _vector, {listed} FROM chunks SEMI JOIN asked USING (_id)
                WHERE {_LIVE} AND _recipe = {quote_text(recipe)} ORDER BY _document, _number"""
            waiting: pa.Table | None = None
            for batch in con.sql(query).to_arrow_reader(_AT_ONCE):
                rows = pa.Table.from_batches([batch])
                waiting = rows if waiting is None else pa.concat_tables([waiting, rows])
                last = waiting[DOCUMENT][-1].as_py()
                whole = len(waiting) - _last_run(waiting, last)
                if whole >= _AT_ONCE:
                    yield _entries(waiting.slice(0, whole))
                    waiting = waiting.slice(whole)
            if waiting is not None and len(waiting):
                yield _entries(waiting)

    def made_on(self, day: int, encoder: str, most: int) -> tuple[Floats, int]:
        """Return the vectors of chunks that were made on a day, of more than `most` a sample, and their number.

        Args:
            day: Its start, UTC epoch microseconds.
        """
        made = f"epoch_us({MADE_AT}) >= {int(day)} AND epoch_us({MADE_AT}) < {int(day + DAY)}"
        theirs = f"FROM chunks WHERE {made} AND _encoder = {quote_text(encoder)}"
        with duck.session() as con:
            self._register(con)
            count = int(duck.one_row(con, f"SELECT count(*) {theirs}")[0])
            # An id is a digest, so that those which come first are a sample.
            found = con.execute(f"SELECT _vector {theirs} ORDER BY _id LIMIT {int(most)}").fetchall()
        return np.array([vector for (vector,) in found], dtype=np.float32), count

    def wasted(self) -> bool:
        """Return whether most rows are gone, and the table is better written anew."""
        with duck.session() as con:
            self._register(con)
            gone, rows = duck.one_row(con, "SELECT count(*) FILTER (_gone), count(*) FROM chunks")
        return bool(gone > max(_LEAST_GONE, rows // 2))

    def count(self, documents: Iterable[str]) -> int:
        """Return the number of chunks of some documents."""
        with duck.session() as con:
            self._register(con)
            con.register("asked", pa.table({"_document": pa.array(sorted(documents), pa.string())}))
            query = f"SELECT count(*) FROM chunks SEMI JOIN asked USING (_document) WHERE {_LIVE}"
            return int(duck.one_row(con, query)[0])

    def rewrite(self, only: Mapping[str, str] | None = None) -> None:
        """Write the table without the rows that are gone.

        Args:
            only: Documents that stay, with their digests; by default all.
        """
        with duck.session() as con:
            self._register(con)
            query = f"SELECT * FROM chunks WHERE {_LIVE}"
            if only is not None:
                names, digests = pa.array(list(only), pa.string()), pa.array(list(only.values()), pa.string())
                con.register("kept", pa.table({"_document": names, "_digest": digests}))
                query = f"SELECT * FROM chunks SEMI JOIN kept USING (_document, _digest) WHERE {_LIVE}"
            live = con.sql(query).to_arrow_reader(_AT_ONCE)
            batches = (_cast(batch, self._schema) for batch in live)
            self._lake.replace(self.name, batches, self._schema, key=new_id())

    def _register(self, con: duckdb.DuckDBPyConnection) -> None:
        _register(con, self._lake, self.name, self._schema, self.version)


def _schema_of(collection: Collection) -> pa.Schema:
    return pa.schema({**_COLUMNS, **{field.name: field.type for field in arrow_schema(collection.filters)}})


def text_digest(text: str) -> str:
    """Return the digest by which a text's vector is known again."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _register(
    con: duckdb.DuckDBPyConnection, lake: LakeTables, table: str, schema: pa.Schema, version: int | None = None
) -> None:
    """Register a table as `chunks`, with columns that it got later."""
    if lake.version(table) is None:
        con.register("chunks", no_rows(schema))
        return
    scan = lake.scan(table, version)
    merged = pa.unify_schemas([scan.schema or pa.schema([]), schema], promote_options="permissive")
    duck.register(con, "chunks", replace(scan, schema=merged))


def _documents(collection: Collection, schema: pa.Schema | None, now: int) -> str:
    """Return a query of the documents that count: the newest row of each key, unless it is retracted."""
    source = collection.source
    names = (schema or pa.schema([])).names
    fields = [quote_name(name) if name in names else f"NULL AS {quote_name(name)}" for name in collection.filters]
    key, text = quote_name(collection.key), quote_name(collection.text)
    digested = [
        f"coalesce(CAST({name} AS VARCHAR), chr(1))" for name in ("_text", *map(quote_name, collection.filters))
    ]
    visible = f"epoch_us({VISIBLE_AT}) <= {int(now)}"
    if SUPERSEDED_AT in names:
        visible += f" AND coalesce(epoch_us({SUPERSEDED_AT}) > {int(now)}, true)"
    order = ", ".join(f"{quote_name(name)} DESC" for name in (*reversed(source.times), SEQUENCE))
    retracted = "true" if source.retracted is None else f"NOT coalesce({quote_name(source.retracted)}, false)"
    listed = ", ".join([f"CAST({key} AS VARCHAR) AS _document", f"{text} AS _text", *fields])
    newest = f"""
        SELECT * FROM rows WHERE {visible}
        QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {order}) = 1"""
    return f"""
        SELECT *, sha256(concat_ws(chr(31), {", ".join(digested)}))[1:32] AS _digest
        FROM (SELECT {listed} FROM ({newest}) WHERE {retracted})"""


def _last_run(rows: pa.Table, document: str) -> int:
    """Return the number of rows at the end that are of a document."""
    column = rows[DOCUMENT]
    count = 0
    while count < len(rows) and column[len(rows) - 1 - count].as_py() == document:
        count += 1
    return count


def _entries(rows: pa.Table) -> Entries:
    vectors = np.array(rows["_vector"].to_pylist(), dtype=np.float32)
    fields = {name: rows[name].to_pylist() for name in rows.column_names if name not in ("_id", "_vector")}
    ids: list[Any] = rows["_id"].to_pylist()
    return Entries(ids, vectors, fields)


def _cast(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    return pa.Table.from_batches([batch]).select(schema.names).cast(schema).combine_chunks().to_batches()[0]
