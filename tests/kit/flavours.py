"""A small estimator of every framework, for the conformance suite and for the table in docs/reference/flavours.md."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from mainspring.registry.model import Input
from mainspring.training.equivalence import check
from mainspring.training.equivalence.rows import proof_rows
from mainspring.training.flavours import Artefact
from mainspring.training.frames import seen_texts, to_categories

TREES = 20
os.environ.setdefault("KERAS_BACKEND", "torch")  # Keras reads it when it is first imported


def sklearn_trees(frame: Any, y: Any, task: str) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    last = (HistGradientBoostingRegressor if task == "regression" else HistGradientBoostingClassifier)(
        max_iter=TREES, random_state=0
    )
    texts = [name for name in frame.columns if frame[name].dtype == object]
    if not texts:
        return last.fit(frame, y)
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    return make_pipeline(ColumnTransformer([("texts", encoder, texts)], remainder="passthrough"), last).fit(frame, y)


def sklearn_linear(frame: Any, y: Any, task: str) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    texts = [name for name in frame.columns if frame[name].dtype == object]
    numbers = [name for name in frame.columns if name not in texts]
    parts = [("numbers", make_pipeline(SimpleImputer(), StandardScaler()), numbers)]
    if texts:
        parts.append(("texts", OneHotEncoder(handle_unknown="ignore", sparse_output=False), texts))
    last = Ridge() if task == "regression" else LogisticRegression()
    return make_pipeline(ColumnTransformer(parts), last).fit(frame, y)


def sklearn_forest(frame: Any, y: Any, task: str) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    kind = RandomForestRegressor if task == "regression" else ExtraTreesClassifier
    last = kind(TREES, max_depth=6, random_state=0)
    texts = [name for name in frame.columns if frame[name].dtype == object]
    if not texts:
        return last.fit(frame, y)
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return make_pipeline(ColumnTransformer([("texts", encoder, texts)], remainder="passthrough"), last).fit(frame, y)


def sklearn_mlp(frame: Any, y: Any, task: str) -> Any:
    from sklearn.impute import SimpleImputer
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline

    return make_pipeline(SimpleImputer(), MLPClassifier((8,), tol=1.0, random_state=0)).fit(frame, y)


def _numbers(frame: Any) -> Any:
    """Where texts would not even fit: the conversion is what refuses them."""
    return frame.select_dtypes("number")


def _categories(frame: Any) -> Any:
    texts = [name for name in frame.columns if frame[name].dtype == object]
    return to_categories(frame, {name: seen_texts(frame[name]) for name in texts})


def xgboost(frame: Any, y: Any, task: str) -> Any:
    import xgboost

    kind = xgboost.XGBRegressor if task == "regression" else xgboost.XGBClassifier
    return kind(n_estimators=TREES, n_jobs=1, random_state=0, enable_categorical=True).fit(_categories(frame), y)


def lightgbm(frame: Any, y: Any, task: str) -> Any:
    import lightgbm

    kind = lightgbm.LGBMRegressor if task == "regression" else lightgbm.LGBMClassifier
    return kind(n_estimators=TREES, n_jobs=1, random_state=0, verbose=-1).fit(_categories(frame), y)


def catboost(frame: Any, y: Any, task: str) -> Any:
    import catboost

    kind = catboost.CatBoostRegressor if task == "regression" else catboost.CatBoostClassifier
    texts = [name for name in frame.columns if frame[name].dtype == object]
    filled = frame.assign(**{name: [value or "" for value in frame[name]] for name in texts})
    made = kind(iterations=TREES, thread_count=1, random_seed=0, verbose=0, allow_writing_files=False)
    return made.fit(filled, y, cat_features=texts)


def torch(frame: Any, y: Any, task: str) -> Any:
    return _torch(frame, y, task)


def torch_float64(frame: Any, y: Any, task: str) -> Any:
    return _torch(frame, y, task, double=True)


def _torch(frame: Any, y: Any, task: str, *, double: bool = False) -> Any:
    import torch

    matrix = _numbers(frame).to_numpy(np.float64)
    centre, spread = np.nanmean(matrix, axis=0), np.nanstd(matrix, axis=0)
    outputs = 3 if task == "multiclass" else 1

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = torch.nn.Linear(matrix.shape[1], 8)
            self.norm = torch.nn.BatchNorm1d(8)
            self.last = torch.nn.Linear(8, outputs)
            self.register_buffer("centre", torch.tensor(centre, dtype=torch.float64 if double else torch.float32))
            self.register_buffer("spread", torch.tensor(spread, dtype=torch.float64 if double else torch.float32))
            self.classes_ = [0, 1, 2]

        def forward(self, x: Any) -> Any:
            known = torch.where(torch.isnan(x), self.centre, x)
            answer = self.last(torch.tanh(self.norm(self.hidden((known - self.centre) / self.spread))))
            if task == "regression":
                return answer[:, 0] * 10 + 1e6
            return torch.sigmoid(answer[:, 0]) if task == "binary" else torch.softmax(answer, dim=1)

    torch.manual_seed(0)
    net = Net()
    net = net.double() if double else net
    with torch.no_grad():  # running statistics of the batch norm; nothing else is learnt
        net(torch.tensor(matrix, dtype=torch.float64 if double else torch.float32))
    return net


def keras(frame: Any, y: Any, task: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras

    class Filled(keras.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return keras.ops.where(keras.ops.isnan(x), keras.ops.zeros_like(x), x)

    keras.utils.set_random_seed(0)
    last = {
        "binary": keras.layers.Dense(1, activation="sigmoid"),
        "multiclass": keras.layers.Dense(3, activation="softmax"),
        "regression": keras.layers.Dense(1),
    }[task]
    width = _numbers(frame).shape[1]
    layers = [keras.Input((width,)), Filled(), keras.layers.BatchNormalization(), keras.layers.Dense(8, "tanh")]
    made = keras.Sequential([*layers, keras.layers.Dropout(0.5), last])
    made.classes_ = [0, 1, 2]
    return made


FITS: dict[str, Callable[[Any, Any, str], Any]] = {
    "scikit-learn, trees": sklearn_trees,
    "scikit-learn, linear": sklearn_linear,
    "XGBoost": xgboost,
    "LightGBM": lightgbm,
    "CatBoost": catboost,
    "torch": torch,
    "torch of float64": torch_float64,
    "Keras": keras,
}


# Models of tensors


def encoder_examples(rows: int = 64, length: int = 12) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    mask = (np.arange(length) < rng.integers(1, length + 1, rows)[:, None]).astype(np.int64)
    return {"input_ids": rng.integers(1, 100, (rows, length)) * mask, "attention_mask": mask}


def encoder() -> Any:
    """A text classifier as the hub has them, tiny and with random weights."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return BertForSequenceClassification(BertConfig(vocab_size=100, max_position_embeddings=32, num_labels=3, **sizes))


