"""The side of `shap` in bench/explain.py: fits the same estimator, explains the same rows, prints processor times.

Runs in the peer's environment: `python explain_side.py KIND FILE.npz OUT.npz`.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

TREES = 100


def estimator(kind: str) -> Any:
    """Return an unfitted estimator, of the same parameters on both sides."""
    if kind == "hgb":
        from sklearn.ensemble import HistGradientBoostingClassifier

        return HistGradientBoostingClassifier(max_iter=TREES, random_state=0)
    if kind == "forest":
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(TREES, max_depth=8, min_samples_leaf=20, n_jobs=1, random_state=0)
    if kind == "xgboost":
        from xgboost import XGBClassifier

        return XGBClassifier(n_estimators=TREES, max_depth=6, n_jobs=1, random_state=0)
    from lightgbm import LGBMClassifier

    return LGBMClassifier(n_estimators=TREES, n_jobs=1, random_state=0, verbose=-1)


def timed(call: Callable[[Any], Any], rows: Any, count: int) -> list[float]:
    """Return the processor time of explaining each of `count` rows, ms."""
    return timed_each(call, [rows[place % len(rows)][None] for place in range(count)])


def timed_each(call: Callable[[Any], Any], given: list[Any]) -> list[float]:
    """Return the processor time of each call, ms."""
    call(given[0])
    found = []
    for each in given:
        begun = time.process_time()
        call(each)
        found.append((time.process_time() - begun) * 1e3)
    return found


def whole(call: Callable[[Any], Any], rows: Any) -> float:
    begun = time.process_time()
    call(rows)
    return len(rows) / (time.process_time() - begun)


def main() -> None:
    import shap

    warnings.simplefilter("ignore")
    kind, source, target = sys.argv[1:]
    data = np.load(source)
    fitted = estimator(kind).fit(data["X"], data["y"])
    rows, background = data["rows"], data["background"]
    interventional = shap.TreeExplainer(fitted, background)
    recorded = shap.TreeExplainer(fitted)
    generic = shap.Explainer(lambda matrix: fitted.predict_proba(matrix)[:, 1], background)

    def between(given: Any) -> Any:
        return interventional.shap_values(given, check_additivity=False)

    def along(given: Any) -> Any:
        return recorded.shap_values(given, check_additivity=False)

    def request(call: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return what a server does: values of Python to a matrix, the answer, and its contributions."""

        def answer(given: list[list[float]]) -> Any:
            matrix = np.array(given, np.float32)
            return fitted.predict_proba(matrix), call(matrix)

        return answer

    listed = [[row.tolist()] for row in rows[:100]]
    times = {
        "request, interventional": timed_each(request(between), listed),
        "request, path-dependent": timed_each(request(along), listed),
        "interventional": timed(between, rows, 100),
        "path-dependent": timed(along, rows, 300),
        "generic": timed(lambda given: generic(given, silent=True), rows, 5),
    }
    rates = {"interventional": whole(between, rows[:200]), "path-dependent": whole(along, rows)}
    np.savez(target, interventional=between(rows[:100]), path_dependent=along(rows[:100]))
    print(json.dumps({"times": times, "rates": rates, "version": shap.__version__}))


if __name__ == "__main__":
    main()
