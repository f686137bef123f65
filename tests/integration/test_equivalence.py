"""Estimators become ONNX models that answer as they do, or are refused by name with the row that shows it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, PowerTransformer, StandardScaler
from sklearn.svm import LinearSVC

from kit.depth import deep
from kit.flavours import prove
from mainspring.core.errors import Invalid, NotConvertible
from mainspring.core.schema import DType
from mainspring.registry.model import Input
from mainspring.registry.onnx_file import check_onnx
from mainspring.training.equivalence.check import Proof, fresh
from mainspring.training.equivalence.rows import HELD_OUT, MADE, ROWS, at_even_steps, plain_rows
from mainspring.training.flavours import Artefact
from mainspring.training.flavours.scoring import open_session, session_scores
from mainspring.training.flavours.sklearn import to_onnx

CATEGORIES, NUMBERS = ["Order.kind", "Order.shop"], ["Order.weight", "Traffic.visits"]
INPUTS = [
    Input("Order.weight", DType.Float32),
    Input("Order.kind", DType.String),
    Input("Traffic.visits", DType.Int64),
    Input("Order.shop", DType.String),
]


def make_frame(rows: int = 3000) -> pd.DataFrame:
    """Numbers with nulls, strings with nulls, one column of strings without."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=rows).astype(np.float32)
    weight[::7] = np.nan
    return pd.DataFrame(
        {
            "Order.weight": weight,
            "Order.kind": pd.Series(rng.choice(np.array(["bread", "cake", "pie", None], object), rows), dtype=object),
            "Traffic.visits": rng.integers(0, 60, rows).astype(np.float64),
            "Order.shop": pd.Series(rng.choice(np.array(["north", "süd"], object), rows), dtype=object),
        }
    )


FRAME = make_frame()
PULL = np.nan_to_num(FRAME["Order.weight"]) + (FRAME["Order.kind"] == "cake") * 1.5 + FRAME["Traffic.visits"] / 30
NOISY = PULL + np.random.default_rng(1).normal(size=len(FRAME))
Y = NOISY.gt(np.median(NOISY)).astype(np.int64).to_numpy()


def one_hot(**options: Any) -> OneHotEncoder:
    return OneHotEncoder(**{"handle_unknown": "ignore", "sparse_output": False, **options})


def ordinal(**options: Any) -> OrdinalEncoder:
    return OrdinalEncoder(**{"handle_unknown": "use_encoded_value", "unknown_value": -1, **options})


def columns(encoder: Any, numbers: Any = "passthrough") -> ColumnTransformer:
    return ColumnTransformer([("kinds", encoder, CATEGORIES), ("numbers", numbers, NUMBERS)])


def trees(count: int = 20, **options: Any) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(max_iter=count, random_state=0, **options)


def proved(
    estimator: Any, task: str = "binary", *, y: Any = Y, frame: pd.DataFrame = FRAME, inputs: Any = None, wide: Any = ()
) -> Proof:
    inputs = INPUTS if inputs is None else inputs
    half = len(frame) // 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(frame[:half], y[:half])
    content = to_onnx(estimator, inputs, task, wide=wide)
    check_onnx(content)
    return prove(estimator, as_file(content), frame[half:].reset_index(drop=True), inputs, task, wide=wide)


def as_file(content: bytes) -> Artefact:
    return Artefact("onnx", "model.onnx", content)


