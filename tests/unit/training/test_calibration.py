"""Calibration: against scikit-learn's, and in the bundle against itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import product
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import deep
from kit.later import later
from kit.training_sets import toy
from mainspring.core.errors import Corrupt, Invalid, InvalidData
from mainspring.project.executors import executors
from mainspring.registry.bundles import encode_manifest, open_blob, seal
from mainspring.registry.model import Bundle, Manifest
from mainspring.security.signing import SigningKey
from mainspring.serving.plane.golden import warm_up
from mainspring.stats.metrics import auc, log_loss
from mainspring.training.bundling import convert, golden_file
from mainspring.training.flavours import estimator_scores, output_names
from mainspring.training.flavours.calibration import Calibrated, calibrated, isotonic, log_odds, platt
from mainspring.training.stages import Fitted

pytestmark = pytest.mark.slow

later("skl2onnx")


def fitted(estimator: Any, data: Any) -> Fitted:
    return Fitted(Declared, estimator, data, output_names(estimator, "binary"))  # type: ignore[arg-type]


def linear(data: Any, **settings: Any) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    codes = OneHotEncoder(handle_unknown="ignore")
    columns = ColumnTransformer([("codes", codes, data.categorical), ("numbers", SimpleImputer(), data.numeric)])
    return make_pipeline(columns, LogisticRegression(**settings)).fit(data.train.X, data.train.y)


def trees(data: Any) -> Any:
    """Trees that fit the noise, and so believe too much in themselves."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = ColumnTransformer([("codes", codes, data.categorical), ("numbers", "passthrough", data.numeric)])
    boosted = HistGradientBoostingClassifier(max_iter=200, learning_rate=0.3, random_state=0)
    return make_pipeline(columns, boosted).fit(data.train.X, data.train.y)


def forest(data: Any) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return linear(data).set_params(logisticregression=RandomForestClassifier(20, random_state=0)).fit(
        data.train.X, data.train.y
    )  # fmt: skip


class Declared:
    """What `convert` needs to know of a model."""

    task, seed, threshold, measured, label_columns = "binary", 0, None, (), ()


def test_platt_is_scikit_learns_sigmoid() -> None:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator

    data = toy(4000)
    fitted = linear(data, class_weight="balanced", C=0.01)
    theirs = CalibratedClassifierCV(FrozenEstimator(fitted), method="sigmoid").fit(data.validation.X, data.validation.y)
    ours = calibrated(fitted, data)
    assert ours.predict_proba(data.holdout.X) == pytest.approx(theirs.predict_proba(data.holdout.X), abs=2e-4)


def test_isotonic_is_scikit_learns_on_the_bins() -> None:
    from sklearn.isotonic import IsotonicRegression

    rng = np.random.default_rng(0)
    x = rng.normal(size=6400)
    labels = (rng.random(6400) < 1 / (1 + np.exp(-0.5 * x))).astype(float)
    knots, heights = isotonic(x, labels)
    order = np.argsort(x).reshape(64, 100)
    theirs = IsotonicRegression().fit_transform(x[order].mean(1), labels[order].mean(1))
    assert np.interp(x[order].mean(1), knots, heights) == pytest.approx(theirs, abs=0.06)
    assert sorted(set(heights.round(9))) == pytest.approx(sorted(set(theirs.round(9))))


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-14, 9), st.integers(0, 1)), min_size=1, max_size=300))
def test_an_isotonic_curve_rises_but_not_too_fast(rows: list[tuple[float, int]]) -> None:
    x = np.array([each for each, _ in rows])
    labels = np.array([each for _, each in rows], float)
    knots, heights = isotonic(x, labels)
    assert (np.diff(heights) >= 0).all()
    assert (np.diff(knots) > 0).all()
    assert 0 <= heights.min() <= heights.max() <= 1
    answers = np.linspace(1e-6, 1 - 1e-6, 501)
    flat = Calibrated(None, 1e-6, knots=knots, heights=heights)
    for error in (1.2e-7, -1.2e-7):
        exact, rounded = (flat.curve(log_odds(each, 1e-6)) for each in (answers, answers + error))
        assert np.abs(rounded - exact).max() < 1e-5


@settings(deadline=None)
@given(st.floats(0.2, 3), st.floats(-2, 2))
def test_platt_finds_the_curve_that_made_the_labels(slope: float, intercept: float) -> None:
    x = np.random.default_rng(1).normal(size=50_000) * 2
    labels = (np.random.default_rng(2).random(50_000) < 1 / (1 + np.exp(-(slope * x + intercept)))).astype(float)
    assert platt(x, labels) == pytest.approx((slope, intercept), abs=0.15)


def test_separable_labels_give_a_finite_slope() -> None:
    slope, intercept = platt(np.array([-2.0, -1, 1, 2]), np.array([0.0, 0, 1, 1]))
    assert 0 < slope < 10
    assert intercept == pytest.approx(0, abs=1e-6)


