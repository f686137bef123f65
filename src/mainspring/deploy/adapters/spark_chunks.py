"""Chunks of batch runs in Spark, by `mapInArrow`. The project's folder must have the same path on every executor.

This process is the driver. The rows are read and written by the executors' Python workers; Spark gives out numbers.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from importlib import import_module
from typing import Any

import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException, PythonException
from pyspark.sql import SparkSession

from mainspring.core.errors import Unavailable
from mainspring.deploy.adapters.spark import spark_session
from mainspring.serving.batch.plan import shares

_TICK_S = 1.0


def _answers(entry: str, request: str, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Answer for each row, a JSON list of chunks. Spark sends this function by its name."""
    answers = import_module(entry).answers
    for batch in batches:
        texts: list[Any] = batch["chunks"].to_pylist()
        for text in texts:
            for answer in answers(request, json.loads(text)):
                yield pa.RecordBatch.from_pydict({"answer": [answer]})


class SparkChunks:
    """`ChunkEngine` in Spark, in an application of its own.

    Args:
        master: As Spark writes it.
        name: Shown by Spark.
    """

    def __init__(self, master: str, name: str) -> None:
        self._master = master
        self._name = name

    def run(self, entry: str, request: str, chunks: Sequence[int], per_worker: int) -> Generator[list[str], None, None]:
        try:
            # The session stops first, which ends what the thread waits for.
            with ThreadPoolExecutor(1) as pool, spark_session(self._master, self._name) as session:
                parts = shares(chunks, session.sparkContext.defaultParallelism * per_worker)
                collected = pool.submit(_collected, session, entry, request, parts)
                while not wait([collected], timeout=_TICK_S).done:
                    yield []
                yield collected.result()
        except (PySparkException, Py4JError) as error:
            told = str(error).strip().splitlines() or [type(error).__name__]
            said = told[-1 if isinstance(error, PythonException) else 0]
            raise Unavailable(
                f"The chunks in Spark at {self._master} ended by {type(error).__name__}: {said}",
                fix="run the same command again: it goes on where it stopped.",
            ) from error


def _collected(session: SparkSession, entry: str, request: str, parts: Sequence[Sequence[int]]) -> list[str]:
    """Return all answers; to tell those of each partition, Spark would have to do one after another."""
    texts = [(json.dumps(list(part)),) for part in parts]
    asked = session.createDataFrame(session.sparkContext.parallelize(texts, len(texts)), "chunks string")
    found = asked.mapInArrow(partial(_answers, entry, request), "answer string").collect()
    return [row.answer for row in found]
