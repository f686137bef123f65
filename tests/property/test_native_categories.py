"""Text features of XGBoost and LightGBM: a gateway and a device answer as the library does on pandas' categories."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from kit.later import later
from kit.models import sealed
from mainspring.core.schema import DType
from mainspring.deploy.edge.converting import tree_model
from mainspring.registry.model import Bundle, Input
from mainspring.training.flavours import Artefact, convert_estimator, estimator_scores
from mainspring.training.flavours.scoring import artefact_scores
from mainspring.training.sets.training_set import Split, TrainingSet

lightgbm = later("lightgbm")
xgboost = later("xgboost")

ROWS = 700
NAMES = ["V.x", "V.kind", "V.flag", "V.town"]
DTYPES = dict(zip(NAMES, [DType.Float64, DType.String, DType.Boolean, DType.String], strict=True))
NEVER_SEEN = ["never seen", "C1", "1.0", " c1", "\N{SNOWMAN}", "nan"]

OPTIONS: dict[str, Sequence[dict[str, Any]]] = {
    "xgboost": [
        {},
        {"max_cat_to_onehot": 1},
        {"max_cat_to_onehot": 1000},
        {"max_cat_to_onehot": 2, "max_cat_threshold": 4},
        {"tree_method": "approx"},
        {"booster": "dart"},
    ],
    "lightgbm": [
        {},
        {"max_cat_to_onehot": 1000},
        {"min_data_per_group": 1, "cat_smooth": 0.0},
        {"max_cat_threshold": 3, "boosting_type": "dart"},
    ],
}


def texts(rng: np.random.Generator, count: int, spelling: str, rows: int = ROWS) -> Any:
    """Return texts of at most `count` kinds as a frame has them: a fifth of them null."""
    spellings = {
        "c1": "c{}",
        "1": "{}",
        "\N{GREEK SMALL LETTER MU}": "\N{GREEK SMALL LETTER MU} {}'\"\\",
        "001": "{:03d}",
    }
    made = np.array([spellings[spelling].format(number) for number in rng.integers(0, count, rows)], object)
    made[rng.random(rows) < 0.2] = None
    return made


def training_set(seed: int, kinds: int, towns: int, spelling: str, task: str) -> TrainingSet:
    rng = np.random.default_rng(seed)
    split = []
    for rows in (ROWS, 60, 400):
        frame = pd.DataFrame(
            {
                "V.x": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(size=rows)),
                "V.kind": pd.Series(texts(rng, kinds, spelling, rows), dtype=object),
                "V.flag": rng.choice(np.array([0, 1, np.nan], np.float32), rows),
                "V.town": pd.Series(texts(rng, towns, "c1", rows), dtype=object),
            }
        )
        known = pd.util.hash_array(frame["V.kind"].astype(str).to_numpy(object)) % 5 / 2.5
        pull = np.nan_to_num(frame["V.x"]) + known + rng.normal(scale=0.3, size=rows)
        y = {"binary": pull > 1, "multiclass": np.digitize(pull, [0.4, 1.2]), "regression": pull * 10}[task]
        split.append(Split(frame, np.asarray(y * 1), np.arange(rows)))
    split[2].X.loc[::5, "V.kind"] = rng.choice(np.array([*NEVER_SEEN, ""], object), 80)
    return TrainingSet(*split, DTYPES, task)


def fitted(kind: str, data: TrainingSet, options: dict[str, Any]) -> Any:
    known = data.with_categories()
    regression = data.task == "regression"
    if kind == "xgboost":
        made = xgboost.XGBRegressor if regression else xgboost.XGBClassifier
        estimator = made(n_estimators=6, n_jobs=1, enable_categorical=True, **options)
        return estimator.fit(known.train.X, data.train.y)
    made = lightgbm.LGBMRegressor if regression else lightgbm.LGBMClassifier
    estimator = made(n_estimators=6, n_jobs=1, verbose=-1, min_child_samples=2, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LightGBM is giving eval_set other names
        return estimator.fit(known.train.X, data.train.y, eval_set=[(known.validation.X, data.validation.y)])


def own_answers(estimator: Any, data: TrainingSet, frame: Any) -> Any:
    """Return what the library itself answers to a frame of pandas' categories, made here and not by the product."""
    known = {}
    for name in ("V.kind", "V.town"):
        seen = sorted({text for text in data.train.X[name] if text})
        codes = [seen.index(text) if text in seen else -1 for text in frame[name]]
        known[name] = pd.Categorical.from_codes(codes, categories=data.with_categories().train.X[name].cat.categories)
    frame = frame.assign(**known)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = estimator.predict(frame) if data.task == "regression" else estimator.predict_proba(frame)
    return found[:, 1:] if data.task == "binary" else np.asarray(found).reshape(len(frame), -1)


def bundle_of(estimator: Any, data: TrainingSet) -> Bundle:
    artefact = convert_estimator(estimator, [Input(name, dtype) for name, dtype in DTYPES.items()], data.task)
    inputs = tuple(Input(name, dtype, artefact.categories.get(name, ())) for name, dtype in DTYPES.items())
    outputs = {"binary": ("probability",), "multiclass": ("0", "1", "2"), "regression": ("value",)}[data.task]
    return sealed(artefact.flavour, {artefact.name: artefact.content}, task=data.task, inputs=inputs, outputs=outputs)


@settings(max_examples=examples(gate=6, deep=30), deadline=None)
@given(
    st.sampled_from([(kind, options) for kind, every in OPTIONS.items() for options in every]),
    st.sampled_from([1, 2, 4, 40, 600]),
    st.sampled_from([1, 3, 300]),
    st.sampled_from(["c1", "1", "001", "\N{GREEK SMALL LETTER MU}"]),
    st.sampled_from(["binary", "multiclass", "regression"]),
    st.integers(0, 2**16),
)
def test_a_gateway_answers_as_the_library_does(
    chosen: tuple[str, dict[str, Any]], kinds: int, towns: int, spelling: str, task: str, seed: int
) -> None:
    data = training_set(seed, kinds, towns, spelling, task)
    estimator = fitted(chosen[0], data, chosen[1])
    frame = data.holdout.X
    expected = own_answers(estimator, data, frame)
    bundle = bundle_of(estimator, data)
    from mainspring.serving.adapters.lightgbm import LightgbmExecutor
    from mainspring.serving.adapters.xgboost import XgboostExecutor

    executor = (XgboostExecutor if chosen[0] == "xgboost" else LightgbmExecutor)(bundle)
    columns = {name: [None if pd.isna(value) else value for value in frame[name].tolist()] for name in NAMES}
    served = np.column_stack([executor.predict(columns, len(frame))[name] for name in bundle.manifest.outputs])
    assert np.array_equal(served, expected)
    assert np.array_equal(estimator_scores(estimator, frame, task), expected)
    artefact = convert_estimator(estimator, bundle.manifest.inputs, task)
    assert np.array_equal(artefact_scores(artefact, frame, NAMES), expected)
    device = artefact_scores(Artefact("onnx", "model.onnx", tree_model(bundle, "made")), frame, NAMES)
    np.testing.assert_allclose(device, expected, rtol=2e-6, atol=2e-6)
