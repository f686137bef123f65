"""Networks become models that answer as they do, or are refused with the reason and the row."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kit.depth import deep
from kit.depth import examples as chosen
from kit.flavours import encoder, encoder_examples, prove
from kit.later import later
from mainspring.core.errors import Invalid, MissingExtra, NotConvertible
from mainspring.core.schema import DType
from mainspring.registry.model import Input, TensorSpec
from mainspring.registry.onnx_file import check_onnx
from mainspring.training.equivalence.networks import export
from mainspring.training.equivalence.rows import ROWS
from mainspring.training.flavours import convert_estimator, output_names

torch = later("torch")
later("onnxscript")
pytestmark = pytest.mark.slow

INPUTS = [Input("V.x", DType.Float32), Input("V.y", DType.Float32)]
RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(RNG.normal(size=(300, 2)).astype(np.float32), columns=["V.x", "V.y"])
ROWS_OF_4 = {"x": RNG.normal(size=(50, 4)).astype(np.float32)}


@pytest.fixture(autouse=True)
def _torch_may_warn() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def answering(answer: Any) -> Any:
    """Return a module that answers what a function says, of two columns or more."""

    class Answering(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))
            self.answer = answer

        def forward(self, *inputs: Any) -> Any:
            return self.answer(*(torch.nan_to_num(x) if x.is_floating_point() else x for x in inputs))

    return Answering()


def logistic(x: Any) -> Any:
    return torch.sigmoid(x.sum(dim=1))


# What a training function returns


def refused(module: Any, task: str = "binary") -> str:
    with pytest.raises(NotConvertible) as found:
        prove(module, convert_estimator(module, INPUTS, task), FRAME, INPUTS, task)
    return found.value.what


def test_a_module_in_training_mode_is_asked_in_evaluation_mode_and_left_as_it_was() -> None:
    dropout = torch.nn.Dropout(0.9)
    module = answering(lambda x: logistic(dropout(x)))
    module.dropout = dropout
    module.train()
    assert prove(module, convert_estimator(module, INPUTS, "binary"), FRAME, INPUTS, "binary").worst < 1e-6
    assert module.training
    assert dropout.training


def test_two_columns_of_a_binary_answer_are_the_probabilities_of_0_and_1() -> None:
    module = answering(lambda x: torch.stack([1 - logistic(x), logistic(x)], dim=1))
    assert prove(module, convert_estimator(module, INPUTS, "binary"), FRAME, INPUTS, "binary").worst < 1e-6


def test_batch_statistics_are_refused() -> None:
    assert "depends on the rows beside it" in refused(answering(lambda x: logistic(x - x.mean(dim=0))))


def test_chance_is_refused() -> None:
    said = refused(answering(lambda x: logistic(torch.nn.functional.dropout(x, 0.5, training=True))))
    assert "or on chance" in said


def test_nan_is_refused_with_the_row() -> None:
    said = refused(answering(lambda x: torch.log(x[:, 0]) + x[:, 1]), "regression")
    assert "predicts nan as value" in said
    assert "V.x=" in said


def test_logits_are_no_probabilities() -> None:
    assert "which are not probabilities" in refused(answering(lambda x: x.sum(dim=1)))


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_another_shape_is_refused(task: str) -> None:
    assert "returns the shape ['rows', 6]" in refused(answering(lambda x: torch.sigmoid(x.repeat(1, 3))), task)


def test_classes_without_names_are_refused() -> None:
    module = answering(lambda x: torch.softmax(x, dim=1))
    assert "does not name its classes" in refused(module, "multiclass")
    module.classes_ = ["a", "a"]
    with pytest.raises(NotConvertible, match="does not name its classes"):
        output_names(module, "multiclass")


def test_what_cannot_be_traced_is_refused_with_the_reason() -> None:
    said = refused(answering(lambda x: logistic(x) if float(x.sum()) > 0 else logistic(-x)))
    assert "cannot be exported to ONNX" in said


def test_features_named_like_the_graphs_own_values() -> None:
    inputs = [Input("matrix", DType.Float32), Input("answer", DType.Float32)]
    frame = FRAME.set_axis(["matrix", "answer"], axis=1)
    module = answering(torch.nn.Sequential(torch.nn.Linear(2, 1)))
    assert prove(module, convert_estimator(module, inputs, "regression"), frame, inputs, "regression").worst < 1e-6


def test_a_missing_exporter_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtra, match=r"mainspring\[torch\]"):
        convert_estimator(answering(logistic), INPUTS, "binary")


def test_keras_on_another_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, "sigmoid")])
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(NotConvertible, match=r"backend 'jax'.*KERAS_BACKEND=torch"):
        convert_estimator(model, INPUTS, "binary")


# Networks of tensors


def test_a_network_is_exported_and_proved() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    made = export(network, ROWS_OF_4, outputs=["y"])
    check_onnx(made.artefact.content)
    assert b".py" not in made.artefact.content  # no lines of code, no paths of this machine
    assert made.tensors == (TensorSpec("x", "FP32", (-1, 4)),)
    assert made.output_tensors == (TensorSpec("y", "FP32", (-1, 2)),)
    assert made.proof.rows >= ROWS
    assert made.proof.worst < 1e-5
    assert made.proof.none
    assert np.asarray(made.golden["outputs"]["y"]).shape == (16, 2)
    assert export(network, ROWS_OF_4, outputs=["y"]).artefact == made.artefact


@deep
def test_an_encoder_is_proved_over_lengths_and_padding() -> None:
    pytest.importorskip("transformers")
    made = export(encoder(), encoder_examples())
    assert made.tensors == tuple(TensorSpec(name, "INT64", (-1, -1)) for name in ("input_ids", "attention_mask"))
    assert made.output_tensors == (TensorSpec("logits", "FP32", (-1, 3)),)
    assert {"other lengths", "padding", "one by one", "in small batches"} <= set(made.proof.by)
    assert made.proof.worst < 1e-5


def test_a_model_of_tokens_is_no_model_of_columns() -> None:
    pytest.importorskip("transformers")
    with pytest.raises(NotConvertible, match=r"sequences of tokens.*register"):
        output_names(encoder(), "binary")


def test_a_network_that_does_not_hide_the_padding_is_refused() -> None:
    def mean(ids: Any, mask: Any) -> Any:
        return ids.float().mean(dim=1, keepdim=True) + 0 * mask.float().sum(dim=1, keepdim=True)

    with pytest.raises(NotConvertible, match="does not hide the padding"):
        export(answering(mean), encoder_examples(), sequences=True)


REFUSED_NETWORKS: dict[str, tuple[Any, str]] = {
    "batch mates": (lambda x: x - x.mean(dim=0), "depends on the rows beside it"),
    "NaN": (lambda x: torch.log(+x), "returns NaN or infinity"),
    "one size of batch": (lambda x: x.reshape(3, 4) if x.shape[0] == 3 else x, "fresh process: .*INVALID_ARGUMENT"),
}


@pytest.mark.parametrize("name", chosen(gate=["NaN", "batch mates"], deep=list(REFUSED_NETWORKS)))
def test_networks_that_are_refused(name: str) -> None:
    answer, said = REFUSED_NETWORKS[name]
    with pytest.raises(NotConvertible, match=said):
        export(answering(answer), ROWS_OF_4)


def two(x: Any) -> Any:
    return x, x * 2


BAD: dict[str, tuple[Any, dict[str, Any], dict[str, Any], str]] = {
    "two outputs of one name": (two, ROWS_OF_4, {"outputs": ["y", "y"]}, r"\['y'\] would name two tensors"),
    "an output named as an input": (two, ROWS_OF_4, {"outputs": ["x", "y"]}, r"\['x'\] would name two"),
    "too few names": (two, ROWS_OF_4, {"outputs": ["y"]}, "returns 2 outputs, but 1 names"),
    "no examples": (two, {}, {}, "no rows"),
    "one row": (two, {"x": np.zeros((1, 4), np.float32)}, {}, "at least 2"),
    "uneven": (two, {"x": np.zeros((3, 4)), "z": np.zeros((2, 4))}, {}, r"\[2, 3\] rows"),
    "null": (two, {"x": np.full((3, 4), np.nan, np.float32)}, {}, "NaN or infinity"),
    "texts": (two, {"x": np.array(["a", "b"])}, {}, "which networks do not accept"),
    "an answer of another name": (lambda x: {"y": x}, ROWS_OF_4, {"outputs": ["z"]}, r"does not return \['z'\]"),
    "a wrong shape": (lambda x: x @ torch.ones(5, 1), ROWS_OF_4, {}, "does not accept the examples"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    answer, examples, options, said = BAD[name]
    with pytest.raises(Invalid, match=said):
        export(answering(answer), examples, **options)


def test_an_object_that_is_no_network_is_refused() -> None:
    with pytest.raises(NotConvertible, match="not a network of torch, Keras or transformers"):
        export(object(), ROWS_OF_4)
