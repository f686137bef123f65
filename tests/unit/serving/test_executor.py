"""Models: what loads, what is refused, and that what loads answers as it must."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper

from kit.serving import FEATURES, INPUTS, bundle, expected, golden, model
from mainspring.core.errors import Corrupt, Invalid
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.registry.column_codec import pack
from mainspring.registry.onnx_file import check_onnx
from mainspring.serving.adapters.onnx import OnnxExecutor
from mainspring.serving.adapters.sessions import open_session
from mainspring.serving.plane import runtime

COLUMNS = {name: values for name, (_, values) in FEATURES.items()}


def matrix_model(columns: int, answers: int) -> bytes:
    """Return a model of one matrix, whose last `answers` columns it gives back as a converter's probabilities."""
    width = helper.make_tensor("picked", TensorProto.INT64, [answers], list(range(columns - answers, columns)))
    graph = helper.make_graph(
        [helper.make_node("Gather", ["X", "picked"], ["probabilities"], axis=1)],
        "matrix",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, columns])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, answers])],
        [width],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def test_answers_are_the_models() -> None:
    executor = OnnxExecutor(bundle())
    outputs = executor.predict(COLUMNS, 2)
    assert list(outputs) == ["probability"]
    assert outputs["probability"] == pytest.approx(expected(COLUMNS), abs=1e-6)
    assert executor.outputs["probability"].datatype == "FP32"


def test_nulls_are_nan_and_integers_have_none() -> None:
    exact = OnnxExecutor(bundle(model_onnx=model(exact_hour=True)))
    assert [exact.nullable(each.name) for each in INPUTS] == [True, True, True, False]
    with pytest.raises(Invalid, match=r"Schedule\.hour"):
        exact.predict({**COLUMNS, "Schedule.hour": [None, 3]}, 2)


@pytest.mark.parametrize(("answers", "column"), [(1, "Schedule.hour"), (2, "Schedule.hour")])
def test_a_matrix_of_all_columns_and_the_probability_of_the_second_class(answers: int, column: str) -> None:
    executor = OnnxExecutor(bundle(model_onnx=matrix_model(4, answers)))
    assert executor.predict(COLUMNS, 2)["probability"].tolist() == COLUMNS[column]


def test_more_answers_than_the_manifest_has_are_refused() -> None:
    with pytest.raises(Corrupt, match="returns 3 values"):
        OnnxExecutor(bundle(model_onnx=matrix_model(4, 3))).predict(COLUMNS, 2)


@pytest.mark.parametrize(("content", "word"), [(matrix_model(3, 1), "takes"), (matrix_model(4, 1)[:-20], "truncated")])
def test_a_model_that_is_not_the_manifests_is_refused(content: bytes, word: str) -> None:
    made = bundle()
    broken = type(made)(made.digest, made.manifest, {**made.files, "model.onnx": content})
    with pytest.raises(Corrupt, match=word):
        OnnxExecutor(broken)


def test_a_bundle_is_loaded_warm() -> None:
    loaded = runtime.load(bundle(), MemoryOnlineStore(), OnnxExecutor)
    assert loaded.cost.predict(1) > 0
    assert list(loaded.schema.features) == list(FEATURES)
    assert {name for name, field in loaded.schema.keyed.items() if field.required} == {
        "carrier",
        "flight_id",
        "distance",
        "scheduled_at",
    }


