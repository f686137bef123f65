"""Values of feature views at the export's instant, a row for each entity, by the offline read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pyarrow as pa

from mainspring.core.errors import Corrupt, MainspringError, StorageFull, Unavailable
from mainspring.core.expr.sql import quote_name
from mainspring.core.time import format_instant
from mainspring.data import duck
from mainspring.data.arrow import INSTANT, no_rows
from mainspring.data.model import VISIBLE_AT, TableScan
from mainspring.features.layout import feature_dtype
from mainspring.features.model import FeatureView
from mainspring.features.offline import point_in_time_pieces
from mainspring.features.offline.pieces import workplace, write_whole
from mainspring.operations.features.deriving import derive
from mainspring.operations.leaving.parquet import ParquetFiles, described
from mainspring.operations.leaving.personal import Personal

_AT = "_at"


def write_features(files: ParquetFiles, personal: Personal) -> None:
    """Write a file for each declared view. One that cannot be computed is left out: its source's rows are there.

    Raises:
        Corrupt: A file of the lake is damaged.
        StorageFull: There is no room.
    """
    for view in files.project.definitions.views.values():
        path = f"features/{view.name}.parquet"
        if files.folder.has(path):
            continue
        try:
            derive(files.project, [view])
            if files.project.lake.version(view.source.name) is None:
                files.folder.leave_out(path, f"the source {view.source.name} has no rows yet")
            else:
                _write(files, personal, view, path)
        except (Corrupt, StorageFull, Unavailable):
            raise
        except MainspringError as error:
            files.folder.leave_out(path, error.what)


def _write(files: ParquetFiles, personal: Personal, view: FeatureView, path: str) -> None:
    at, temp = files.folder.begun.at, files.project.settings.state / "tmp"
    about = f"Features of {view.name} at {format_instant(at)}, a row for each entity"
    found = personal.of_view(view)
    masked = frozenset[str]() if files.reveal else found
    types = {f"{view.name}.{name}": feature_dtype(view, name).value for name in view.names}
    with workplace(temp) as folder:
        entities = folder / "entities.parquet"
        write_whole(entities, _entities(view, files.scan(view.source.name), at))
        read = point_in_time_pieces(entities, [view], files.scan, schema=dict(view.entity.keys), at=_AT, temp=temp)
        with closing(read) as pieces:
            first = next(pieces)
            schema = described(first.schema, about, personal=found, masked=masked, types=types)

            def batches() -> Iterator[pa.RecordBatch]:
                yield from first.to_batches()
                for piece in pieces:
                    yield from piece.to_batches()

            files.write(path, about, batches(), schema, masked)


def _entities(view: FeatureView, scan: TableScan, at: int) -> Iterator[pa.Table]:
    """Yield the entities of which a row was known at an instant, with the instant; at least one table."""
    keys = ", ".join(map(quote_name, view.entity.keys))
    known = f"{VISIBLE_AT} <= TIMESTAMPTZ '{format_instant(at)}'"
    there = " AND ".join(f"{quote_name(key)} IS NOT NULL" for key in view.entity.keys)
    with duck.session() as con, duck.duck_errors("the lake", scan):
        duck.register(con, "wanted", scan)
        found = con.sql(f"SELECT DISTINCT {keys} FROM wanted WHERE {known} AND {there} ORDER BY {keys}")
        reader = found.to_arrow_reader(duck.BATCH_ROWS)
        schema = reader.schema.append(pa.field(_AT, INSTANT))
        some = False
        for batch in reader:
            some = True
            instants = pa.array([at] * len(batch), pa.int64()).cast(INSTANT)
            columns: list[Any] = [*batch.columns, instants]
            yield pa.Table.from_arrays(columns, schema=schema)
        if not some:
            yield no_rows(schema)
