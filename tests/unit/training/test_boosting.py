"""Trees fitted on rows of a loader: in two processes as in one, as by the library itself, and in bounded memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from kit import ranks
from kit.depth import deep
from kit.later import later
from mainspring.core.errors import Invalid
from mainspring.core.own_process import python_path
from mainspring.core.time import ManualClock
from mainspring.registry.adapters.memory import MemoryTracking
from mainspring.training.boosting.lightgbm import fit_lightgbm
from mainspring.training.boosting.rows import InMemory, TreeRows
from mainspring.training.boosting.xgboost import fit_xgboost
from mainspring.training.loading.loader import Loader
from mainspring.training.loop.world import World
from mainspring.training.runs.run import Run

pytestmark = pytest.mark.slow

xgboost = later("xgboost")
lightgbm = later("lightgbm")
later("torch")
cases = later("kit.tree_cases")
CASES = ["xgboost-late", "xgboost-kind-cached", "xgboost-score", "lightgbm-late", "lightgbm-kind", "lightgbm-score"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trees")
    cases.write(folder)
    return folder


@pytest.fixture(scope="module")
def ranked(folder: Path) -> Path:
    """The folder after two processes have fitted each case."""
    status, said = ranks.run(Path(ranks.__file__).with_name("tree_cases.py"), 2, folder, CASES)
    assert status == 0, said
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_processes_fit_the_trees_of_one(case: str, ranked: Path) -> None:
    wanted = cases.predictions(cases.fit(case, ranked), ranked)
    assert np.ptp(wanted if wanted.ndim == 1 else wanted[:, -1]) > 0.5
    for rank in (0, 1):
        np.testing.assert_allclose(np.load(ranked / f"{case}-{rank}.npy"), wanted, atol=2e-6)
    assert not [*ranked.glob("tmp*")]  # bins on the disk


def test_trees_are_those_of_the_library_on_the_same_rows(folder: Path) -> None:
    frame = pq.read_table(folder / "rows.parquet").to_pandas()
    by_hand = xgboost.XGBClassifier(n_estimators=20, max_depth=4, n_jobs=1, tree_method="hist")
    by_hand.fit(frame[cases.NAMES], frame["late"])
    found = cases.fit("xgboost-late", folder)
    assert found.get_booster().feature_names == cases.NAMES
    assert np.abs(by_hand.predict_proba(frame[cases.NAMES]) - cases.predictions(found, folder)).mean() < 0.02
    settings = {"n_estimators": 20, "num_leaves": 15, "min_child_samples": 0, "n_jobs": 1, "verbose": -1}
    leaves = lightgbm.LGBMClassifier(**settings).fit(frame[cases.NAMES], frame["kind"])
    found = cases.fit("lightgbm-kind", folder)
    assert found.feature_name_ == cases.NAMES
    assert found.predict(frame[cases.NAMES]).max() == 2
    assert np.abs(leaves.predict_proba(frame[cases.NAMES]) - cases.predictions(found, folder)).mean() < 0.02


def test_rows_in_memory_are_fitted_as_those_of_a_loader(folder: Path) -> None:
    table = pq.read_table(folder / "rows.parquet").to_pandas()
    memory = table[cases.NAMES], table["late"]
    found = fit_xgboost(xgboost.XGBClassifier(n_estimators=20, max_depth=4, n_jobs=1, tree_method="hist"), memory)
    wanted = cases.predictions(cases.fit("xgboost-late", folder), folder)
    np.testing.assert_allclose(cases.predictions(found, folder), wanted, atol=2e-6)
    codes = pd.factorize(table["kind"], sort=True)[0]
    leaves = lightgbm.LGBMClassifier(n_estimators=20, num_leaves=15, min_child_samples=0, n_jobs=1, verbose=-1)
    found = fit_lightgbm(leaves, (table[cases.NAMES], codes))
    wanted = cases.predictions(cases.fit("lightgbm-kind", folder), folder)
    np.testing.assert_allclose(cases.predictions(found, folder), wanted, atol=1e-9)
    with pytest.raises(Invalid, match="Rows of trees are numbers"):
        fit_xgboost(xgboost.XGBClassifier(), (table[["kind"]], table["late"]))
    with pytest.raises(Invalid, match=r"labels of shape \(4999,\)"):
        fit_xgboost(xgboost.XGBClassifier(), (table[cases.NAMES], table["late"][1:]))
    rows = TreeRows(memory, World(1, 2))
    assert (rows.begin, rows.end, rows.classes) == (2500, 5000, 2)
    for labels, classes in (
        ([0, 1, 2], 3),
        ([0, 1, np.inf], 0),
        ([-1, 1, 1], 0),
        ([0, 0.5, 1], 0),
        ([0, np.nan, 1], 0),
    ):
        assert InMemory(np.zeros((3, 1)), labels).classes == classes


@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_validations_are_logged_and_stop_early(library: str, folder: Path) -> None:
    tracking, clock = MemoryTracking(), ManualClock(0)
    drawn = np.random.default_rng(1).random(len(cases.loader(folder, "late"))) > 0.5
    table = pq.read_table(folder / "rows.parquet").set_column(6, "late", [drawn])
    pq.write_table(table, folder / "noise.parquet")
    noise = Loader(folder / "noise.parquet", inputs=cases.NAMES, targets="late")
    rows = cases.loader(folder, "late")
    with Run(tracking, tracking.start("m", {}, 0), clock, seed=5) as run:
        if library == "xgboost":
            estimator = xgboost.XGBClassifier(n_estimators=50, n_jobs=1, early_stopping_rounds=3, eval_metric="auc")
            fit_xgboost(estimator, rows, validation=noise, run=run)
            last = estimator.get_booster().best_iteration
        else:
            estimator = lightgbm.LGBMClassifier(n_estimators=50, n_jobs=1, metric="auc", verbose=-1)
            last = fit_lightgbm(estimator, rows, validation=noise, stopping_rounds=3, run=run).best_iteration_
    found = tracking.history(run.id, "validation.auc")
    assert 3 <= len(found) < 50
    assert len(found) - last in (3, 4)


def test_loaders_and_estimators_that_do_not_fit(folder: Path) -> None:
    path = folder / "rows.parquet"
    several = Loader(path, inputs=(["x0"], ["x1"]), targets="late")
    for fit in (fit_xgboost, fit_lightgbm):
        with pytest.raises(Invalid, match=r"estimator is of type .*give one such as"):
            fit(Any, several)
    with pytest.raises(Invalid, match="no matrix"):
        fit_xgboost(xgboost.XGBClassifier(), several)
    with pytest.raises(Invalid, match="no targets"):
        fit_lightgbm(lightgbm.LGBMClassifier(), Loader(path, inputs=["x0"]))
    with pytest.raises(Invalid, match="2 targets"):
        fit_xgboost(xgboost.XGBRegressor(), Loader(path, inputs=["x0"], targets=["score", "late"]))
    rows = cases.loader(folder, "late")
    with pytest.raises(Invalid, match="needs validation"):
        fit_xgboost(xgboost.XGBClassifier(early_stopping_rounds=2), rows)
    with pytest.raises(Invalid, match="needs validation"):
        fit_lightgbm(lightgbm.LGBMClassifier(), rows, stopping_rounds=2)
    with pytest.raises(Invalid, match="class_weight"):
        fit_lightgbm(lightgbm.LGBMClassifier(class_weight="balanced"), rows)
    with pytest.raises(Invalid, match="5000 rows cannot be parted among 6000"):
        TreeRows(rows, World(0, 6000))
    parts = [TreeRows(rows, World(rank, 3)) for rank in range(3)]
    assert [part.begin for part in parts[1:]] == [part.end for part in parts[:-1]]
    assert sum(len(labels) for part in parts for _, labels in part.pieces(700)) == 5000


MEASURED = """
import resource, sys
import numpy as np
from pathlib import Path
from mainspring.training.loading.loader import Loader

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

