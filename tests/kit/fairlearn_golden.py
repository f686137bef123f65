"""Writes `fairlearn.json`: rates of groups by Fairlearn, the oracle of `test_fairness.py`.

Fairlearn is not among the project's packages, so run it in an environment of its own:
`pip install fairlearn==0.15.0; python tests/kit/fairlearn_golden.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

FILE = Path(__file__).parents[1] / "unit" / "stats" / "fairlearn.json"
ROWS = 900


def main() -> None:
    import fairlearn
    import pandas as pd
    from fairlearn import metrics as fair
    from sklearn.metrics import accuracy_score, precision_score

    rng = np.random.default_rng(7)
    sex, age = rng.choice(["f", "m"], ROWS, p=[0.4, 0.6]), rng.choice(["old", "young", "middle"], ROWS)
    truth = (rng.random(ROWS) < np.where(sex == "f", 0.3, 0.5)).astype(int)
    score = np.clip(truth * 0.3 + rng.random(ROWS) * 0.6 + (age == "old") * 0.1, 0, 1)
    flagged = (score >= 0.5).astype(int)
    measures = {
        "selection rate": fair.selection_rate,
        "true positive rate": fair.true_positive_rate,
        "false positive rate": fair.false_positive_rate,
        "false negative rate": fair.false_negative_rate,
        "precision": precision_score,
        "error rate": lambda y, p: 1 - accuracy_score(y, p),
    }
    found = {"fairlearn": fairlearn.__version__, "sex": sex.tolist(), "age": age.tolist(), "truth": truth.tolist()}
    found |= {"score": score.round(4).tolist(), "flagged": flagged.tolist(), "by": {}}
    features = pd.DataFrame({"sex": sex, "age": age})
    for by in (["sex"], ["age"], ["sex", "age"]):
        frame = fair.MetricFrame(metrics=measures, y_true=truth, y_pred=flagged, sensitive_features=features[by])
        groups = frame.by_group
        found["by"][",".join(by)] = {
            "groups": [
                [list(key) if isinstance(key, tuple) else [key], row.to_dict()] for key, row in groups.iterrows()
            ],
            "difference": frame.difference(method="between_groups").to_dict(),
            "ratio": frame.ratio(method="between_groups").to_dict(),
        }
    FILE.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