def weighted(data: Any) -> Any:
    return linear(data, class_weight={0: 1, 1: 30})


MADE = {(trees, "isotonic"), (weighted, "platt")}  # in the gate
NATIVE = {("catboost", "isotonic")}


def pairs(kinds: Iterable[Any], gate: Collection[tuple[Any, str]]) -> list[Any]:
    """Return a parameter for each kind by each method; those that `gate` lacks are for the deep run."""
    found = product(kinds, ("platt", "isotonic"))
    return [pytest.param(*each, marks=() if each in gate else deep) for each in found]


@pytest.mark.parametrize(("make", "method"), pairs((trees, forest, weighted), MADE))
def test_probabilities_get_truer_and_the_bundle_has_the_same(make: Any, method: str) -> None:
    data = toy(12_000)
    raw = make(data)
    ours = calibrated(raw, data, method)
    y = data.holdout.y
    before, after = (estimator_scores(each, data.holdout.X, "binary")[:, 0] for each in (raw, ours))
    assert log_loss(y, after) < log_loss(y, before)
    assert abs(after.mean() - y.mean()) < 0.05
    assert auc(y, after) > auc(y, before) - 0.015
    proved = convert(fitted(ours, data), lambda *_: None)
    assert proved.artefact.flavour == "onnx"
    assert proved.scores[:, 0] == pytest.approx(after, abs=1e-5)
    assert proved.metrics["log_loss"] == pytest.approx(log_loss(y, after), abs=1e-4)


def native(name: str, data: Any) -> Any:
    library = pytest.importorskip(name)
    if name == "xgboost":
        made = library.XGBClassifier(n_estimators=60, learning_rate=0.5, n_jobs=1)
    elif name == "lightgbm":
        made = library.LGBMClassifier(n_estimators=60, learning_rate=0.5, n_jobs=1, verbose=-1)
    else:
        made = library.CatBoostClassifier(iterations=60, scale_pos_weight=10, verbose=0, thread_count=1,
                                          allow_writing_files=False)  # fmt: skip
    return made.fit(data.train.X, data.train.y)


@pytest.mark.parametrize(("name", "method"), pairs(("xgboost", "lightgbm", "catboost"), NATIVE))
def test_what_its_framework_runs_itself_has_the_curve_beside_it(name: str, method: str) -> None:
    data = toy(6000).only(["V.a", "V.b"])
    raw = native(name, data)
    ours = calibrated(raw, data, method)
    y, after = data.holdout.y, estimator_scores(ours, data.holdout.X, "binary")[:, 0]
    assert log_loss(y, after) < log_loss(y, estimator_scores(raw, data.holdout.X, "binary")[:, 0])
    proved = convert(fitted(ours, data), lambda *_: None)
    assert proved.artefact.flavour == name
    assert proved.proof.worst < 1e-12
    manifest = Manifest(model="m", task="binary", flavour=name, inputs=proved.inputs, outputs=proved.fitted.outputs,
                        curve=proved.artefact.curve, run_id="", dataset_commit="", features_digest="", code_version="",
                        created_at=0)  # fmt: skip
    golden = golden_file(data.holdout.X, data.dtypes, proved.scores, proved.fitted.outputs, proved.probes, proved.plain)
    files = {proved.artefact.name: proved.artefact.content, "golden.json": golden}
    key = SigningKey(b"c" * 32)
    bundle = seal(manifest, files, key)
    blob = {**files, "manifest.json": encode_manifest(bundle.manifest), "signature": bundle.signature}
    assert open_blob(bundle.digest, blob, key.public).manifest.curve == proved.artefact.curve is not None
    load = executors(SimpleNamespace())  # type: ignore[arg-type]
    warm_up(bundle, load(bundle))
    uncalibrated = Bundle(bundle.digest, msgspec.structs.replace(bundle.manifest, curve=None), bundle.files)
    with pytest.raises(Corrupt, match="golden row"):
        warm_up(uncalibrated, load(uncalibrated))


def test_what_cannot_be_calibrated() -> None:
    data = toy()
    fitted = linear(data)
    with pytest.raises(Invalid, match="'beta'"):
        calibrated(fitted, data, "beta")
    with pytest.raises(Invalid, match="multiclass"):
        calibrated(fitted, toy(task="multiclass"))
    data.validation.y[:] = 1
    with pytest.raises(InvalidData, match="label 1"):
        calibrated(fitted, data)


def test_log_odds_stay_within_what_float32_tells_apart() -> None:
    x = log_odds(np.array([0, 1e-9, 0.5, 1 - 1e-9, 1]), 1e-4)
    assert x.tolist() == pytest.approx([-9.2102, -9.2102, 0, 9.2102, 9.2102], abs=1e-3)
    flat = Calibrated(None, 1e-4, knots=np.array([0.0, 1.0]), heights=np.array([0.2, 0.4]))
    assert flat.curve(np.array([-9.0, 0.5, 9.0])).tolist() == pytest.approx([0.2, 0.3, 0.4])
