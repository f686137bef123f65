"""One side of bench/bundle.py in a process of its own: load a model and answer once, or a peer's times.

Nothing of Mainspring is imported before it is asked for: MLflow's side runs in an environment without it.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
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
    from mainspring.serving.adapters.sessions import open_session

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


def measure_joblib(folder: Path, rounds: int) -> None:
    import joblib

    measure(joblib.dump, joblib.load, folder, rounds)


def measure_mlflow(folder: Path, rounds: int) -> None:
    _quiet()
    import mlflow.pyfunc
    import mlflow.sklearn

    def save(model: Any, place: str) -> None:
        needs = ["scikit-learn"]  # else it would look for them in a process of its own
        mlflow.sklearn.save_model(model, place, pip_requirements=needs, serialization_format="cloudpickle")

    measure(save, mlflow.pyfunc.load_model, folder, rounds)


def measure(save: Callable[[Any, str], object], load: Callable[[str], object], folder: Path, rounds: int) -> None:
    """Print the shortest milliseconds of a save and of a load; the first does not count."""
    model = estimator()
    saves, loads = [], []
    for turn in range(rounds + 1):
        before = time.perf_counter()
        save(model, str(folder / str(turn)))
        between = time.perf_counter()
        load(str(folder / "0"))
        if turn:
            saves.append((between - before) * 1e3)
            loads.append((time.perf_counter() - between) * 1e3)
    print(json.dumps({"save": round(min(saves), 3), "load": round(min(loads), 3)}))


def _quiet() -> None:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = os.environ["DO_NOT_TRACK"] = "true"
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "true"
    warnings.simplefilter("ignore")


if __name__ == "__main__":
    way, place, *more = sys.argv[1:]
    if more:
        {"joblib": measure_joblib, "mlflow": measure_mlflow}[way](Path(place), int(more[0]))
    else:
        {"ours": ours, "joblib": pickled, "mlflow": mlflow}[way](Path(place))
