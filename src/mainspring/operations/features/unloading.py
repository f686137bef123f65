"""Training sets as Parquet files that the profile's warehouse makes: written there to a bucket, or passing here.

`manifest.json` is written last, and names every file: without it the files are no whole. `unfinished.json` is written
first, so that what a killed or failed unload left is known from other files, and is removed by the next one.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mainspring.core.errors import Conflict, Corrupt, Invalid
from mainspring.core.expr.dialects import dialect
from mainspring.core.ids import new_id
from mainspring.core.schema import DType
from mainspring.core.settings import Url
from mainspring.core.time import format_instant
from mainspring.features.needed import needed_for, stored_part
from mainspring.features.offline.observed import AT
from mainspring.features.offline.pieces import workplace
from mainspring.features.warehouse import Tables, statement, version_now
from mainspring.features.warehouse.sources import check_column, check_sources, check_tables
from mainspring.operations.backup.stores import ObjectStored, open_objects
from mainspring.operations.features.choosing import Choice
from mainspring.operations.features.reading import instant, none_labelled, pinned
from mainspring.training.model import Model
from mainspring.training.sets.assemble import write_labelled
from mainspring.training.sets.labels import LABEL

if TYPE_CHECKING:
    from mainspring.data.warehouse.ports import Warehouse
    from mainspring.project import Project

MANIFEST, UNFINISHED = "manifest.json", "unfinished.json"
_PART_BYTES = 64 << 20  # of a file that passes here
Told = Callable[[str, int, int | None], None]  # gets the step, rows done, and all rows if they are known


class UnloadedPart(msgspec.Struct, frozen=True):
    """A Parquet file. `sha256` is `None` where the warehouse wrote it itself."""

    name: str
    rows: int
    bytes: int
    sha256: str | None


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """An unload.

    Attributes:
        to: The folder, or the prefix in a bucket.
        of: The model, or the views and features.
        features: Their columns in the files, in order.
        rows: Of all files.
        statement: The statement that made them, and its SHA-256.
        job: The warehouse's own id of it; empty where it gives none.
        scanned_bytes: What it read, or was to read by an estimate; `None` where the warehouse does not tell.
        as_of: Instant of the versions of the sources' tables, ISO 8601; `None` if they were read as they were.
        made_at: ISO 8601.
    """

    format: int = 1
    to: str
    of: str
    features: list[str]
    rows: int
    files: list[UnloadedPart]
    warehouse: str
    statement: str
    statement_sha256: str
    job: str
    scanned_bytes: int | None
    as_of: str | None
    made_at: str


def unload(
    project: Project,
    choice: Choice,
    to: str,
    *,
    observations: str | None = None,
    at: str | None = None,
    since: Any = None,
    until: Any = None,
    stream: bool = False,
    told: Told | None = None,
) -> Manifest:
    """Write the features of `choice` beside their observations to new Parquet files.

    Args:
        to: A folder, or a prefix in a bucket as in profiles: `s3://bucket/prefix`. It must be empty, or have what an
            unload left that did not end.
        observations: A table of the warehouse with the keys, the fields of requests and the instants; by default the
            labelled observations of the model, which are loaded.
        at: The column of its instants.
        since, until: Bounds of the model's observations, as `reading.instant` takes them.
        stream: Whether the rows pass here also on their way to a bucket, because the warehouse cannot write to it.

    Raises:
        Invalid: The profile has no warehouse; the dialect has no equal of a feature; there are no observations.
        InvalidData: A table lacks a column, or has it in another type.
        Conflict: There are other files already.
        Corrupt: The files have other rows than the observations.
    """
    warehouse, tell = project.warehouse, told or (lambda _step, _done, _total: None)
    setting = project.settings.warehouse
    if setting is None:  # it has raised
        raise Invalid("There is no warehouse.")
    tables = Tables(sources=setting.tables, arrivals=setting.arrivals)
    check_sources(choice.views)
    _written(choice, warehouse, tables)  # refused before anything is loaded or written
    check_tables(warehouse, stored_part(choice.views, needed_for(choice.groups, choice.columns)), tables)
    objects = open_objects(to, "An unload")
    _clean(objects, None if "://" in to else Path(to))
    if setting.time_travel:
        tables = replace(tables, as_of=version_now(warehouse))
    direct = "://" in to and setting.url.scheme != "duckdb" and not stream
    with _observations(project, choice, warehouse, observations, at, since, until, tell) as (table, instants, count):
        text = _written(choice, warehouse, replace(tables, observations=table, at=instants))
        estimate = warehouse.estimate(text)
        scanned = None if estimate is None else estimate.scanned_bytes
        tell("unload" if scanned is None else f"unload, about {scanned:,} bytes to scan", 0, count)
        objects.put(UNFINISHED, msgspec.json.encode({"statement": text}))
        if direct:
            parts = by_warehouse(warehouse, text, to)
        else:
            parts = _through_here(warehouse, text, objects, lambda rows: tell("unload", rows, count))
        ran = warehouse.last()
    rows = sum(each.rows for each in parts)
    if count is not None and rows != count:
        raise Corrupt(
            f"The warehouse returned {rows:,} rows for {count:,} observations.",
            fix="check that the column of `arrivals` is distinct for each row of its table.",
        )
    dotted = dialect(warehouse.dialect).dotted
    made = Manifest(
        to=objects.shown,
        of=choice.title,
        features=[name if dotted else name.replace(".", "__") for name in choice.columns],
        rows=rows,
        files=parts,
        warehouse=setting.url.shown,
        statement=text,
        statement_sha256=hashlib.sha256(text.encode()).hexdigest(),
        job="" if ran is None else ran.id,
        scanned_bytes=scanned if ran is None or ran.scanned_bytes is None else ran.scanned_bytes,
        as_of=None if tables.as_of is None else format_instant(tables.as_of),
        made_at=format_instant(project.wall.now()),
    )
    objects.put(MANIFEST, msgspec.json.format(msgspec.json.encode(made), indent=1))
    objects.remove(UNFINISHED)
    return made


def _written(choice: Choice, warehouse: Warehouse, tables: Tables) -> str:
    fields = {name: dtype for name, dtype in choice.fields.items() if dtype is not None}
    named = dialect(warehouse.dialect)
    return statement(choice.groups, named, tables, fields={**fields, **choice.keys}, columns=choice.columns)


def _clean(objects: ObjectStored, folder: Path | None) -> None:
    """Remove what an unload left that did not end.

    Args:
        folder: Of the objects, if they are files.

    Raises:
        Conflict: There is anything else.
    """
    names = list(objects.names(""))
    if MANIFEST in names and UNFINISHED in names:  # it was killed at its very end
        objects.remove(UNFINISHED)
    if MANIFEST in names or (names and UNFINISHED not in names):
        what = "an unload" if MANIFEST in names else f"{len(names):,} files, such as {min(names)}"
        raise Conflict(f"{objects.shown} has {what} already.", fix="name an empty folder or prefix.")
    strange = [name for name in names if name != UNFINISHED and not name.endswith(".parquet")]
    if strange:
        raise Conflict(
            f"{objects.shown} has an unload that did not end, and another file, {min(strange)}.",
            fix="move that file away, or name an empty folder or prefix.",
        )
    for name in sorted(names, key=lambda name: name == UNFINISHED):  # the mark is removed last
        objects.remove(name)
    for each in [] if folder is None or not names else folder.rglob(".*.partial"):
        each.unlink(missing_ok=True)


@contextmanager
def _observations(
    project: Project,
    choice: Choice,
    warehouse: Warehouse,
    table: str | None,
    at: str | None,
    since: Any,
    until: Any,
    tell: Told,
) -> Iterator[tuple[str, str, int | None]]:
    """Context with a table of observations in the warehouse: its name, the column of its instants, and its rows if they
    are known.
    """
    if table is not None:
        if since is not None or until is not None:
            raise Invalid("--since and --until are of the model's own observations.", fix="filter the table in a view.")
        if at is None:
            raise Invalid(f"The column of the instants of {table} is not named.", fix="name it: --at COLUMN.")
        columns, fields = warehouse.columns(table), {name: dtype for name, dtype in choice.fields.items() if dtype}
        for name, dtype in {**fields, **choice.keys, at: DType.Timestamp}.items():
            check_column(table, name, dtype, columns)
        yield table, at, None
        return
    if choice.model is None:
        raise Invalid(
            f"{choice.title} needs rows to read.",
            fix="name a table of the warehouse: --observations TABLE --at COLUMN.",
        )
    if at is not None:
        raise Invalid("--at is a column of --observations.", fix="leave it out; the model's own observations have one.")
    tell("observations", 0, None)
    with (
        _labelled(project, choice.model, instant(since), instant(until)) as (batches, schema, count),
        warehouse.loaded(batches, schema) as loaded,
    ):
        yield loaded, AT, count


@contextmanager
def _labelled(
    project: Project, model: Model, since: int | None, until: int | None
) -> Iterator[tuple[Iterator[pa.RecordBatch], pa.Schema, int]]:
    """Context with the model's labelled observations, their schema and their number."""
    end, temp = project.clock.now() if until is None else until, project.settings.state / "tmp"
    with workplace(temp) as folder:
        observed, total, left_out = write_labelled(
            folder / "observed.parquet", model.observations, model.labels, pinned(project), since=since, until=end,
            memory_limit="2GB", temp=temp,
        )  # fmt: skip
        if not total:
            raise none_labelled(model, since, end, left_out)
        if not callable(observed):  # it is a function here
            raise TypeError(observed)
        pieces = (_flat(piece, model) for piece in observed())
        first = next(pieces)

        def batches() -> Iterator[pa.RecordBatch]:
            yield from first.to_batches()
            for piece in pieces:
                yield from piece.to_batches()

        yield batches(), first.schema, total