CONVERTIBLE: dict[str, Any] = {
    "histogram trees, one-hot": lambda: make_pipeline(columns(one_hot()), trees(60)),
    "histogram trees, ordinal": lambda: make_pipeline(columns(ordinal()), trees(60)),
    "unknown is NaN": lambda: make_pipeline(columns(ordinal(unknown_value=np.nan)), trees()),
    "null has a code": lambda: make_pipeline(columns(ordinal(encoded_missing_value=-2)), trees()),
    "rare kinds together": lambda: make_pipeline(columns(ordinal(min_frequency=0.3)), trees()),
    "rare kinds together, one-hot": lambda: make_pipeline(columns(one_hot(min_frequency=0.3)), trees()),
    "first kind dropped": lambda: make_pipeline(columns(one_hot(drop="first")), trees()),
    "sparse": lambda: make_pipeline(
        columns(one_hot(sparse_output=True), make_pipeline(SimpleImputer(), StandardScaler())), LogisticRegression()
    ),
    "random forest": lambda: make_pipeline(
        columns(one_hot(), SimpleImputer()), RandomForestClassifier(20, random_state=0)
    ),
    "extra trees": lambda: make_pipeline(
        columns(one_hot(), SimpleImputer(strategy="median")), ExtraTreesClassifier(10, max_depth=6, random_state=0)
    ),
    "gradient boosting": lambda: make_pipeline(
        columns(one_hot(), SimpleImputer()), GradientBoostingClassifier(n_estimators=20, random_state=0)
    ),
    "missing marked": lambda: make_pipeline(
        columns(one_hot(), SimpleImputer(strategy="constant", fill_value=-7.0)), trees()
    ),
    "constant": lambda: make_pipeline(columns(one_hot()), DummyClassifier(strategy="prior")),
    "likeliest class": lambda: DummyClassifier(strategy="most_frequent"),
    "nulls that a forest sends their own way": lambda: make_pipeline(
        columns(one_hot()), RandomForestClassifier(20, max_depth=6, random_state=0)
    ),
    "one column left out": lambda: make_pipeline(ColumnTransformer([("n", "passthrough", NUMBERS)]), trees()),
}


@pytest.mark.parametrize("name", CONVERTIBLE)
def test_a_bundle_answers_as_its_estimator(name: str) -> None:
    proof = proved(CONVERTIBLE[name]())
    assert proof.rows >= ROWS + proof.probes
    assert proof.worst < 1e-6


def test_thresholds_are_probed() -> None:
    """Each of a tree's thresholds brings three rows; a model without trees is probed at quantiles."""
    with_trees = proved(make_pipeline(columns(ordinal()), trees(150)))
    without = proved(make_pipeline(columns(ordinal(), SimpleImputer()), LogisticRegression()))
    assert with_trees.probes > 500 > without.probes > 100


NUMERIC_INPUTS = [INPUTS[0], INPUTS[2]]


@pytest.mark.parametrize(
    "estimator",
    [
        trees(),
        CalibratedClassifierCV(trees(5), cv=2),
        make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()),
        Pipeline([("forest", make_pipeline(SimpleImputer(), RandomForestClassifier(5, random_state=0)))]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_estimators_on_bare_columns(estimator: Any) -> None:
    assert proved(estimator, frame=FRAME[NUMBERS], inputs=NUMERIC_INPUTS).worst < 1e-6


def test_names_that_differ_only_in_what_converters_replace() -> None:
    frame = FRAME[NUMBERS].astype(np.float32).set_axis(["A.b_c", "A_b.c"], axis=1)
    inputs = [Input("A.b_c", DType.Float32), Input("A_b.c", DType.Float32)]
    assert proved(trees(), frame=frame, inputs=inputs).worst < 1e-6
    content = to_onnx(trees().fit(frame, Y), inputs, "binary")
    assert [each.name for each in open_session(content).get_inputs()] == ["A.b_c", "A_b.c"]


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(columns(ordinal()), HistGradientBoostingRegressor(max_iter=50, random_state=0)),
        make_pipeline(columns(one_hot(), SimpleImputer()), Ridge()),
        make_pipeline(columns(one_hot()), DummyRegressor(strategy="mean")),
    ],
    ids=["trees", "ridge", "mean"],
)
@pytest.mark.parametrize("scale", [pytest.param(1.0, marks=deep), 100.0])
def test_regressions(estimator: Any, scale: float) -> None:
    assert proved(estimator, "regression", y=NOISY.to_numpy() * scale).worst < 1e-5