def network() -> Any:
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))


def scaled(x: Any) -> Any:
    """The function of a project, in the function's row of the table."""
    return (x - np.float32(0.5)) * np.float32(2)


def tensor_rows() -> dict[str, dict[str, str]]:
    """Return kind of model -> how rows were asked -> the verdict, as the second table has them."""
    from mainspring.training.conformance import WITHIN
    from mainspring.training.equivalence.networks import export

    found: dict[str, dict[str, str]] = {}
    floats = {"x": np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)}
    for name, made in (
        ("torch, a network", export(network(), floats)),
        ("transformers, a text classifier", export(encoder(), encoder_examples())),
    ):
        found[name] = {**dict.fromkeys(made.proof.by, WITHIN), "no rows": "yes" if made.proof.none else "fails"}
    found["an ONNX file"] = _served(_onnx_file(), _runtime, floats)
    found["a function"] = _served(_function(), lambda rows: scaled(rows["x"]), floats)
    return found


def _onnx_file() -> Any:
    from kit.models import mlp_bundle
    from mainspring.serving.adapters.onnx import OnnxExecutor

    return OnnxExecutor(mlp_bundle())


def _runtime(rows: Any) -> Any:
    """The same file, asked by ONNX Runtime without us."""
    import onnxruntime as ort

    from kit.models import mlp

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(mlp(), options, providers=["CPUExecutionProvider"]).run(None, rows)[0]


def _function() -> Any:
    from kit.models import function_bundle
    from mainspring.registry.model import TensorSpec
    from mainspring.serving.adapters.function import FunctionExecutor

    specs = [TensorSpec("x", "FP32", (-1, 4))], [TensorSpec("y", "FP32", (-1, 4))]
    return FunctionExecutor(function_bundle("kit:scaled", "0" * 64, *specs), lambda _code: scaled)


def _served(executor: Any, oracle: Callable[[Any], Any], rows: dict[str, Any]) -> dict[str, str]:
    from mainspring.training.conformance import EXACT, WITHIN

    many = {name: np.concatenate([values] * 20) for name, values in rows.items()}
    count = len(next(iter(many.values())))
    expected, order = oracle(many), np.random.default_rng(1).permutation(count)

    def asked(size: int, places: Any) -> str:
        parts = [places[start : start + size] for start in range(0, len(places), size)]
        answers = [executor.predict({k: v[part] for k, v in many.items()}, len(part)) for part in parts]
        found = np.concatenate([next(iter(answer.values())) for answer in answers])
        off = float(np.abs(found - expected[places]).max())
        assert off <= 1e-5
        # A matrix product may be off by a bit where a batch is of another size, on one processor and not on another.
        return EXACT if off == 0 and size == count else WITHIN if oracle is _runtime else EXACT

    none = executor.predict({name: values[:0] for name, values in many.items()}, 0)
    assert all(len(values) == 0 for values in none.values())
    return {
        "in one batch": asked(count, np.arange(count)),
        "in small batches": asked(61, order),
        "one by one": asked(1, order[:300]),
        "no rows": "yes",
    }


def prove(
    estimator: Any, artefact: Artefact, held_out: Any, inputs: Sequence[Input], task: str, *, wide: Collection[str] = ()
) -> check.Proof:
    """Compare a model with its estimator on rows made of `held_out`."""
    return check.prove(estimator, artefact, proof_rows(estimator, artefact, held_out, inputs, wide=wide), inputs, task)
