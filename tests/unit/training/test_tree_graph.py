"""Trees far from zero: what stands beside a threshold falls on the estimator's own side of it, and no other.

The oracle is the estimator, asked at every threshold, at its neighbours among float64 and float32, and halfway between
two float32, where rounding decides.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import ensemble, tree
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import RobustScaler, StandardScaler

from mainspring.core.schema import DType
from mainspring.registry.model import Input
from mainspring.registry.onnx_file import check_onnx
from mainspring.training.flavours import estimator_scores
from mainspring.training.flavours.flavour import Artefact
from mainspring.training.flavours.scoring import artefact_scores
from mainspring.training.flavours.sklearn import split_thresholds, to_onnx
from mainspring.training.flavours.tree_graph import KINDS, read_forest

pytestmark = pytest.mark.slow

FAR = {
    "epoch seconds": 1_760_000_000.37,
    "microseconds": 1_760_000_000_000_000.0,
    "cents": 2.0**24 + 1,
    "negative": -3e9,
}
WIDE = [Input("V.at", DType.Float64), Input("V.x", DType.Float64)]
NARROW = [Input("V.at", DType.Float32), Input("V.x", DType.Float32)]


def made(kind: str, **settings: Any) -> Any:
    few = {"max_iter": 8} if kind.startswith("Hist") else {"n_estimators": 8}
    several = kind.startswith(("RandomForest", "ExtraTrees", "Gradient", "Hist"))
    found = getattr(ensemble, kind, None) or getattr(tree, kind)
    return found(random_state=0, **(few if several else {}), **settings)


def rows(offset: float, kind: str, task: str) -> tuple[pd.DataFrame, Any]:
    """A column far from zero whose steps float32 does not always hold, and labels that follow from it."""
    rng = np.random.default_rng(0)
    step = abs(offset) * 2.0**-26 if offset else 1.0
    at = offset + step * rng.integers(0, 200, 600)
    x = rng.normal(size=600)
    if not kind.startswith("Gradient"):
        x[::9] = np.nan
    pull = (at - offset) / step / 50 + np.nan_to_num(x)
    y = {"regression": 1e6 + pull, "binary": (pull > np.median(pull)) * 1}.get(task)
    y = np.digitize(pull, np.quantile(pull, [0.3, 0.6])) if y is None else y
    return pd.DataFrame({"V.at": at, "V.x": x}), y


def beside(cuts: dict[str, Any], frame: pd.DataFrame, kind: Any) -> pd.DataFrame:
    """Rows with each column at, below and above each of its thresholds, by one and two steps of both float types."""
    parts = []
    for name, found in cuts.items():
        values = found[np.isfinite(found)]  # a split on nulls alone is at infinity
        near = {float(value) for value in values}
        for value in values:
            narrow = np.float32(value)
            for one in (np.nextafter(narrow, np.float32(-np.inf)), narrow, np.nextafter(narrow, np.float32(np.inf))):
                near.add(float(one))
                near.add((float(one) + float(narrow)) / 2)  # halfway: to even
            near.update(float(np.nextafter(value, side)) for side in (-np.inf, np.inf))
            near.update(float(np.nextafter(np.nextafter(value, side), side)) for side in (-np.inf, np.inf))
        near.update(np.nextafter(each, side) for each in list(near) for side in (-np.inf, np.inf))
        base = frame.iloc[np.arange(len(near)) % len(frame)].reset_index(drop=True)
        parts.append(base.assign(**{name: np.array(sorted(near)).astype(kind)}))
    return pd.concat(parts, ignore_index=True).astype(kind)


def answers(content: bytes, frame: pd.DataFrame) -> Any:
    check_onnx(content)
    return artefact_scores(Artefact("onnx", "model.onnx", content), frame, list(frame.columns))


def task_of(kind: str) -> str:
    return "regression" if kind.endswith("Regressor") else "binary"


@pytest.mark.parametrize("offset", FAR)
@pytest.mark.parametrize("kind", KINDS)
def test_beside_every_threshold_it_is_the_estimator(kind: str, offset: str) -> None:
    task = task_of(kind)
    frame, y = rows(FAR[offset], kind, task)
    estimator = made(kind).fit(frame, y)
    cuts = dict(split_thresholds(estimator, frame, list(frame.columns)))
    assert len(cuts["V.at"]) > 3
    asked = beside(cuts, frame, np.float64)
    expected = estimator_scores(estimator, asked, task)
    assert len(np.unique(expected)) > 1
    found = answers(to_onnx(estimator, WIDE, task, wide=["V.at"]), asked)
    assert np.abs(found - expected).max() < (1e-8 if task == "regression" else 1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_columns_of_float32_too(kind: str) -> None:
    task = task_of(kind)
    frame, y = rows(1_760_000_000.37, kind, task)
    narrow = frame.assign(**{"V.at": (frame["V.at"] - 1_760_000_000) * 1000}).astype(np.float32)
    estimator = made(kind).fit(narrow, y)
    asked = beside(dict(split_thresholds(estimator, narrow, list(narrow.columns))), narrow, np.float32)
    found = answers(to_onnx(estimator, NARROW, task), asked)
    assert np.abs(found - estimator_scores(estimator, asked, task)).max() < 1e-7


@pytest.mark.parametrize("kind", [each for each in KINDS if each.endswith("Classifier")])
def test_several_classes(kind: str) -> None:
    frame, y = rows(FAR["epoch seconds"], kind, "multiclass")
    estimator = made(kind).fit(frame, y)
    asked = beside(dict(split_thresholds(estimator, frame, list(frame.columns))), frame, np.float64)
    found = answers(to_onnx(estimator, WIDE, "multiclass", wide=["V.at"]), asked)
    assert np.abs(found - estimator_scores(estimator, asked, "multiclass")).max() < 1e-7


@pytest.mark.parametrize("scaler", [StandardScaler, RobustScaler])
@pytest.mark.parametrize("number", [np.float64, np.float32])
def test_through_a_scaler_it_is_scaled_as_scikit_learn_does(scaler: Any, number: Any) -> None:
    frame, y = rows(FAR["epoch seconds"], "HistGradientBoostingClassifier", "binary")
    if number is np.float32:
        frame = frame.assign(**{"V.at": frame["V.at"] - 1_760_000_000}).astype(number)
    estimator = make_pipeline(SimpleImputer(), scaler(), made("RandomForestClassifier")).fit(frame, y)
    asked = beside(dict(split_thresholds(estimator, frame, list(frame.columns))), frame, number)
    wide = number is np.float64
    found = answers(to_onnx(estimator, WIDE if wide else NARROW, "binary", wide=["V.at"] if wide else []), asked)
    assert np.abs(found - estimator_scores(estimator, asked, "binary")).max() < 1e-7


UNUSUAL: dict[str, Any] = {
    "exponential loss": lambda: made("GradientBoostingClassifier", loss="exponential"),
    "from zero": lambda: made("GradientBoostingClassifier", init="zero"),
    "quantile": lambda: made("GradientBoostingRegressor", loss="quantile"),
    "poisson": lambda: made("HistGradientBoostingRegressor", loss="poisson"),
    "gamma": lambda: made("HistGradientBoostingRegressor", loss="gamma"),
    "absolute": lambda: made("HistGradientBoostingRegressor", loss="absolute_error"),
    "entropy": lambda: made("DecisionTreeClassifier", criterion="entropy", class_weight="balanced"),
    "one leaf": lambda: made("DecisionTreeRegressor", min_samples_leaf=400),
    "some of one leaf": lambda: made("HistGradientBoostingRegressor", min_samples_leaf=299),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_losses_links_and_trees_of_one_leaf(name: str) -> None:
    estimator = UNUSUAL[name]()
    task = task_of(type(estimator).__name__)
    frame, y = rows(FAR["cents"], "Gradient", task)
    estimator.fit(frame, y - 1e6 + 5 if task == "regression" else y)
    asked = beside({"V.at": frame["V.at"].unique(), "V.x": np.zeros(1)}, frame, np.float64)
    found = answers(to_onnx(estimator, WIDE, task, wide=["V.at"]), asked)
    assert np.abs(found - estimator_scores(estimator, asked, task)).max() < 1e-7


def test_what_is_no_sum_of_trees_is_refused_by_name() -> None:
    from sklearn.linear_model import LogisticRegression

    from mainspring.core.errors import NotConvertible

    frame, y = rows(0.0, "Gradient", "binary")
    started = made("GradientBoostingClassifier", init=LogisticRegression()).fit(frame, y)
    with pytest.raises(NotConvertible, match=r"GradientBoostingClassifier\(init=LogisticRegression\(\)\)"):
        to_onnx(started, NARROW, "binary")
    both = made("DecisionTreeClassifier").fit(frame, np.column_stack([y, y]))
    with pytest.raises(NotConvertible, match="predicts 2 labels at once"):
        read_forest(both)


@pytest.fixture(autouse=True)
def _scikit_learn_may_warn() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