@pytest.mark.parametrize(
    "names", [pytest.param(["a", "b", "c"], marks=deep), ["label", "probabilities", "Order.x"], [0, 1, 2]]
)
def test_several_classes_are_several_outputs(names: list[Any]) -> None:
    y = np.array(names)[np.digitize(NOISY, np.quantile(NOISY, [0.3, 0.6]))]
    estimator = make_pipeline(columns(ordinal()), trees(10))
    assert proved(estimator, "multiclass", y=y).worst < 1e-6
    session = open_session(to_onnx(estimator, INPUTS, "multiclass"))
    assert [each.name for each in session.get_outputs()] == sorted(str(name) for name in names)


def test_a_class_named_like_a_feature_is_refused() -> None:
    y = np.array(["a", "Order.kind", "c"])[np.digitize(NOISY, np.quantile(NOISY, [0.3, 0.6]))]
    with pytest.raises(NotConvertible, match=r"Order\.kind"):
        proved(make_pipeline(columns(ordinal()), trees(5)), "multiclass", y=y)


def test_inputs_and_outputs_have_our_names_and_shapes() -> None:
    content = to_onnx(make_pipeline(columns(ordinal()), trees(5)).fit(FRAME, Y), INPUTS, "binary")
    session = open_session(content)
    assert [(each.name, each.type, each.shape) for each in session.get_inputs()] == [
        ("Order.weight", "tensor(float)", [None, 1]),
        ("Order.kind", "tensor(string)", [None, 1]),
        ("Traffic.visits", "tensor(float)", [None, 1]),
        ("Order.shop", "tensor(string)", [None, 1]),
    ]
    assert [(each.name, each.shape) for each in session.get_outputs()] == [("probability", [None])]
    onnx.checker.check_model(onnx.load_from_string(content))


# Columns that float32 cannot hold


LARGE = FRAME.assign(**{"Traffic.visits": 1.7e9 + FRAME["Traffic.visits"] + 0.37})


@pytest.mark.parametrize("shape", ["pipeline", "bare"])
@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_trees_take_them_as_float64(shape: str, kind: str) -> None:
    last: Any = trees(50) if kind == "classifier" else HistGradientBoostingRegressor(max_iter=50, random_state=0)
    task, y = ("binary", Y) if kind == "classifier" else ("regression", NOISY.to_numpy())
    wide = ("Traffic.visits",)
    if shape == "pipeline":
        proof = proved(make_pipeline(columns(ordinal()), last), task, y=y, frame=LARGE, wide=wide)
    else:
        proof = proved(last, task, y=y, frame=LARGE[NUMBERS], inputs=NUMERIC_INPUTS, wide=wide)
    assert proof.worst < 1e-6
    assert proof.probes > 100


def test_as_float32_they_would_be_wrong() -> None:
    with pytest.raises(NotConvertible, match=r"Traffic\.visits"):
        proved(make_pipeline(columns(ordinal()), trees(50)), frame=LARGE)


def test_linear_models_take_them_as_float64() -> None:
    linear = make_pipeline(columns(one_hot(), make_pipeline(SimpleImputer(), StandardScaler())), LogisticRegression())
    assert proved(linear, frame=LARGE, wide=("Traffic.visits",)).worst < 1e-6


def test_what_converts_in_float32_only_is_refused_by_column() -> None:
    estimator = make_pipeline(
        columns(one_hot(), make_pipeline(SimpleImputer(), PowerTransformer())), LogisticRegression()
    )
    with pytest.raises(NotConvertible, match=r"LogisticRegression.*\['Traffic\.visits'\]"):
        proved(estimator, frame=LARGE, wide=("Traffic.visits",))


# Refusals


