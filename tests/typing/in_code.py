"""What a user writes in code, as a type checker sees it. Checked by tests/integration/test_typing.py, never run."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, assert_type

import pandas as pd
import polars as pl
import pyarrow as pa

import mainspring as ms
from mainspring.data.model import Source
from mainspring.features.model import RequestFeatures
from mainspring.operations.features.file import FeatureFile
from mainspring.operations.features.table import FeatureTable
from mainspring.operations.opened import OpenedProject
from mainspring.registry.searching import RunRow

project = ms.open("flights", profile="local")
assert_type(project, OpenedProject)
assert_type(project.features["OriginTraffic"], ms.FeatureView | RequestFeatures)
assert_type(project.sources["departures"], Source)
assert_type(project.models["late-arrival"], ms.Model)

data = project.training_set("late-arrival", since="2013-01-01", until=datetime(2013, 7, 1, tzinfo=UTC))
assert_type(data, FeatureTable)
assert_type(data.to_arrow(), pa.Table)
assert_type(data.to_pandas(), pd.DataFrame)
assert_type(data.to_polars(), pl.DataFrame)
assert_type(data.shape, tuple[int, int])
assert_type(data.columns, list[str])

labels = pd.DataFrame({"origin": ["EWR"], "at": [datetime(2013, 7, 1, tzinfo=UTC)]})
views = [project.features["OriginTraffic"], "Weather.temp"]
assert_type(project.training_set(views, labels, at="at", as_="pandas"), pd.DataFrame)
assert_type(project.training_set("OriginTraffic", labels, at="at", as_="arrow", memory_limit="500MB"), pa.Table)
assert_type(project.training_set(project.models["late-arrival"], as_="polars", progress=False), pl.DataFrame)

written = project.write_training_set("late-arrival", to="late-arrival.parquet", since="2013-01-01", progress=False)
assert_type(written, FeatureFile)
assert_type(written.features, tuple[str, ...])
assert_type(written.head(), FeatureTable)
assert_type(pd.read_parquet(written), pd.DataFrame)
assert_type(project.write_training_set(views, Path("labels.parquet"), at="at", to=Path("out.parquet")), FeatureFile)
assert_type(project.write_training_set(views, labels, at="at", to=written), FeatureFile)

rows: list[dict[str, Any]] = [{"origin": "EWR"}, {"origin": "JFK"}]
assert_type(project.online("OriginTraffic", rows), FeatureTable)
assert_type(project.online("OriginTraffic", rows, as_="pandas", statuses=True), pd.DataFrame)

for step in project.explain("late-arrival"):
    assert_type(step.sql, str)
assert_type(project.verify("OriginTraffic", sample=50).equal, bool)
assert_type(project.runs("auc > 0.7", order="auc desc"), list[RunRow])
assert_type(project.profile("departures").rows, int)

project.training_set("late-arrival", as_="spark")  # type: ignore[call-overload]
project.training_set("late-arrival", since=1.5)  # type: ignore[call-overload]
project.write_training_set("late-arrival")  # type: ignore[call-arg]
ms.open(7)  # type: ignore[arg-type]
