"""Spark Structured Streaming into the lake: each batch of a query lands with its tiles, once.

Spark numbers the batches of a query and repeats one, with the same messages, until its commit is written. A repeated
batch has the same key in the lake, so it is there once; its rows are put into an order of their own values, because
Spark may bring them in another. So the lake, and the tiles that follow from it, are those of rows that were ingested
in any other way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mainspring.core.errors import Invalid
from mainspring.operations.ingest import land
from mainspring.operations.materialize import materialise_views

if TYPE_CHECKING:
    import pyarrow as pa

    from mainspring.data.model import Source
    from mainspring.project import Project

_QUERY = "sql.streaming.queryId"  # Spark sets it for the thread of a batch; it is kept in the query's checkpoint


def spark_batches(project: Project, source: str) -> Callable[[Any, int], None]:
    """Return the function for `DataStreamWriter.foreachBatch`: ingest a batch, then update the views of its source.

    Parsing, joining and deduplicating are Spark's, on all its machines. A batch is written by the driver, in whose
    memory it must fit: limit it by `maxOffsetsPerTrigger` or `maxFilesPerTrigger`.

    Raises:
        NotFound: There is no such source.
    """
    declared = project.definitions.source(source)
    views = [view for view in project.definitions.views.values() if view.source.name == source]

    def write(batch: Any, number: int) -> None:
        query = batch.sparkSession.sparkContext.getLocalProperty(_QUERY)
        if query is None:
            raise Invalid(
                f"A batch of {source!r} is not one of a streaming query.",
                fix="give the function to frame.writeStream.foreachBatch(...); for a table, run `mainspring ingest`.",
            )
        rows = _ordered(batch.toArrow(), declared)
        if rows.num_rows:
            land(project, source, rows, batch_id=f"spark.{query}.{number}")
        if views and project.lake.version(source) is not None:
            materialise_views(project, views)

    return write


def _ordered(rows: pa.Table, source: Source) -> pa.Table:
    """Return the rows by event time, recorded time, and then all their values."""
    times = [name for name in (source.event_time, source.recorded_time) if name in rows.column_names]
    names = [*times, *(name for name in sorted(rows.column_names) if name not in times)]
    return rows.sort_by([(name, "ascending") for name in names])
