"""XGBoost and LightGBM answer here exactly as their own libraries do, bit for bit."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from kit.later import later
from kit.models import COLUMNS, FEATURES, lightgbm_bundle, lightgbm_file, xgboost_bundle, xgboost_file
from mainspring.core.errors import Corrupt, Invalid
from mainspring.serving.adapters.lightgbm import LightgbmExecutor
from mainspring.serving.adapters.xgboost import XgboostExecutor

lightgbm = later("lightgbm")
xgboost = later("xgboost")

ROWS = 10_000
XGBOOST = ["binary", "multiclass", "regression", "early", "dart"]
LIGHTGBM = ["binary", "multiclass", "regression", "categories", "linear"]


def thresholds(task: str, library: str) -> Any:
    """Return the values at which the model's trees split."""
    if library == "xgboost":
        model = json.loads(xgboost_file(task, "json"))["learner"]["gradient_booster"]
        trees = model.get("gbtree", model)["model"]["trees"]
        return np.array([value for tree in trees for value in tree["split_conditions"]], np.float64)
    lines = [line for line in lightgbm_file(task).decode().splitlines() if line.startswith("threshold=")]
    return np.array([float(value) for line in lines for value in line.removeprefix("threshold=").split()])


def rows(task: str, library: str, seed: int = 5) -> Any:
    """Return 10,000 rows as float64: ordinary, null, at the trees' thresholds and one float beside them, and values
    that float32 does not hold."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(ROWS, FEATURES))
    splits = thresholds(task, library)
    splits = splits[np.abs(splits) < 3e38]
    drawn = rng.choice(splits, size=matrix.shape)
    narrow = drawn.astype(np.float32)
    boundary = np.stack(
        [
            drawn,
            np.nextafter(drawn, np.inf),
            np.nextafter(drawn, -np.inf),
            np.nextafter(narrow, np.float32(np.inf)),
            np.nextafter(narrow, np.float32(-np.inf)),
            (narrow.astype(np.float64) + np.nextafter(narrow, np.float32(np.inf))) / 2,  # a tie between two floats
        ]
    )
    picked = np.take_along_axis(boundary, rng.integers(0, 6, (1, *matrix.shape)), axis=0)[0]
    kind = rng.random(matrix.shape)
    matrix = np.where(kind < 0.5, picked, matrix)
    extremes = [0.0, -0.0, 16_777_217.0, 1_700_000_000.123, 1e-46, -1e-40, 3.4028234e38, -3.4028234e38, 2.0**53 + 1]
    matrix = np.where((kind >= 0.5) & (kind < 0.6), rng.choice(extremes, size=matrix.shape), matrix)
    return np.where(kind > 0.85, np.nan, matrix)


def as_columns(matrix: Any) -> dict[str, list[Any]]:
    """Return the rows as the gateway has them: Python numbers, `None` for null."""
    return {
        each.name: [None if np.isnan(value) else float(value) for value in matrix[:, place]]
        for place, each in enumerate(COLUMNS)
    }


@pytest.mark.parametrize("columns", [False, True], ids=["tensor", "columns"])
@pytest.mark.parametrize("task", XGBOOST)
def test_xgboost_answers_as_the_library_does(task: str, columns: bool) -> None:
    matrix = rows(task, "xgboost")
    booster = xgboost.Booster({"nthread": 1}, model_file=bytearray(xgboost_file(task)))
    best = booster.attr("best_iteration")
    assert (best is not None) == (task == "early")
    whole = (0, 0) if best is None else (0, int(best) + 1)
    expected = booster.predict(xgboost.DMatrix(matrix, nthread=1), iteration_range=whole)
    executor = XgboostExecutor(xgboost_bundle(task, columns=columns))
    inputs: Any = as_columns(matrix) if columns else {"input": matrix.astype(np.float32)}
    answers = executor.predict(inputs, ROWS)
    found = np.column_stack([answers[name] for name in answers]) if columns else answers["output"]
    found = found.reshape(expected.shape)
    if task == "dart":  # the library's own two ways add the trees up in another order
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        expected = booster.inplace_predict(matrix.astype(np.float32), iteration_range=whole)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("columns", [False, True], ids=["tensor", "columns"])
@pytest.mark.parametrize("task", LIGHTGBM)
def test_lightgbm_answers_as_the_library_does(task: str, columns: bool) -> None:
    matrix = rows(task, "lightgbm")
    expected = lightgbm.Booster(model_str=lightgbm_file(task).decode()).predict(matrix, num_threads=1)
    executor = LightgbmExecutor(lightgbm_bundle(task, columns=columns))
    inputs: Any = as_columns(matrix) if columns else {"input": matrix}
    answers = executor.predict(inputs, ROWS)
    found = np.column_stack([answers[name] for name in answers]) if columns else answers["output"]
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)


@settings(max_examples=examples(gate=60, deep=200), deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4))
def test_integers_are_rounded_once(values: list[int]) -> None:
    """As NumPy rounds an int64 to float32, not by way of float64."""
    executor = XgboostExecutor(xgboost_bundle("regression", columns=True))
    inputs = {each.name: values for each in COLUMNS}
    matrix = executor._matrix.feed(inputs, len(values))
    expected = np.repeat(np.array(values, np.int64).astype(np.float32)[:, None], FEATURES, axis=1)
    np.testing.assert_array_equal(matrix, expected)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_what_is_infinite_is_refused_by_name(value: float) -> None:
    for executor, dtype in (
        (XgboostExecutor(xgboost_bundle()), np.float32),
        (LightgbmExecutor(lightgbm_bundle()), np.float64),
    ):
        matrix = np.zeros((3, FEATURES), dtype)
        matrix[1, 2] = value
        with pytest.raises(Invalid, match=r"'input' is infinite.*row 1"):
            executor.predict({"input": matrix}, 3)


def test_what_is_too_large_for_float32_is_refused_by_name() -> None:
    executor = XgboostExecutor(xgboost_bundle(columns=True))
    inputs = {each.name: [0.0, 1e39 if each.name == "Kind.f1" else 0.0] for each in COLUMNS}
    with pytest.raises(Invalid, match=r"'Kind\.f1' is infinite, or too large for float32, in row 1"):
        executor.predict(inputs, 2)


def test_a_linear_model_is_no_forest() -> None:
    with pytest.raises(Corrupt, match="only trees are served"):
        XgboostExecutor(xgboost_bundle("linear"))


@pytest.mark.parametrize("other", [FEATURES - 1, FEATURES + 1])
def test_a_file_that_says_twice_how_many_features_it_takes_is_refused(other: int) -> None:
    """Readers take the first of two fields, or the last: where the library takes the other one, nothing is served."""
    said = b'"num_feature":"%d"' % FEATURES
    content = xgboost_file("binary", "json")
    assert said in content
    for twice in (b'"num_feature":"%d",%s' % (other, said), b'%s,"num_feature":"%d"' % (said, other)):
        made = xgboost_bundle("binary", columns=True)
        files = {**made.files, "model.json": content.replace(said, twice)}
        files.pop("model.ubj", None)
        try:
            executor = XgboostExecutor(type(made)(made.digest, made.manifest, files))
        except (Corrupt, Invalid):
            continue
        assert len(executor.inputs) == FEATURES
    for twice in (
        b"max_feature_idx=%d\nmax_feature_idx=%d\n" % pair
        for pair in ((other - 1, FEATURES - 1), (FEATURES - 1, other - 1))
    ):
        made = lightgbm_bundle("binary", columns=True)
        text = made.files["model.txt"].replace(b"max_feature_idx=%d\n" % (FEATURES - 1), twice)
        try:
            found = LightgbmExecutor(type(made)(made.digest, made.manifest, {**made.files, "model.txt": text}))
        except (Corrupt, Invalid):
            continue
        assert len(found.inputs) == FEATURES
