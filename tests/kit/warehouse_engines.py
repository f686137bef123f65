"""A program for the environment of Spark or of fakesnow: random histories in the engine; prints equal values."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kit.histories import History, histories
from kit.warehouse import Execute, check, in_utc, instants_of
from mainspring.core.expr.dialects import DIALECTS

SPARK = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "1",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.session.timeZone": "America/New_York",  # an instant is an instant in any zone
}


@contextmanager
def session(name: str) -> Iterator[Any]:
    """A session of Spark on this machine alone."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[1]").appName(name)
    for key, setting in SPARK.items():
        builder = builder.config(key, setting)
    spark = builder.getOrCreate()
    yield spark
    spark.stop()


@contextmanager
def spark() -> Iterator[Execute]:
    with session("statements") as of:

        def execute(text: str, observations: pa.Table, facts: pa.Table) -> list[dict[str, Any]]:
            of.createDataFrame(observations).createOrReplaceTempView("observations")
            of.createDataFrame(facts).createOrReplaceTempView("facts")
            found: pa.Table = of.sql(text).toArrow()
            return found.to_pylist()

        yield execute


@contextmanager
def snowflake() -> Iterator[Execute]:
    import fakesnow
    import snowflake.connector

    with fakesnow.patch():
        connection = snowflake.connector.connect(database="lake", schema="public")

        def execute(text: str, observations: pa.Table, facts: pa.Table) -> list[dict[str, Any]]:
            cursor = connection.cursor()
            for name, table in (("observations", observations), ("facts", facts)):
                columns = ", ".join(f'"{field.name}" {_snowflake_type(field.type)}' for field in table.schema)
                cursor.execute(f'CREATE OR REPLACE TABLE "{name}" ({columns})')
                rows = ", ".join(f"({', '.join(map(_literal, row.values()))})" for row in table.to_pylist())
                cursor.execute(f'INSERT INTO "{name}" VALUES {rows}')
            cursor.execute(text)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, map(in_utc, row), strict=True)) for row in cursor.fetchall()]

        yield execute


def _snowflake_type(kind: pa.DataType) -> str:
    if pa.types.is_timestamp(kind):
        return "TIMESTAMP_TZ"
    if pa.types.is_integer(kind):
        return "NUMBER(38, 0)"
    return {"string": "VARCHAR", "bool": "BOOLEAN"}.get(str(kind), "FLOAT")


def _literal(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "NULL" if value is None else str(value).upper()
    if isinstance(value, float):
        return f"CAST('{value!r}' AS FLOAT)"
    return str(value) if isinstance(value, int) else f"'{value}'"


def main(engine: str, examples: int) -> None:
    equal = 0
    with {"spark": spark, "snowflake": snowflake}[engine]() as execute:

        @settings(
            max_examples=examples, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(history=histories(), data=st.data())
        def compare(history: History, data: st.DataObject) -> None:
            nonlocal equal
            arrival = data.draw(st.sampled_from([None, "_seq"]))
            equal += check(history, data.draw(instants_of(history)), DIALECTS[engine], arrival, execute)

        compare()
    print(f"{engine}: {equal} of {equal} values equal to the oracle's")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
