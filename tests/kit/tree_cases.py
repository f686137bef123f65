"""Trees that several processes fit as one: run by test_boosting.py in each rank, not a test itself.

`python tree_cases.py RANKS FOLDER CASE...` fits each case on FOLDER/rows.parquet and stores its model in FOLDER.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kit import ranks
from mainspring.training.loading.loader import Loader
from mainspring.training.loop.world import launched

NAMES = [f"x{number}" for number in range(6)]


def write(folder: Path, rows: int = 5000) -> None:
    """Write rows whose label depends on products, sorted by their first column, so that parts differ."""
    drawn = np.random.default_rng(0)
    inputs = drawn.normal(size=(rows, 6)).astype(np.float32)
    inputs = inputs[np.argsort(inputs[:, 0])]
    score = inputs[:, 0] + inputs[:, 1] * inputs[:, 2] + drawn.normal(size=rows) * 0.3
    inputs[drawn.random(inputs.shape) < 0.03] = np.nan
    columns = {name: pa.array(inputs[:, place]) for place, name in enumerate(NAMES)}
    kinds = np.asarray(["low", "middle", "top"])[np.digitize(score, [-0.5, 0.5])]
    pq.write_table(pa.table({**columns, "late": score > 0, "kind": kinds, "score": score.astype(np.float32)}),
                   folder / "rows.parquet", row_group_size=300)  # fmt: skip


def loader(folder: Path, target: str) -> Loader:
    return Loader(folder / "rows.parquet", inputs=NAMES, targets=target, categories=["kind"])


def fit(case: str, folder: Path) -> Any:
    """Return the fitted estimator of a case, `LIBRARY-TARGET` with `-cached` for bins on the disk."""
    library, target, *cached = case.split("-")
    rows = loader(folder, target)
    if library == "xgboost":
        import xgboost

        from mainspring.training.boosting.xgboost import fit_xgboost

        kind = xgboost.XGBRegressor if target == "score" else xgboost.XGBClassifier
        estimator = kind(n_estimators=20, max_depth=4, n_jobs=1, tree_method="hist")
        return fit_xgboost(estimator, rows, validation=rows, cache=folder if cached else None)
    import lightgbm

    from mainspring.training.boosting.lightgbm import fit_lightgbm

    of = lightgbm.LGBMRegressor if target == "score" else lightgbm.LGBMClassifier
    return fit_lightgbm(
        of(n_estimators=20, num_leaves=15, min_child_samples=0, n_jobs=1, verbose=-1), rows, validation=rows
    )


def predictions(estimator: Any, folder: Path) -> Any:
    """Return the predictions of the first rows."""
    inputs, _ = next(loader(folder, "late").stored(5000))
    frame = pd.DataFrame(inputs, columns=NAMES)
    return estimator.predict_proba(frame) if hasattr(estimator, "predict_proba") else estimator.predict(frame)


def main(folder: Path, names: list[str]) -> None:
    for case in names:
        np.save(folder / f"{case}-{launched().rank}.npy", predictions(fit(case, folder), folder))


if __name__ == "__main__":
    ranks.fork(int(sys.argv[1]), Path(sys.argv[2]), lambda: main(Path(sys.argv[2]), sys.argv[3:]))
