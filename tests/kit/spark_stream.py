"""A program for Spark's environment: a streaming query that fails and starts anew, and the rows ingested here."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

import mainspring as ms
from kit.warehouse_engines import session
from mainspring.data import duck
from mainspring.operations import spark_batches

FILES, ROWS = 5, 400
HOUR = 3_600_000_000
START = 1_700_000_000_000_000
TOML = 'name = "stream"\nmodules = ["stream_features"]\n'
FEATURES = """
import mainspring as ms

card = ms.Entity("card", keys={"card": ms.String, "shop": ms.Int64})
payments = ms.Source(
    "payments",
    schema={"payment": ms.Int64, "card": ms.String, "shop": ms.Int64, "amount": ms.Float64, "void": ms.Boolean},
    event_time="at", recorded_time="known_at", id="payment", retracted="void",
)


@ms.feature_view(entity=card, source=payments)
class Spending:
    n = ms.count(window="1h")
    total = ms.sum("amount", window="24h")
    spread = ms.std("amount", window="24h")
    most = ms.max("amount", window="30d")
    median = ms.quantile("amount", 0.5, window="24h")
    shops = ms.distinct("payment", window="24h")
    last = ms.last("amount")
"""
INSTANT = pa.timestamp("us", tz="UTC")


def made(folder: Path) -> ms.Project:
    folder.mkdir()
    (folder / "mainspring.toml").write_text(TOML)
    (folder / "stream_features.py").write_text(FEATURES)
    project = ms.open(folder)
    project.apply()
    return project


def files(folder: Path, count: int = FILES) -> list[pa.Table]:
    """Tables of late, corrected and voided payments, as files in the order of their times of change."""
    rng = random.Random(7)
    folder.mkdir()
    tables = []
    for number in range(count):
        at = [START + number * 6 * HOUR + rng.randrange(-24 * HOUR, 6 * HOUR) for _ in range(ROWS)]
        known = [max(each, START + number * 6 * HOUR) + rng.randrange(HOUR) for each in at]
        # Some are versions of earlier payments.
        payment = [rng.randrange(number * ROWS + 1) if rng.random() < 0.2 else number * ROWS + n for n in range(ROWS)]
        table = pa.table(
            {
                "at": pa.array(at, INSTANT),
                "known_at": pa.array(known, INSTANT),
                "payment": pa.array(payment, pa.int64()),
                "card": pa.array([rng.choice(["ana", "bob", "ü", None]) for _ in range(ROWS)], pa.string()),
                "shop": pa.array([rng.randrange(3) for _ in range(ROWS)], pa.int64()),
                "amount": pa.array([rng.choice([None, 1e9 + rng.random(), rng.gauss(0, 9)]) for _ in range(ROWS)]),
                "void": pa.array([rng.choice([None, False, True, None, None]) for _ in range(ROWS)], pa.bool_()),
            }
        )
        path = folder / f"{number}.parquet"
        pq.write_table(table, path)
        os.utime(path, (START / 1e6 + number, START / 1e6 + number))
        tables.append(table)
    return tables


def reference(folder: Path, tables: list[pa.Table]) -> dict[str, Any]:
    """What lands without Spark: each file's rows by time, then the views."""
    project = made(folder)
    order = ["at", "known_at", "amount", "card", "payment", "shop", "void"]
    for table in tables:
        project.ingest("payments", table.sort_by([(name, "ascending") for name in order]))
        project.materialize()
    return contents(project)


def contents(project: ms.Project) -> dict[str, Any]:
    """The rows of the source and of its tiles, in an order of their own."""
    found = {}
    for table in sorted(project.services.lake.tables()):
        if table == "payments" or table.startswith("tiles__"):
            columns = "* EXCLUDE (_batch)" if table == "payments" else "*"  # a batch is named after its query
            with duckdb.connect() as con:
                duck.register(con, "rows", project.services.lake.scan(table))
                found[table] = sorted(map(repr, con.sql(f"SELECT {columns} FROM rows").fetchall()))
    return found


def stream(spark: Any, project: ms.Project, source: Path, checkpoint: Path) -> list[int]:
    """Run the query to its end, restarting it; return the batches that were begun."""
    from pyspark.errors import StreamingQueryException

    begun: list[int] = []
    write = project.spark_batches("payments")

    def failing(batch: Any, number: int) -> None:
        begun.append(number)
        if number == 1 and begun.count(1) == 1:  # landed, but without tiles
            with mock.patch.object(spark_batches, "materialise_views", side_effect=RuntimeError("killed")):
                write(batch, number)
        write(batch, number)
        if number == 2 and begun.count(2) == 1:  # complete, but Spark does not know
            raise RuntimeError("killed")

    while True:
        schema = spark.read.parquet(str(source)).schema
        frames = spark.readStream.schema(schema).option("maxFilesPerTrigger", 1).parquet(str(source)).repartition(3)
        started = frames.writeStream.foreachBatch(failing).option("checkpointLocation", str(checkpoint))
        try:
            started.trigger(availableNow=True).start().awaitTermination()
        except StreamingQueryException:
            continue
        return begun


def main(folder: Path) -> None:
    tables = files(folder / "files")
    project = made(folder / "streamed")
    with session("stream") as spark:
        begun = stream(spark, project, folder / "files", folder / "checkpoint")
    assert begun == [0, 1, 1, 2, 2, *range(3, FILES)], begun
    wanted, found = reference(folder / "reference", tables), contents(project)
    assert found.keys() == wanted.keys()
    (tiles,) = (name for name in wanted if name.startswith("tiles__"))
    assert len(wanted["payments"]) == FILES * ROWS
    assert wanted[tiles]
    for name in wanted:
        assert found[name] == wanted[name], name
    print(f"spark: {len(found[tiles])} of {len(wanted[tiles])} tile rows equal, batches {begun}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
