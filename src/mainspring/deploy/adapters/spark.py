"""The Spark session of a step. The step's process is the driver, so the application ends with it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import SparkSession

from mainspring.core.environment import set_variable

_HERE = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}


@contextmanager
def spark_session(master: str, name: str) -> Iterator[SparkSession]:
    """Start an application in client mode, and stop it at the end.

    Args:
        master: As Spark writes it: `local[2]`, `spark://host:7077`, `yarn`. All else is in Spark's own configuration
            (`SPARK_CONF_DIR`). Nothing of a local master can be reached from other machines.
        name: Shown by Spark.
    """
    builder = SparkSession.builder.master(master).appName(name)
    if master.startswith("local"):
        for key, setting in _HERE.items():
            builder = builder.config(key, setting)
        set_variable("PYSPARK_PYTHON", sys.executable, default=True)  # not the first python3 of the path
    session = builder.getOrCreate()
    try:
        yield session
    finally:
        session.stop()
