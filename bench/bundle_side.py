"""One side of bench/bundle.py in a process of its own: load a model and answer once, or MLflow's times.

Nothing of Mainspring is imported before it is asked for: MLflow's side runs in an environment without it.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS, ROWS, TREES = 20, 20_000, 200


def rows() -> np.ndarray[Any, Any]:
    return np.random.default_rng(7).normal(size=(ROWS, COLUMNS)).astype(np.float32)


def estimator() -> Any:
    """Return the model that every side saves: the same data and seed."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    given = rows()
    truth = given[:, 0] * given[:, 1] + given[:, 2] > 0
    model = HistGradientBoostingClassifier(max_iter=TREES, max_leaf_nodes=31, early_stopping=False, random_state=3)
    return model.fit(given, truth)


def ours(place: Path) -> None:
    from mainspring.registry.adapters.folder import FolderBlobs
    from mainspring.registry.bundles import Bundles
    from mainspring.serving.adapters.onnx import open_session

    folder, digest, key = place.read_text().split()
    bundle = Bundles(FolderBlobs(Path(folder)), bytes.fromhex(key)).load(digest)
    session = open_session(bundle.files["model.onnx"], "the model")
    session.run(None, {session.get_inputs()[0].name: rows()[:1]})


def pickled(place: Path) -> None:
    import joblib

    joblib.load(place).predict_proba(rows()[:1])


def mlflow(place: Path) -> None:
    _quiet()
    import mlflow.pyfunc

    mlflow.pyfunc.load_model(str(place)).predict(rows()[:1])


def measure(folder: Path, rounds: int) -> None:
    """Print MLflow's shortest milliseconds of a save and of a load as a pyfunc."""
    _quiet()
    import mlflow.pyfunc
    import mlflow.sklearn

    model = estimator()
    save, load = [], []
    for turn in range(rounds + 1):
        before = time.perf_counter()
        mlflow.sklearn.save_model(
            model, str(folder / str(turn)), pip_requirements=["scikit-learn"], serialization_format="cloudpickle"
        )
        between = time.perf_counter()
        mlflow.pyfunc.load_model(str(folder / "0"))
        if turn:
            save.append((between - before) * 1e3)
            load.append((time.perf_counter() - between) * 1e3)
    print(json.dumps({"save": round(min(save), 3), "load": round(min(load), 3)}))


def _quiet() -> None:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = os.environ["DO_NOT_TRACK"] = "true"
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "true"
    warnings.simplefilter("ignore")


if __name__ == "__main__":
    way, place, *more = sys.argv[1:]
    if way == "measure":
        measure(Path(place), int(more[0]))
    else:
        {"ours": ours, "joblib": pickled, "mlflow": mlflow}[way](Path(place))
