"""Random models of XGBoost, LightGBM and CatBoost: an edge package answers as the library does for every number."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from kit.later import later
from kit.models import sealed
from mainspring.core.schema import DType
from mainspring.deploy.edge.converting import tree_model
from mainspring.deploy.edge.signature import signature_of
from mainspring.registry.model import Bundle, Input
from mainspring.training.flavours import fresh
from mainspring.training.flavours.scoring import open_session
from mainspring_edge.model import Model

lightgbm = later("lightgbm")
xgboost = later("xgboost")
catboost = later("catboost")

FEATURES, CODES = 5, 9  # the last feature holds codes of categories
NAMES = [f"V.f{place}" for place in range(FEATURES)]
Fitted = tuple[str, bytes, Any]  # the file's name and content, the thresholds

OBJECTIVES: Mapping[str, Sequence[str]] = {
    "xgboost": (
        *("binary:logistic", "reg:squarederror", "multi:softprob", "count:poisson", "reg:tweedie", "binary:logitraw"),
        *("reg:absoluteerror", "rank:pairwise"),
    ),
    "lightgbm": (
        *("binary", "regression", "multiclass", "multiclassova", "poisson", "tweedie", "cross_entropy"),
        *("regression_l1", "quantile", "huber"),
    ),
    "catboost": ("Logloss", "RMSE", "MultiClass", "Poisson", "MultiClassOneVsAll", "Quantile:alpha=0.9"),
}
OPTIONS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "xgboost": (
        {},
        {"max_depth": 9, "min_child_weight": 0},
        {"max_depth": 1},
        {"booster": "dart", "rate_drop": 0.5},
        {"num_parallel_tree": 3, "subsample": 0.5},
        {"tree_method": "approx"},
        {"max_cat_to_onehot": 1},
        {"base_score": 0.3},
    ),
    "lightgbm": (
        {},
        {"zero_as_missing": True},
        {"use_missing": False},
        {"num_leaves": 100, "min_child_samples": 1},
        {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
        {"boosting": "dart"},
        {"sigmoid": 2.5},
        {"max_cat_to_onehot": 1, "min_data_per_group": 1, "cat_smooth": 0.0},
        {"min_child_samples": 10_000},  # a tree of one leaf
    ),
    "catboost": (
        {},
        {"depth": 1},
        {"depth": 9},
        {"grow_policy": "Lossguide", "max_leaves": 17},
        {"grow_policy": "Depthwise"},
        {"nan_mode": "Max"},
        {"l2_leaf_reg": 0.1, "learning_rate": 1.0},
    ),
}


def training(seed: int, scale: float, nulls: bool) -> tuple[Any, Any]:
    """Return a matrix, a third of whose numbers are 0, and labels of 0, 1 and 2."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(400, FEATURES)) * scale
    matrix[rng.random(matrix.shape) < 0.3] = 0.0
    matrix[:, -1] = rng.integers(0, CODES, len(matrix))
    labels = (matrix[:, 0] + np.abs(matrix[:, 1]) > scale / 2).astype(int) + (matrix[:, -1] % 3 == 0)
    if nulls:
        matrix[rng.random(matrix.shape) < 0.15] = np.nan
    return matrix, labels


def hostile(seed: int, thresholds: Any) -> Any:
    """Return rows at the thresholds and beside them, at 0 and beside it, at codes and fractions of codes, and null."""
    rng = np.random.default_rng(seed)
    thresholds = thresholds[np.abs(thresholds) < 3e38]
    drawn = rng.choice(thresholds if len(thresholds) else np.zeros(1), size=(600, FEATURES))
    narrow = drawn.astype(np.float32)
    beside = [
        *(drawn, np.nextafter(drawn, np.inf), np.nextafter(drawn, -np.inf)),
        *(np.nextafter(narrow, np.float32(np.inf)), np.nextafter(narrow, np.float32(-np.inf))),
        (narrow.astype(np.float64) + np.nextafter(narrow, np.float32(np.inf))) / 2,  # a tie between two floats
        rng.normal(size=drawn.shape),
        rng.choice([0.0, -0.0, 1e-35, -1e-35, 1.1e-35, -1.1e-35, 1e-36, -1e-46, 3.4e38, -3.4e38], size=drawn.shape),
        rng.choice([-1.0, -0.5, 0.0, 0.7, 1.0, 2.99, 8.0, 9.0, 300.0, 2.0**25, 1e18], size=drawn.shape),
        np.full(drawn.shape, np.nan),
    ]
    rows = np.take_along_axis(np.stack(beside), rng.integers(0, len(beside), (1, *drawn.shape)), axis=0)[0]
    rows[:, -1] = np.where(rng.random(len(rows)) < 0.7, rng.integers(0, CODES + 1, len(rows)), rows[:, -1])
    return rows


