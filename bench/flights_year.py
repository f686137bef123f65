"""The flights of 2013 as one table: features as they were known, the label, when it became known, and a model's score.

The demo's project reads it with its clock in 2014. The model learns from January to June, so that July to December are
traffic it has not seen. The table is made once for a folder and read from there later.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

FLIGHT, AT, LABEL, KNOWN, SCORE = "flight", "at", "label", "known", "score"
TRAINED_UNTIL = "2013-07-01T04:00:00Z"  # midnight in New York
_SETTLED = "2014-01-10T00:00:00Z"
_SETTINGS = {"max_iter": 80, "learning_rate": 0.1, "max_leaf_nodes": 31, "min_samples_leaf": 100, "random_state": 0}


def year(folder: Path) -> pa.Table:
    """Return the year ordered by time: `flight`, `at`, the features by their full names, `label`, `known`, `score`."""
    path = folder / "flights_year.parquet"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        pq.write_table(_scored(_read()), unfinished, compression="zstd")
        unfinished.rename(path)
    return pq.read_table(path)


def features(table: pa.Table) -> list[str]:
    return [name for name in table.column_names if "." in name]


def trained_rows(table: pa.Table) -> int:
    """Number of rows, from the first, that the model learnt from."""
    from mainspring.core.time import parse_instant

    at = table[AT].cast(pa.int64()).to_numpy()
    return int(np.searchsorted(at, parse_instant(TRAINED_UNTIL)))


def coded(rows: Mapping[str, npt.NDArray[Any]], codes: Mapping[str, Mapping[str, int]]) -> npt.NDArray[np.float64]:
    """Return the features as the model reads them, shape (rows, features): text as codes, -1 for unseen."""
    columns = [
        np.array([codes[name].get(value, -1) for value in values], float) if name in codes else values
        for name, values in rows.items()
        if "." in name
    ]
    return np.column_stack(columns)


def codes_of(table: pa.Table) -> dict[str, dict[str, int]]:
    """Return the code of each value of each text feature, of the rows that the model learns from."""
    train = table.slice(0, trained_rows(table))
    texts = [name for name in features(table) if pa.types.is_string(table.schema.field(name).type)]
    return {
        name: {value: code for code, value in enumerate(sorted(pc.unique(train[name].drop_null()).to_pylist()))}
        for name in texts
    }


def fitted(values: npt.NDArray[np.float64], labels: npt.NDArray[Any], rows: int) -> Any:
    """Return the model that learns from the first rows."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(**_SETTINGS).fit(values[:rows], labels[:rows])


def columns_of(table: pa.Table, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Return columns as arrays: text as objects, numbers as float64 with NaN for null."""
    found = {}
    for name in names:
        text = pa.types.is_string(table.schema.field(name).type)
        values = table[name] if text else table[name].cast(pa.float64())
        found[name] = np.array(values.to_pylist(), object) if text else values.to_numpy()
    return found


def _scored(table: pa.Table) -> pa.Table:
    values = coded(columns_of(table, features(table)), codes_of(table))
    model = fitted(values, table[LABEL].to_numpy(), trained_rows(table))
    return table.append_column(SCORE, pa.array(model.predict_proba(values)[:, 1]))


def _read() -> pa.Table:
    """Ingest the year into a project of its own, and return the labelled observations with their features."""
    from mainspring.core.time import ReplayClock, parse_instant
    from mainspring.operations.apply import apply
    from mainspring.operations.demo.example import project_folder
    from mainspring.operations.demo.walkthrough import MODEL, SOURCES
    from mainspring.operations.ingest import land
    from mainspring.operations.opened import open_folder

    with tempfile.TemporaryDirectory() as made:
        opened = open_folder(project_folder(Path(made)))
        project = opened.services
        assert isinstance(project.clock, ReplayClock)
        project.clock.set(parse_instant(_SETTLED))
        apply(project)
        for source in SOURCES:
            land(project, source, f"flights.data:{source}")
        rows = opened.training_set(MODEL, since="2013-01-01T00:00:00Z", until=_SETTLED, as_="arrow", progress=False)
        from flights.data import arrivals

        landed = arrivals().select([FLIGHT, "landed_at"]).rename_columns([FLIGHT, KNOWN])
    rows = rows.rename_columns({"_at": AT, "arrivals.late": LABEL})
    rows = rows.select([FLIGHT, AT, *features(rows), LABEL])
    return rows.join(landed, keys=FLIGHT, join_type="inner").sort_by([(AT, "ascending"), (FLIGHT, "ascending")])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    began = time.perf_counter()
    table = year(parser.parse_args().folder)
    print(f"{table.num_rows:,} rows, {len(features(table))} features, {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
