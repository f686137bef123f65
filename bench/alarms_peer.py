"""One side of bench/alarms.py, run by the interpreter of a peer's environment: the peer's scores of windows of rows.

python alarms_peer.py evidently FOLDER   reads training.parquet and windows.parquet, writes evidently.json

A score is of a column and statistic in each window; a larger one is more unusual. Beside a peer's measures of
drift by effect stand the share of nulls and the number of rows, which both count as pandas does.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

REFERENCE_ROWS = 20_000
EMPTY = 1e3  # drift of a column without values
Scores = dict[str, list[float]]  # "column|statistic" -> one for each window; "|rows" is the number of rows


def evidently(training: pd.DataFrame, windows: pd.DataFrame) -> Scores:
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    columns = [name for name in training if name not in ("window", "score")]
    texts = [name for name in columns if not pd.api.types.is_numeric_dtype(training[name])]
    definition = DataDefinition(numerical_columns=[c for c in columns if c not in texts], categorical_columns=texts)
    reference = Dataset.from_pandas(
        training[columns].sample(REFERENCE_ROWS, random_state=0).reset_index(drop=True), data_definition=definition
    )
    found: Scores = {}
    for _, rows in windows.groupby("window", sort=True):
        for name in columns:
            found.setdefault(f"{name}|nulls", []).append(float(rows[name].isna().mean()))
        found.setdefault("|rows", []).append(float(len(rows)))
        filled = [name for name in columns if rows[name].notna().any()]  # a column without values is an error
        preset = DataDriftPreset(columns=filled, num_method="wasserstein", cat_method="jensenshannon")
        current = Dataset.from_pandas(rows[columns].reset_index(drop=True), data_definition=definition)
        metrics = Report([preset], include_tests=False).run(current, reference).dict()["metrics"]
        values = {each["config"].get("column"): each["value"] for each in metrics}
        for name in columns:
            found.setdefault(f"{name}|drift", []).append(float(values.get(name, EMPTY)))
    return found


def nannyml(training: pd.DataFrame, windows: pd.DataFrame) -> Scores:
    import nannyml as nml

    columns = [name for name in training if name not in ("window", "score")]
    texts = [name for name in columns if not pd.api.types.is_numeric_dtype(training[name])]
    start = pd.Timestamp("2000-01-01")
    for frame in (training, windows):
        frame["at"] = start + pd.to_timedelta(frame["window"], unit="D")
    drift = nml.UnivariateDriftCalculator(
        column_names=columns,
        treat_as_categorical=texts,
        timestamp_column_name="at",
        chunk_period="D",
        continuous_methods=["jensen_shannon"],
        categorical_methods=["jensen_shannon"],
    )
    missing = nml.MissingValuesCalculator(column_names=columns, timestamp_column_name="at", chunk_period="D")
    found: Scores = {}
    for name, calculator in (("drift", drift), ("nulls", missing)):
        calculator.fit(training)
        table = calculator.calculate(windows).filter(period="analysis").to_df(multilevel=True)
        for column in columns:
            place = (column, "jensen_shannon", "value") if name == "drift" else (column, "value")
            found[f"{column}|{name}"] = table[place].astype(float).tolist()
    found["|rows"] = windows.groupby("window", sort=True).size().astype(float).tolist()
    return found


PEERS: dict[str, Any] = {"evidently": evidently, "nannyml": nannyml}


def main() -> None:
    warnings.simplefilter("ignore")
    name, folder = sys.argv[1], Path(sys.argv[2])
    training, windows = (pd.read_parquet(folder / f"{each}.parquet") for each in ("training", "windows"))
    scores = PEERS[name](training, windows)
    numbers = {key: np.nan_to_num(values, nan=0.0).tolist() for key, values in scores.items()}
    (folder / f"{name}.json").write_text(json.dumps(numbers))


if __name__ == "__main__":
    main()