REFUSED = {
    "wrong answers": (golden(0.001), "golden row 0"),
    "no rows": (json.dumps({"inputs": {name: [] for name in COLUMNS}, "outputs": {"probability": []}}).encode(), "no"),
    "another output": (json.dumps({"inputs": COLUMNS, "outputs": {"logit": [0.0, 0.0]}}).encode(), "cannot be read"),
    "a missing input": (
        json.dumps({"inputs": {}, "outputs": {"probability": [0.0]}}).encode(),
        "fails on its golden rows",
    ),
    "text": (b"{", "cannot be read"),
    "uneven": (json.dumps({"inputs": COLUMNS, "outputs": {"probability": [0.0]}}).encode(), "fails on its golden rows"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_golden_rows_that_are_not_answered_refuse_the_bundle(name: str) -> None:
    content, word = REFUSED[name]
    with pytest.raises(Corrupt, match=word):
        runtime.load(bundle(golden_json=content), MemoryOnlineStore(), OnnxExecutor)


def test_a_model_whose_answer_depends_on_its_batch_mates_is_refused() -> None:
    content = model(mates=True)
    together = OnnxExecutor(bundle(model_onnx=content)).predict(COLUMNS, 2)["probability"].tolist()
    rows = json.dumps({"inputs": COLUMNS, "outputs": {"probability": together}}).encode()
    with pytest.raises(Corrupt, match="alone and in a batch"):
        runtime.load(bundle(model_onnx=content, golden_json=rows), MemoryOnlineStore(), OnnxExecutor)


def test_a_bundle_without_a_file_it_needs_is_refused_by_its_name() -> None:
    made = bundle()
    for name in ("features.json", "golden.json"):
        files = {each: content for each, content in made.files.items() if each != name}
        with pytest.raises(Corrupt, match=name):
            runtime.load(type(made)(made.digest, made.manifest, files), MemoryOnlineStore(), OnnxExecutor)


def test_answers_do_not_depend_on_the_size_of_the_batch() -> None:
    executor = OnnxExecutor(bundle())
    many = {name: list(np.resize(np.array(values, object), 300)) for name, values in COLUMNS.items()}
    together = executor.predict(many, 300)["probability"]
    alone = [
        executor.predict({name: values[row : row + 1] for name, values in many.items()}, 1)["probability"][0]
        for row in range(300)
    ]
    assert together == pytest.approx(alone, abs=1e-6)


def held_out(rows: int = 10_000, wrong: int | None = None, **changed: Any) -> bytes:
    """Return golden rows with held-out ones beside them, of which one must be answered as it never will be."""
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {each.name: np.floor(rng.random(rows) * 20) for each in INPUTS}
    columns["Carrier.delay_1h"] = np.where(rng.random(rows) < 0.1, np.nan, columns["Carrier.delay_1h"]).astype("f4")
    nullable = {name: [None if np.isnan(each) else each for each in values] for name, values in columns.items()}
    answers = np.array(expected(nullable))
    if wrong is not None:
        answers[wrong] += 2e-5
    packed = msgspec.structs.replace(pack(columns, {"probability": answers}), **changed)
    return msgspec.json.encode({**json.loads(golden()), "held_out": packed})


class Counted(OnnxExecutor):
    """An executor that notes how many rows it was asked at once."""

    asked: list[int]

    def predict(self, inputs: Any, rows: int) -> Any:
        self.asked = [*getattr(self, "asked", []), rows]
        return super().predict(inputs, rows)


def test_ten_thousand_held_out_rows_are_asked_at_a_load_in_batches_as_they_are_served() -> None:
    loaded = runtime.load(bundle(golden_json=held_out()), MemoryOnlineStore(), Counted)
    assert isinstance(loaded.executor, Counted)
    many = [rows for rows in loaded.executor.asked if rows > 200]
    assert sum(many) == 10_000
    assert max(many) == runtime.MAX_ROWS


@pytest.mark.parametrize("row", [0, 1024, 7123, 9999])
def test_one_held_out_row_of_ten_thousand_that_is_answered_otherwise_refuses_the_bundle(row: int) -> None:
    with pytest.raises(Corrupt, match=r"1 of 10000 held-out rows, such as \{'Carrier\.flights_1h': "):
        runtime.load(bundle(golden_json=held_out(wrong=row)), MemoryOnlineStore(), OnnxExecutor)


def test_held_out_rows_that_cannot_be_read_refuse_the_bundle() -> None:
    for content in (held_out(rows=3, outputs={}), held_out(rows=3).replace(b'"f8"', b'"f9"')):
        with pytest.raises(Corrupt, match=r"held-out rows of bundle .* cannot be read"):
            runtime.load(bundle(golden_json=content), MemoryOnlineStore(), OnnxExecutor)


def leak(tensor: TensorProto) -> bytes:
    """Return a model that gives the tensor `w`, in a field whose number only the runtime takes for an initializer's."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])],
        "a model that gives what it should not know",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, [32])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    made.ClearField("graph")
    hidden = tensor.SerializeToString()
    inside = graph.SerializeToString() + b"\xaa\x80\x80\x80\x10" + bytes([len(hidden)]) + hidden
    assert len(hidden) < 128 <= len(inside) < 1 << 14
    return made.SerializeToString() + b"\x3a" + bytes([len(inside) & 127 | 128, len(inside) >> 7]) + inside


def test_a_session_reads_no_file_whatever_the_model_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even past the check, which refuses such a file, the runtime finds no data outside the model's bytes."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "pepper").write_bytes(b"p" * 32)
    monkeypatch.chdir(tmp_path)
    outside = TensorProto(name="w", data_type=TensorProto.UINT8, dims=[32], data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="secrets/pepper")
    inside = helper.make_tensor("w", TensorProto.UINT8, [32], b"q" * 32, raw=True)
    for tensor in (inside, outside):
        with pytest.raises(Corrupt, match="field 536870917"):
            check_onnx(leak(tensor))
    session = open_session(leak(inside), "leak")
    assert session.run(["y"], {"x": np.zeros((1, 1), np.float32)})[0].tobytes() == b"q" * 32
    with pytest.raises(Corrupt, match="does not load"):
        open_session(leak(outside), "leak")