REFUSED: dict[str, tuple[Any, str]] = {
    "categorical splits": (
        lambda: make_pipeline(columns(ordinal()), trees(5, categorical_features=[0, 1])),
        r"HistGradientBoostingClassifier with categorical_features=\[0, 1\]",
    ),
    "one-hot that raises": (lambda: make_pipeline(columns(OneHotEncoder()), trees(5)), "OneHotEncoder.*handle_unknown"),
    "ordinal that raises": (lambda: make_pipeline(columns(OrdinalEncoder()), trees(5)), "OrdinalEncoder.*handle_unkno"),
    "rare or unseen": (
        lambda: make_pipeline(columns(one_hot(handle_unknown="infrequent_if_exist", min_frequency=0.3)), trees(5)),
        "OneHotEncoder.*infrequent_if_exist",
    ),
    "not probabilities": (lambda: make_pipeline(columns(one_hot(), SimpleImputer()), LinearSVC()), "predict_proba"),
    "a regressor": (lambda: make_pipeline(columns(one_hot(), SimpleImputer()), LinearRegression()), "predict_proba"),
    "random answers": (lambda: DummyClassifier(strategy="stratified"), "at random"),
    "a scaler before trees": (
        lambda: make_pipeline(columns(one_hot(), make_pipeline(SimpleImputer(), StandardScaler())),
                              RandomForestClassifier(20, random_state=0)),
        r"rows .*Order\.weight=.*Traffic\.visits=",
    ),
    "what its converter gets wrong": (
        lambda: make_pipeline(columns(one_hot(), SimpleImputer()), LinearDiscriminantAnalysis()),
        r"rows .*Order\.weight=.*Traffic\.visits=",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_answer_otherwise_is_refused(name: str) -> None:
    made, message = REFUSED[name]
    with pytest.raises(NotConvertible, match=message):
        proved(made())


def test_an_estimator_without_an_answer_to_null_is_refused_by_column() -> None:
    frame = FRAME.assign(**{"Order.weight": FRAME["Order.weight"].fillna(0)})
    with pytest.raises(NotConvertible, match=r"Order\.weight null.*NaN"):
        proved(make_pipeline(columns(one_hot()), LogisticRegression()), frame=frame)


def test_a_classifier_for_a_regression_is_refused() -> None:
    with pytest.raises(NotConvertible, match="classifier"):
        proved(make_pipeline(columns(one_hot()), trees(5)), "regression")


def test_labels_other_than_0_and_1_are_refused() -> None:
    with pytest.raises(NotConvertible, match=r"\[1, 2\]"):
        proved(make_pipeline(columns(one_hot()), trees(5)), y=Y + 1)


def test_an_estimator_fitted_on_some_of_the_columns_is_refused() -> None:
    with pytest.raises(NotConvertible, match="ColumnTransformer"):
        to_onnx(trees(5).fit(FRAME[NUMBERS], Y), INPUTS, "binary")


def test_an_instant_is_no_input() -> None:
    with pytest.raises(Invalid, match=r"'Order\.at'"):
        to_onnx(trees(5).fit(FRAME[NUMBERS], Y), [Input("Order.at", DType.Timestamp)], "binary")


# The proof itself


def other_than(estimator: Any) -> bytes:
    changed = trees(21).fit(FRAME[NUMBERS], 1 - Y)
    assert type(estimator) is type(changed)
    return to_onnx(changed, NUMERIC_INPUTS, "binary")


def test_another_model_is_noticed_with_the_worst_row() -> None:
    estimator = trees(20).fit(FRAME[NUMBERS], Y)
    with pytest.raises(NotConvertible) as refused:
        prove(estimator, as_file(other_than(estimator)), FRAME[NUMBERS], NUMERIC_INPUTS, "binary")
    words = refused.value.what
    assert "Order.weight=" in words
    assert "Traffic.visits=" in words
    assert "by the estimator" in words


class Doubled:
    """A regression that doubles its column, null taken for 0."""

    def predict(self, frame: pd.DataFrame) -> np.ndarray[Any, Any]:
        return np.nan_to_num(frame["V.x"].to_numpy()) * 2


def doubling(wrong_up_to: int) -> bytes:
    """A model that doubles its input, and adds 0.1 if it is given at most so many rows at once."""
    nodes = [
        helper.make_node("Reshape", ["V.x", "flat"], ["raw"]),
        helper.make_node("IsNaN", ["raw"], ["null"]),
        helper.make_node("Where", ["null", "zero", "raw"], ["x"]),
        helper.make_node("Mul", ["x", "two"], ["double"]),
        helper.make_node("Shape", ["x"], ["rows"]),
        helper.make_node("LessOrEqual", ["rows", "limit"], ["few"]),
        helper.make_node("Cast", ["few"], ["one"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["one", "tenth"], ["more"]),
        helper.make_node("Add", ["double", "more"], ["value"]),
    ]
    constants = [
        helper.make_tensor("flat", TensorProto.INT64, [1], [-1]),
        helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]),
        helper.make_tensor("two", TensorProto.FLOAT, [1], [2.0]),
        helper.make_tensor("limit", TensorProto.INT64, [1], [wrong_up_to]),
        helper.make_tensor("tenth", TensorProto.FLOAT, [1], [0.1]),
    ]
    graph = helper.make_graph(
        nodes,
        "doubling",
        [helper.make_tensor_value_info("V.x", TensorProto.FLOAT, [None, 1])],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, [None])],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(made.SerializeToString())


