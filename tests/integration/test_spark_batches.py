"""Batches of Spark Structured Streaming land once, whatever their order; the tiles are those of rows ingested here."""

from __future__ import annotations

import os
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from kit.depth import deep
from kit.engines import ROOT, python_of
from kit.spark_stream import contents, files, made, reference
from mainspring.core.errors import Invalid, NotFound


@dataclass
class Batch:
    """A batch as Spark gives it, of a query or of none."""

    rows: pa.Table
    query: str | None = "q"

    @property
    def sparkSession(self) -> Any:
        return self

    @property
    def sparkContext(self) -> Any:
        return self

    def getLocalProperty(self, name: str) -> str | None:
        assert name == "sql.streaming.queryId"
        return self.query

    def toArrow(self) -> pa.Table:
        return self.rows


def test_a_repeated_batch_in_another_order_changes_nothing(tmp_path: Path) -> None:
    tables = files(tmp_path / "files", 1)
    project = made(tmp_path / "streamed")
    write = project.spark_batches("payments")
    for number, table in enumerate(tables):
        for seed in (1, 2):
            order = random.Random(seed).sample(range(len(table)), len(table))
            write(Batch(table.take(order)), number)
    assert contents(project) == reference(tmp_path / "reference", tables)
    write(Batch(tables[0].slice(0, 0)), 2)
    assert len(contents(project)["payments"]) == sum(map(len, tables))


def test_another_query_has_batches_of_its_own(tmp_path: Path) -> None:
    (table,) = files(tmp_path / "files", 1)
    project = made(tmp_path / "streamed")
    write = project.spark_batches("payments")
    write(Batch(table, "one"), 0)
    write(Batch(table, "two"), 0)
    assert len(contents(project)["payments"]) == 2 * len(table)


def test_what_is_no_batch_of_a_query_is_refused(tmp_path: Path) -> None:
    (table,) = files(tmp_path / "files", 1)
    project = made(tmp_path / "streamed")
    with pytest.raises(Invalid, match="A batch of 'payments' is not one of a streaming query"):
        project.spark_batches("payments")(Batch(table, None), 0)
    with pytest.raises(NotFound, match="payment"):
        project.spark_batches("paymets")


@deep
@pytest.mark.timeout(900)
def test_a_query_that_fails_and_starts_anew_has_our_tiles(tmp_path: Path) -> None:
    ran = subprocess.run(
        [str(python_of("spark")), "-W", "ignore", "-m", "kit.spark_stream", str(tmp_path)],
        cwd=ROOT / "tests", env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    print(ran.stdout)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "tile rows equal, batches [0, 1, 1, 2, 2, 3, 4]" in ran.stdout
