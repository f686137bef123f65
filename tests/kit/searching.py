"""The small project of `depot`, whose model's parameters are searched, with what each training says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kit.depot import Depot

MODEL_PY = '''\
"""Will the parcel come late?"""

import json
import os
import time
from pathlib import Path

import mainspring as ms
from parcels.features import HubLoad, Parcel, deliveries, observations

TOLD = Path(__file__).parent.parent / "told.jsonl"


def tell(**what):
    with TOLD.open("a") as file:
        file.write(json.dumps({"pid": os.getpid(), **what}) + "\\n")


@ms.model(
    "late-parcel",
    observations=observations,
    features=[HubLoad, Parcel],
    label=deliveries.late,
    task="binary",
    search=ms.Search(
        "auc",
        space=ms.space(leaves=ms.integer(2, 16), rate=ms.log_uniform(1e-3, 1.0), weight=ms.choice(None, "balanced")),
        trials=5,
        reported="validation_auc",
    ),
)
def train(data: ms.TrainingSet, run: ms.Run, params: dict):
    from sklearn.ensemble import HistGradientBoostingClassifier

    last = int(data.validation.at[-1])
    holdout = [int(each) for each in data.holdout.at[:1]]
    tell(run=run.id, begins=params, last=last, holdout=holdout)
    time.sleep(float(os.environ.get("SLOWLY", "0")))
    BODY
    trees = HistGradientBoostingClassifier(
        max_iter=10, max_leaf_nodes=params["leaves"], learning_rate=params["rate"], class_weight=params["weight"],
        random_state=run.seed,
    )
    trees.fit(data.train.X, data.train.y)
    tell(run=run.id, ends=params)
    return trees
'''


def searched(depot: Depot, body: str = "pass") -> Depot:
    """Let the project's model be one that is searched, its training function with a `body` of the test's."""
    path = depot.root / "parcels" / "model.py"
    path.write_text(MODEL_PY.replace("    BODY", "\n".join(f"    {line}" for line in body.splitlines())))
    return depot


def told(depot: Depot) -> list[dict[str, Any]]:
    """Return what the trainings said, in order."""
    path: Path = depot.root / "told.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