@pytest.mark.parametrize(("wrong_up_to", "how"), [(1, "one by one"), (61, "in small batches"), (9999, "in one batch")])
def test_an_answer_that_depends_on_batch_mates_is_noticed(wrong_up_to: int, how: str) -> None:
    frame = pd.DataFrame({"V.x": np.random.default_rng(0).normal(size=500).astype(np.float32)})
    inputs = [Input("V.x", DType.Float32)]
    assert prove(Doubled(), as_file(doubling(0)), frame, inputs, "regression").worst < 1e-6
    with pytest.raises(NotConvertible, match=how):
        prove(Doubled(), as_file(doubling(wrong_up_to)), frame, inputs, "regression")


def test_what_does_not_run_is_refused() -> None:
    with pytest.raises(NotConvertible, match="cannot run"):
        prove(
            Doubled(), as_file(b"\x08\x09"), pd.DataFrame({"V.x": [1.0]}), [Input("V.x", DType.Float32)], "regression"
        )


def test_the_fresh_process_imports_nothing_of_ours() -> None:
    lines = [line.strip() for line in Path(fresh.__file__).read_text().splitlines()]
    found = {line.split()[1].partition(".")[0] for line in lines if line.startswith(("import ", "from "))}
    own = {"__future__", "collections", "json", "sys", "pathlib", "typing"}
    assert found == own | {"numpy", "onnxruntime", "xgboost", "lightgbm", "catboost"}


def test_scores_of_a_session_do_not_depend_on_the_size_of_its_batches() -> None:
    content = to_onnx(trees(20).fit(FRAME[NUMBERS], Y), NUMERIC_INPUTS, "binary")
    session = open_session(content)
    many = pd.concat([FRAME[NUMBERS]] * 4, ignore_index=True)  # more than one batch
    found = session_scores(session, many, ("probability",), len(many))
    assert np.array_equal(found[: len(FRAME)], session_scores(session, FRAME, ("probability",), len(FRAME)))


class Undecided(Doubled):
    """A regression that answers NaN to null."""

    def predict(self, frame: pd.DataFrame) -> np.ndarray[Any, Any]:
        return frame["V.x"].to_numpy() * 2


class Normed(Doubled):
    """A regression that compares each row with the mean of those beside it."""

    def predict(self, frame: pd.DataFrame) -> np.ndarray[Any, Any]:
        x = np.nan_to_num(frame["V.x"].to_numpy())
        return x - x.mean()