def _flat(piece: pa.Table, model: Model) -> pa.Table:
    """Return observations with each label by its full name."""
    flat, truth = piece.select([*model.observations.source.columns, AT]), piece.column(LABEL)
    for label in model.labels:
        flat = flat.append_column(label.name, pc.struct_field(truth, label.column) if model.label_columns else truth)
    return flat


def by_warehouse(warehouse: Warehouse, text: str, to: str) -> list[UnloadedPart]:
    """Let the warehouse write a statement's rows below an address; return the files by their names there."""
    base = to.partition("?")[0].rstrip("/") + "/"
    return [
        UnloadedPart(each.at.removeprefix(base), each.rows, each.size_bytes, None)
        for each in warehouse.unload(text, Url(to))
    ]


def _through_here(
    warehouse: Warehouse, text: str, objects: ObjectStored, told: Callable[[int], None]
) -> list[UnloadedPart]:
    """Write the rows of a statement, in files of about 64 MiB before compression."""
    parts: list[UnloadedPart] = []
    below, done = new_id(), 0

    def write(batches: list[pa.RecordBatch], schema: pa.Schema) -> None:
        content = io.BytesIO()
        pq.write_table(pa.Table.from_batches(batches, schema), content, compression="zstd")
        name, rows = f"{below}/part-{len(parts):05}.parquet", sum(batch.num_rows for batch in batches)
        objects.put(name, content.getvalue())
        parts.append(UnloadedPart(name, rows, content.tell(), hashlib.sha256(content.getvalue()).hexdigest()))

    with warehouse.read(text) as found:
        kept: list[pa.RecordBatch] = []
        for batch in found:
            if batch.num_rows:
                kept.append(batch)
                done += batch.num_rows
            if sum(each.nbytes for each in kept) >= _PART_BYTES:
                write(kept, found.schema)
                kept = []
                told(done)
        if kept or not parts:
            write(kept, found.schema)
    return parts
