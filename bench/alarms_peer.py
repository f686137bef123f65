"""One side of bench/alarms.py, run by the interpreter of a peer's environment: the peer's scores of windows of rows.

python alarms_peer.py evidently FOLDER...   reads training.parquet and windows.parquet, writes evidently.json

A score is of a column and statistic in each window; a larger one is more unusual. Beside a peer's measure of drift
stand the share of nulls and the number of rows, as pandas counts them. `default` says whether the peer as it comes
reports that any column drifted.
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
DEFAULT = "|default"  # whether any column drifted as the peer itself says
Scores = dict[str, list[float]]  # "column|statistic" -> one for each window; "|rows" is the number of rows


def evidently(training: pd.DataFrame, windows: pd.DataFrame) -> Scores:
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    columns = [name for name in training if name not in ("window", "score")]
    texts = [name for name in columns if not pd.api.types.is_numeric_dtype(training[name])]
    definition = DataDefinition(numerical_columns=[c for c in columns if c not in texts], categorical_columns=texts)
    reference = Dataset.from_pandas(
        training[columns].sample(min(REFERENCE_ROWS, len(training)), random_state=0).reset_index(drop=True),
        data_definition=definition,
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
        found.setdefault(DEFAULT, []).append(float(max(values.get(name, EMPTY) for name in columns) > 0.1))
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
    alerts = []
    for name, calculator in (("drift", drift), ("nulls", missing)):
        calculator.fit(training)
        table = calculator.calculate(windows).filter(period="analysis").to_df(multilevel=True)
        for column in columns:
            place = (column, "jensen_shannon") if name == "drift" else (column,)
            found[f"{column}|{name}"] = table[(*place, "value")].astype(float).tolist()
            if name == "drift":
                alerts.append(table[(*place, "alert")].to_numpy(bool))
    found[DEFAULT] = np.any(alerts, axis=0).astype(float).tolist()
    found["|rows"] = windows.groupby("window", sort=True).size().astype(float).tolist()
    return found


def alibi_detect(training: pd.DataFrame, windows: pd.DataFrame) -> Scores:
    """KS and chi-square of each column; as it comes, 5% after Bonferroni. It takes no nulls: they are a value here."""
    from alibi_detect.cd import TabularDrift

    columns, texts, filled = _filled(training)
    reference = filled(training.sample(min(REFERENCE_ROWS, len(training)), random_state=0))
    categories = {columns.index(name): None for name in texts}
    detector = TabularDrift(reference.to_numpy(object), p_val=0.05, categories_per_feature=categories)
    found: Scores = {}
    for _, rows in windows.groupby("window", sort=True):
        tested = detector.predict(filled(rows).to_numpy(object), drift_type="feature")["data"]
        for name, distance, p_value in zip(columns, tested["distance"], tested["p_val"], strict=True):
            found.setdefault(f"{name}|drift", []).append(_surprise(float(p_value), float(distance)))
        found.setdefault(DEFAULT, []).append(float(min(tested["p_val"]) < 0.05 / len(columns)))
    return found


def whylogs(training: pd.DataFrame, windows: pd.DataFrame) -> Scores:
    """KS of sketches and chi-square of frequent items; as it comes, 5% for each column."""
    import whylogs as why
    from whylogs.viz.drift.column_drift_algorithms import calculate_drift_scores

    columns, _, _ = _filled(training)
    reference = why.log(training[columns].sample(min(REFERENCE_ROWS, len(training)), random_state=0)).view()
    found: Scores = {}
    for _, rows in windows.groupby("window", sort=True):
        tested = calculate_drift_scores(why.log(rows[columns]).view(), reference, with_thresholds=True)
        drifted = False
        for name in columns:
            score = tested.get(name) or {}
            p_value = score.get("pvalue", 1.0)
            drifted |= p_value < 0.05
            found.setdefault(f"{name}|drift", []).append(_surprise(p_value, score.get("statistic", 0.0)))
            found.setdefault(f"{name}|nulls", []).append(float(rows[name].isna().mean()))
        found.setdefault(DEFAULT, []).append(float(drifted))
    return found


def _filled(training: pd.DataFrame) -> Any:
    """Return the columns, those of text, and a function that returns rows with a value of their own for null."""
    columns = [name for name in training if name not in ("window", "score")]
    texts = [name for name in columns if not pd.api.types.is_numeric_dtype(training[name])]
    null = {name: "(null)" if name in texts else -1e6 for name in columns}
    return columns, texts, lambda rows: rows[columns].fillna(null)


def _surprise(p_value: float, distance: float) -> float:
    """Return minus the log of a p-value; the distance orders those that are too small to tell."""
    return -float(np.log(max(p_value, 1e-30))) + (distance if p_value < 1e-30 else 0.0)


PEERS: dict[str, Any] = {
    "evidently": evidently, "nannyml": nannyml, "alibi-detect": alibi_detect, "whylogs": whylogs,
}  # fmt: skip


def main() -> None:
    warnings.simplefilter("ignore")
    name = sys.argv[1]
    for folder in map(Path, sys.argv[2:]):
        training, windows = (pd.read_parquet(folder / f"{each}.parquet") for each in ("training", "windows"))
        scores = PEERS[name](training, windows)
        numbers = {key: np.nan_to_num(values, nan=0.0).tolist() for key, values in scores.items()}
        (folder / f"{name}.json").write_text(json.dumps(numbers))


if __name__ == "__main__":
    main()