@pytest.mark.parametrize(
    ("estimator", "said"),
    [(Undecided(), r"predicts nan as value for 9 of .*V\.x null"), (Normed(), "depends on the rows beside it")],
)
def test_an_estimator_that_answers_nothing_or_by_its_batch_is_refused(estimator: Doubled, said: str) -> None:
    frame = pd.DataFrame({"V.x": np.random.default_rng(0).normal(size=500).astype(np.float32)})
    with pytest.raises(NotConvertible, match=said):
        prove(estimator, as_file(doubling(0)), frame, [Input("V.x", DType.Float32)], "regression")


# The rows that are compared


def test_what_is_missing_to_ten_thousand_is_made_of_held_out_values_and_not_drawn_again() -> None:
    frame, words = plain_rows(FRAME, np.random.default_rng(0))
    assert len(frame) == ROWS
    assert (words.count(HELD_OUT), words.count(MADE)) == (len(FRAME), ROWS - len(FRAME))
    pd.testing.assert_frame_equal(frame[: len(FRAME)], FRAME)
    assert frame.dtypes.equals(FRAME.dtypes)
    seen = set(FRAME.fillna(-1).itertuples(index=False, name=None))
    new = [row for row in frame[len(FRAME) :].fillna(-1).itertuples(index=False, name=None) if row not in seen]
    assert len(new) > 0.9 * words.count(MADE)
    for name in frame.columns:
        assert set(frame[name].fillna(-1)) == set(FRAME[name].fillna(-1))
    assert not any(isinstance(value, float) for value in frame["Order.kind"])  # null texts stay None


def test_of_many_rows_they_are_taken_evenly() -> None:
    frame, words = plain_rows(pd.DataFrame({"V.x": np.arange(45_000.0)}), np.random.default_rng(0))
    assert (len(frame), set(words)) == (40_000, {HELD_OUT})
    assert (frame["V.x"].iloc[0], frame["V.x"].iloc[-1]) == (0, 44_999)
    assert frame["V.x"].diff().max() == 2
    assert len(at_even_steps(frame, ROWS)) == ROWS


def combining() -> bytes:
    """A model that doubles `V.a`, and is off where `V.a`, `V.b` and `V.c` are three different numbers."""
    names = ["a", "b", "c"]
    nodes = []
    for name in names:
        nodes += [
            helper.make_node("Reshape", [f"V.{name}", "flat"], [f"raw_{name}"]),
            helper.make_node("IsNaN", [f"raw_{name}"], [f"null_{name}"]),
            helper.make_node("Where", [f"null_{name}", "zero", f"raw_{name}"], [name]),
        ]
    for first, second in (("a", "b"), ("b", "c"), ("a", "c")):
        nodes.append(helper.make_node("Sub", [first, second], [first + second]))
    nodes += [
        helper.make_node("Mul", ["ab", "bc"], ["two_differ"]),
        helper.make_node("Mul", ["two_differ", "ac"], ["all_differ"]),
        helper.make_node("Add", ["a", "a"], ["double"]),
        helper.make_node("Add", ["double", "all_differ"], ["value"]),
    ]
    graph = helper.make_graph(
        nodes,
        "combining",
        [helper.make_tensor_value_info(f"V.{name}", TensorProto.FLOAT, [None, 1]) for name in names],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, [None])],
        [
            helper.make_tensor("flat", TensorProto.INT64, [1], [-1]),
            helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(made.SerializeToString())


class DoubledFirst(Doubled):
    def predict(self, frame: pd.DataFrame) -> np.ndarray[Any, Any]:
        return np.nan_to_num(frame["V.a"].to_numpy()) * 2


def test_combinations_that_were_never_held_out_are_compared_too() -> None:
    """Three columns that are always alike where held out; a probe changes one, and only a made row all of them."""
    x = np.random.default_rng(0).normal(size=500).astype(np.float32)
    frame = pd.DataFrame({"V.a": x, "V.b": x, "V.c": x})
    with pytest.raises(NotConvertible, match=r"9\d\d\d of \d+ rows.*The worst \(made of held-out values\)"):
        prove(DoubledFirst(), as_file(combining()), frame, [Input(name, DType.Float32) for name in frame], "regression")
