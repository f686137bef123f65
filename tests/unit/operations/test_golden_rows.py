"""Golden rows that are made up: the same from one seed, of the declared shapes, and answered with finite numbers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from kit.models import identity_bundle, mlp_bundle, onnx_model, sealed
from mainspring.core.errors import Invalid
from mainspring.operations.models.golden_rows import make_golden, seeded
from mainspring.registry.model import TensorSpec
from mainspring.serving.adapters.onnx import OnnxExecutor
from mainspring.serving.plane.executor import ModelFailed
from mainspring.serving.protocol.tensor import DATATYPES, DTYPES

SPECS = st.builds(
    lambda datatype, dims: TensorSpec("x", datatype, (-1, *dims)),
    st.sampled_from(DATATYPES),
    st.lists(st.one_of(st.just(-1), st.integers(1, 40)), max_size=3),
)


@settings(deadline=None)
@given(SPECS, st.integers(0, 12))
def test_rows_fit_what_the_model_declares_and_come_back_through_json(spec: TensorSpec, integers: int) -> None:
    (first, rows), (again, _) = (seeded({"x": spec}, integers=integers) for _ in range(2))
    array = first["x"]
    np.testing.assert_array_equal(array, again["x"])
    assert array.dtype == DTYPES[spec.datatype]
    assert 2 <= rows == array.shape[0] <= 16
    assert all(want in (-1, have) for want, have in zip(spec.shape[1:], array.shape[1:], strict=True))
    back = np.array(json.loads(json.dumps(array.tolist())), array.dtype)
    np.testing.assert_array_equal(back, array)


def test_a_row_of_absurd_size_is_refused_before_it_is_made() -> None:
    with pytest.raises(Invalid, match="'x' has 1,000,000,000,000 values"):
        seeded({"x": TensorSpec("x", "FP32", (-1, 1_000_000, 1_000_000))}, integers=1)


def test_large_rows_are_few() -> None:
    arrays, rows = seeded({"x": TensorSpec("x", "FP32", (-1, 3, 224, 224))}, integers=1)
    assert rows == len(arrays["x"]) == 2


@pytest.mark.parametrize("datatype", DATATYPES)
def test_the_answers_are_the_models(datatype: str) -> None:
    golden = make_golden(OnnxExecutor(identity_bundle(datatype)))
    assert golden["outputs"]["y"] == golden["inputs"]["x"]
    assert len(golden["inputs"]["x"]) == 16


def test_rows_of_ones_own_are_taken_as_they_are() -> None:
    executor = OnnxExecutor(mlp_bundle())
    rows = [[0.5, 1.0, 2.0, -1.0]]
    golden = make_golden(executor, {"x": rows})
    assert golden["inputs"] == {"x": rows}
    assert golden["outputs"]["y"] == executor.predict({"x": rows}, 1)["y"].tolist()


def bundle(nodes: list[Any], datatype: str, shape: tuple[int | None, ...] = (), **constants: Any) -> Any:
    dims = [None, *shape]
    content = onnx_model(nodes, [("x", datatype, dims)], [("y", "FP32", None)], **constants)
    spec = TensorSpec("x", datatype, (-1, *(size or -1 for size in shape)))
    outputs = (TensorSpec("y", "FP32", (-1, -1)),)
    return sealed("onnx", {"model.onnx": content}, tensors=(spec,), output_tensors=outputs)


@pytest.mark.parametrize("size", [1, 2, 20])
def test_indices_into_a_table_of_any_size_are_found(size: int) -> None:
    table = np.arange(size * 2, dtype=np.float32).reshape(size, 2)
    made = bundle([helper.make_node("Gather", ["table", "x"], ["y"])], "INT64", table=table)
    golden = make_golden(OnnxExecutor(made))
    assert max(golden["inputs"]["x"]) < size


def test_rows_that_are_answered_by_infinity_are_left_out() -> None:
    """The reciprocal of zero; JSON could not hold it."""
    made = bundle([helper.make_node("Reciprocal", ["x"], ["y"])], "FP32", (1,))
    golden = make_golden(OnnxExecutor(made), {"x": [[0.0], [2.0], [0.0], [4.0]]})
    assert golden == {"inputs": {"x": [[2.0], [4.0]]}, "outputs": {"y": [[0.5], [0.25]]}}
    with pytest.raises(Invalid, match="infinite or missing numbers") as caught:
        make_golden(OnnxExecutor(made), {"x": [[0.0]]})
    assert caught.value.fix == "give your own rows with --golden."


def test_a_model_that_fails_on_all_of_them_says_so() -> None:
    wanted = np.array([7, 7], np.int64)
    made = bundle([helper.make_node("Reshape", ["x", "wanted"], ["y"])], "FP32", (3,), wanted=wanted)
    with pytest.raises(ModelFailed, match="failed") as caught:
        make_golden(OnnxExecutor(made))
    assert "--golden" in str(caught.value)


class Counting:
    """A function of whole numbers that answers no row of the first range, and says something else of the others."""

    inputs = outputs = {"n": TensorSpec("n", "INT64", (-1,))}

    def predict(self, inputs: dict[str, Any], rows: int) -> Any:
        raise ModelFailed("it answers one row" if inputs["n"].max() > 1 else "it yielded nothing")


def test_of_several_failures_the_first_is_told() -> None:
    executor: Any = Counting()
    with pytest.raises(ModelFailed, match="it answers one row"):
        make_golden(executor)


@pytest.mark.parametrize("inputs", [{}, {"x": []}, {"x": [[1.0] * 4], "z": [1, 2]}])
def test_rows_of_ones_own_must_be_as_many_everywhere(inputs: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="rows"):
        make_golden(OnnxExecutor(mlp_bundle()), inputs)