def saved(save: Callable[[str], Any], name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        save(str(Path(folder) / name))
        return (Path(folder) / name).read_bytes()


def fit_xgboost(matrix: Any, labels: Any, objective: str, options: Mapping[str, Any], trees: int) -> Fitted:
    classes = {"num_class": 3} if objective == "multi:softprob" else {}
    binary = objective.startswith(("binary", "rank"))
    data = xgboost.DMatrix(
        matrix, label=labels > 0 if binary else labels, feature_types=["q"] * (FEATURES - 1) + ["c"],
        qid=np.arange(len(labels)) // 40 if objective.startswith("rank") else None, enable_categorical=True,
    )  # fmt: skip
    params = {"nthread": 1, "objective": objective, "tree_method": "hist", **classes, **options}
    booster = xgboost.train(params, data, trees)
    model = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]
    thresholds = [value for tree in model.get("gbtree", model)["model"]["trees"] for value in tree["split_conditions"]]
    return "model.ubj", bytes(booster.save_raw("ubj")), np.array(thresholds)


def fit_lightgbm(matrix: Any, labels: Any, objective: str, options: Mapping[str, Any], trees: int) -> Fitted:
    classes = {"num_class": 3} if objective.startswith("multiclass") else {}
    binary = objective in ("binary", "cross_entropy")
    data = lightgbm.Dataset(matrix, label=labels > 0 if binary else labels, categorical_feature=[FEATURES - 1])
    params = {"verbose": -1, "num_threads": 1, "objective": objective, "min_child_samples": 3, **classes, **options}
    booster = lightgbm.train(params, data, trees)
    content = booster.model_to_string().encode()
    lines = [line for line in content.decode().splitlines() if line.startswith("threshold=")]
    return "model.txt", content, np.array([float(x) for line in lines for x in line.partition("=")[2].split()])


def fit_catboost(matrix: Any, labels: Any, objective: str, options: Mapping[str, Any], trees: int) -> Fitted:
    params = {"thread_count": 1, "verbose": 0, "allow_writing_files": False, "iterations": trees, **options}
    made = catboost.CatBoost({"loss_function": objective, **params})
    made.fit(matrix, labels > 0 if objective == "Logloss" else labels)
    borders = [border for each in made.get_borders().values() for border in each]
    return "model.cbm", saved(made.save_model, "model.cbm"), np.array(borders)


FIT = {"xgboost": fit_xgboost, "lightgbm": fit_lightgbm, "catboost": fit_catboost}


def on_device(bundle: Bundle, rows: Any) -> Any:
    content = tree_model(bundle, "made")
    model = Model(content, signature_of(open_session(content), bundle.manifest), NAMES)
    columns = {name: [None if np.isnan(x) else x for x in rows[:, at].tolist()] for at, name in enumerate(NAMES)}
    return np.column_stack(list(model.predict(columns, len(rows)).values()))


@settings(max_examples=examples(gate=24, deep=1_000), deadline=None)
@given(
    st.sampled_from([(library, objective) for library, every in OBJECTIVES.items() for objective in every]),
    st.data(),
    st.integers(1, 8),
    st.sampled_from([1.0, 1e-35, 1e6]),
    st.booleans(),
    st.integers(0, 2**16),
)
def test_a_device_answers_as_the_library_does(
    chosen: tuple[str, str], data: st.DataObject, trees: int, scale: float, nulls: bool, seed: int
) -> None:
    library, objective = chosen
    options = data.draw(st.sampled_from(OPTIONS[library]))
    name, content, thresholds = FIT[library](*training(seed, scale, nulls), objective, options, trees)
    rows = hostile(seed, thresholds)
    wanted = fresh.load(name, content)({each: rows[:, at : at + 1] for at, each in enumerate(NAMES)})
    outputs = tuple(f"out{place}" for place in range(wanted.shape[1]))
    inputs = tuple(Input(each, DType.Float64) for each in NAMES)
    bundle = sealed(library, {name: content}, task="regression", inputs=inputs, outputs=outputs)
    near = {"rtol": 2e-6, "atol": 2e-6} if library == "xgboost" else {"rtol": 1e-11, "atol": 1e-14}
    np.testing.assert_allclose(on_device(bundle, rows), wanted, **near)