folder, library = Path(sys.argv[1]), sys.argv[2]
loader = Loader(folder, inputs=[f"c{n}" for n in range(32)], targets="y", window=100_000)
if library == "lightgbm":
    import lightgbm
    from mainspring.training.boosting.lightgbm import fit_lightgbm
    before = peak()
    fit_lightgbm(lightgbm.LGBMRegressor(n_estimators=3, n_jobs=1, verbose=-1), loader)
else:
    import xgboost
    from mainspring.training.boosting.xgboost import fit_xgboost
    before = peak()
    cache = folder if library == "cached" else None
    fit_xgboost(xgboost.XGBRegressor(n_estimators=3, n_jobs=1), loader, cache=cache)
print(peak() - before)
"""


@deep
@pytest.mark.parametrize(("library", "most_mib"), [("xgboost", 700), ("cached", 450), ("lightgbm", 600)])
def test_memory_is_that_of_bins_and_labels(library: str, most_mib: int, tmp_path: Path) -> None:
    """Rows take 488 MiB as float32, which the libraries hold beside the bins where they are given an array."""
    import pyarrow as pa

    column = pa.array(np.random.default_rng(0).normal(size=100_000).astype(np.float32))
    table = pa.table({**{f"c{number}": column for number in range(32)}, "y": column})
    with pq.ParquetWriter(tmp_path / "rows.parquet", table.schema, use_dictionary=False) as writer:
        for _ in range(40):
            writer.write_table(table)
    environment: dict[str, Any] = {**os.environ, "PYTHONPATH": python_path()}
    done = subprocess.run([sys.executable, "-c", MEASURED, str(tmp_path), library], env=environment, text=True,
                          capture_output=True, check=True)  # fmt: skip
    assert int(done.stdout.split()[-1]) < most_mib
