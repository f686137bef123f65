"""Contributions add up to the model's own sum, and are its Shapley values."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import msgspec
import numpy as np
import pytest

from kit.explained import Explained, brute_force, explained, sealed_with
from kit.models import function_bundle, mlp_bundle, sealed
from mainspring.core.errors import Invalid
from mainspring.core.schema import DType
from mainspring.project.explainers import load_explainer
from mainspring.registry.bundles import GOLDEN
from mainspring.registry.model import Input, TensorSpec
from mainspring.serving.adapters.curved import CurvedExecutor
from mainspring.serving.background import background_of
from mainspring.serving.explanation import ANSWER, LOG_ODDS, SCORES, NotExplainable, explanations
from mainspring.training.conformance import CASES

INTERVENTIONAL = ["sklearn_trees", "sklearn_linear", "sklearn_forest"]
RECORDED = ["xgboost", "lightgbm", "catboost"]
TEXTS, CLASSES, REGRESSION = "texts", "several classes", "regression around 1e6"


@pytest.mark.parametrize("case", [TEXTS, CLASSES, REGRESSION])
@pytest.mark.parametrize("kind", [*INTERVENTIONAL, *RECORDED])
def test_contributions_add_up_to_the_sum_behind_the_answer(kind: str, case: str) -> None:
    if kind in RECORDED:
        pytest.importorskip(kind)
    made = explained(kind, case)
    explainer = load_explainer(made.bundle)
    found = explainer.explain(made.rows, made.count)
    assert found.values.shape == (made.count, len(explainer.inputs), len(explainer.outputs))
    assert found.additive.all(), np.abs(found.residual).max()
    assert np.abs(found.values).max() > 0.01
    answers = np.column_stack(list(answers_of(made).values()))
    sums = np.asarray(found.base + found.values.sum(axis=1))
    expected: Any = {
        ANSWER: lambda: sums,
        LOG_ODDS: lambda: 1 / (1 + np.exp(-sums)),
        SCORES: lambda: np.exp(sums) / np.exp(sums).sum(axis=1, keepdims=True),
    }[explainer.method.space]()
    np.testing.assert_allclose(expected, answers, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", [TEXTS, CLASSES, REGRESSION])
@pytest.mark.parametrize("kind", INTERVENTIONAL)
def test_they_are_the_shapley_values_of_the_model_over_the_bundles_own_rows(kind: str, case: str) -> None:
    made = explained(kind, case)
    explainer: Any = load_explainer(made.bundle)
    found = explainer.explain({name: values[:4] for name, values in made.rows.items()}, 4)
    background, rows = background_of(made.bundle)
    assert explainer.method.background == rows == 100
    for row in range(4):
        one = {name: values[row] for name, values in made.rows.items()}
        expected = brute_force(lambda mixed, count: explainer._run(mixed, count)[1], one, background)
        np.testing.assert_allclose(found.values[row], expected, rtol=1e-9, atol=1e-7)


def test_a_null_and_an_unseen_text_are_explained_as_they_are_answered() -> None:
    made = explained("sklearn_linear", TEXTS)
    explainer: Any = load_explainer(made.bundle)
    rows = {name: [values[0]] * 2 for name, values in made.rows.items()}
    rows |= {"V.a": [None, 1.0], "V.kind": ["a text never seen", None]}
    found = explainer.explain(rows, 2)
    assert found.additive.all()
    background, _ = background_of(made.bundle)
    for row in range(2):
        one = {name: values[row] for name, values in rows.items()}
        expected = brute_force(lambda mixed, count: explainer._run(mixed, count)[1], one, background)
        np.testing.assert_allclose(found.values[row], expected, rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("kind", RECORDED)
def test_a_library_of_trees_gives_its_own_contributions(kind: str) -> None:
    library = pytest.importorskip(kind)
    made = explained(kind, "float32, booleans")
    explainer = load_explainer(made.bundle)
    found = explainer.explain(made.rows, made.count).values[:, :, 0]
    if kind == "xgboost":
        data = library.DMatrix(made.frame.to_numpy(np.float32))
        booster = made.estimator.get_booster()
        expected = booster.predict(data, pred_contribs=True, validate_features=False)[:, :-1]
    elif kind == "lightgbm":
        expected = made.estimator.predict_proba(made.frame, pred_contrib=True)[:, :-1]
    else:
        expected = made.estimator.get_feature_importance(library.Pool(made.frame), type="ShapValues")[:, :-1]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_curve_of_a_calibrated_model_is_named_and_left_out() -> None:
    def fit(frame: Any, y: Any, task: str) -> Any:
        from kit.flavours import sklearn_trees
        from mainspring.training.flavours.calibration import Calibrated

        return Calibrated(sklearn_trees(frame, y, task), 1e-4, slope=0.7, intercept=0.1)

    made = sealed_with(fit, CASES["float32, booleans"])
    explainer = load_explainer(made.bundle)
    assert (explainer.method.space, explainer.method.calibrated) == (LOG_ODDS, True)
    found = explainer.explain(made.rows, made.count)
    assert found.additive.all()
    sums = (found.base + found.values.sum(axis=1))[:, 0]
    (answers,) = answers_of(made).values()
    np.testing.assert_allclose(1 / (1 + np.exp(-(0.7 * sums + 0.1))), answers, atol=1e-5)


def test_columns_that_a_step_mixes_are_refused() -> None:
    def fit(frame: Any, y: Any, task: str) -> Any:
        from sklearn.decomposition import PCA
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.impute import SimpleImputer
        from sklearn.pipeline import make_pipeline

        return make_pipeline(SimpleImputer(), PCA(2), HistGradientBoostingClassifier(max_iter=5)).fit(frame, y)

    made = sealed_with(fit, CASES["float32, booleans"])
    with pytest.raises(NotExplainable, match=r"from 'V\.b' and other columns together.*--sampled"):
        load_explainer(made.bundle)


def test_other_models_are_refused_with_the_reason() -> None:
    made = explained("sklearn_mlp", "float32, booleans")
    with pytest.raises(NotExplainable, match="one sum of trees or one linear function"):
        load_explainer(made.bundle)
    with pytest.raises(NotExplainable, match="it takes tensors, not columns"):
        load_explainer(mlp_bundle())
    spec = (TensorSpec("x", "FP32", (-1, 3)),)
    with pytest.raises(NotExplainable, match="it takes tensors, not columns"):
        load_explainer(function_bundle("m:f", "0" * 64, spec, spec))


def test_a_bundle_without_rows_is_refused() -> None:
    made = explained("sklearn_trees", TEXTS)
    files = {name: content for name, content in made.bundle.files.items() if name != GOLDEN}
    with pytest.raises(NotExplainable, match="no rows to compare with"):
        load_explainer(replace(made.bundle, files=files))


def test_a_value_that_the_model_refuses_is_refused() -> None:
    made = explained("sklearn_trees", TEXTS)
    with pytest.raises(Invalid, match=r"V\.a"):
        load_explainer(made.bundle).explain({**made.rows, "V.a": ["text"] * made.count}, made.count)


def test_an_unexplained_rest_is_reported_and_not_called_exact() -> None:
    made = explained("sklearn_trees", TEXTS)
    explainer = load_explainer(made.bundle)
    found = explainer.explain({name: values[:2] for name, values in made.rows.items()}, 2)
    right, wrong = explanations(
        replace(found, total=found.total + np.array([[0.0], [0.01]])),
        explainer.method,
        list(explainer.inputs),
        ["probability"],
    )
    assert right.exact
    assert right.residual < 1e-9
    assert not wrong.exact
    assert wrong.residual == pytest.approx(0.01)


def answers_of(made: Explained) -> dict[str, Any]:
    flavour = made.bundle.manifest.flavour
    module = import_module(f"mainspring.serving.adapters.{flavour}")
    executor: Any = getattr(module, f"{flavour.capitalize()}Executor")(made.bundle)
    if made.bundle.manifest.curve is not None:
        executor = CurvedExecutor(executor, made.bundle.manifest.curve)
    found: dict[str, Any] = executor.predict(made.rows, made.count)
    return found


def test_an_imported_graph_whose_outputs_have_names_of_their_own() -> None:
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(300, 3)).astype(np.float32)
    fitted = LogisticRegression().fit(matrix, matrix[:, 0] - matrix[:, 1] > 0)
    content = to_onnx(fitted, matrix[:1], options={"zipmap": False}, target_opset={"": 18, "ai.onnx.ml": 3})
    names = ["V.a", "V.b", "V.c"]
    columns = {name: matrix[:50, place].tolist() for place, name in enumerate(names)}
    golden = {"inputs": columns, "outputs": {"probability": fitted.predict_proba(matrix[:50])[:, 1].tolist()}}
    bundle = sealed(
        "onnx",
        {"model.onnx": content.SerializeToString(), GOLDEN: msgspec.json.encode(golden)},
        task="binary",
        inputs=tuple(Input(name, DType.Float32) for name in names),
        outputs=("probability",),
    )
    explainer = load_explainer(bundle)
    found = explainer.explain(columns, 50)
    assert (explainer.method.name, explainer.method.space) == ("linear", LOG_ODDS)
    assert found.additive.all()
    expected = (matrix[:50] - matrix[:50].mean(axis=0)) * fitted.coef_[0]
    np.testing.assert_allclose(found.values[:, :, 0], expected, atol=1e-5)
