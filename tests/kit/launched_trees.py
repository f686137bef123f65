"""Trees under a launcher: the entry of its ranks, run by test_trees_in_processes.py, not a test itself.

A deed is `[attempt, rank, round, word]`; the words are those of the conformance suite of runners.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kit import tree_cases
from mainspring.core.environment import rank_variables
from mainspring.training.boosting import rounds
from mainspring.training.distributed.conformance import DEEDS
from mainspring.training.distributed.ports import BEATS
from mainspring.training.distribution import Distributed
from mainspring.training.loop.beats import Heart
from mainspring.training.loop.launch import Launch, launching
from mainspring.training.loop.world import launched

ROUNDS = 20


def work(request: str, tell: Callable[[str, float], None]) -> None:
    """Fit as a rank, and store what the trees predict."""
    asked, world = json.loads(request), launched()
    folder, attempt = Path(asked["folder"]), int(rank_variables()["TORCHELASTIC_RESTART_COUNT"])
    tell("fit", 0.5)
    deeds = {at: word for when, rank, at, word in asked["deeds"] if (when, rank) == (attempt, world.rank)}
    steer(lambda number: DEEDS[deeds[number]]() if number in deeds else None)
    heart = Heart(folder / BEATS.format(world.rank))
    with launching(Launch(Distributed(processes=world.size), folder / "checkpoints", heart, attempt)):
        estimator = fit(asked["library"], Path(asked["rows"]))
    np.save(folder / f"found-{world.rank}.npy", tree_cases.predictions(estimator, Path(asked["rows"])))


def steer(deed: Callable[[int], object]) -> None:
    """Do something after each round."""
    completed = rounds._Launched.completed

    def steered(self: Any, number: int, content: Any) -> None:
        completed(self, number, content)
        sys.stdout.write(f"round {number}\n")
        deed(number)

    rounds._Launched.completed = steered  # type: ignore[method-assign]


def fit(library: str, folder: Path) -> Any:
    """Fit trees, with early stopping that does not end it soon."""
    rows = tree_cases.loader(folder, "late")
    if library == "xgboost":
        import xgboost

        from mainspring.training.boosting.xgboost import fit_xgboost

        drawn = xgboost.XGBClassifier(
            n_estimators=ROUNDS, max_depth=3, random_state=3, n_jobs=1, early_stopping_rounds=15, eval_metric="auc"
        )  # fmt: skip
        return fit_xgboost(drawn, rows, validation=rows, checkpoint_every_rounds=4)
    import lightgbm

    from mainspring.training.boosting.lightgbm import fit_lightgbm

    leaves = lightgbm.LGBMClassifier(n_estimators=ROUNDS, num_leaves=7, min_child_samples=0, n_jobs=1, verbose=-1)
    return fit_lightgbm(leaves, rows, validation=rows)
