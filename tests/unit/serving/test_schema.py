"""What a request may hold: each way to be wrong is refused, and the message names the input."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from mainspring.core.errors import Corrupt, Invalid
from mainspring.core.schema import DType
from mainspring.registry.model import TensorSpec
from mainspring.serving.protocol.codec import decode_infer
from mainspring.serving.protocol.schema import Field, RequestSchema, Rows, TensorSchema
from mainspring.serving.protocol.tensor import Tensor, check_specs

FEATURES = [
    Field("V.number", DType.Float32),
    Field("V.count", DType.Int64, nullable=False),
    Field("V.name", DType.String),
]
KEYED = [
    Field("id", DType.Int32, nullable=False),
    Field("when", DType.Timestamp),
    Field("express", DType.Boolean),
    Field("note", DType.String, required=False),
]
SCHEMA = RequestSchema(FEATURES, KEYED, max_rows=4)
FULL = {"V.number": ("FP32", [1.5, None]), "V.count": ("INT64", [1, 2]), "V.name": ("BYTES", ["a", None])}
BY_KEY = {"id": ("INT32", [7]), "when": ("INT64", [0]), "express": ("BOOL", [True])}


def read(inputs: dict[str, Any], *more: dict[str, Any], shape: list[int] | None = None):
    tensors = [
        {"name": name, "shape": shape or [len(values)], "datatype": datatype, "data": values}
        for name, (datatype, values) in inputs.items()
    ]
    return SCHEMA.read(decode_infer(msgspec.json.encode({"inputs": [*tensors, *more]})).asked.inputs)


def test_full_inputs_in_any_order() -> None:
    rows = read(dict(reversed(FULL.items())))
    assert (rows.count, rows.keyed) == (2, False)
    assert rows.columns == {name: values for name, (_, values) in FULL.items()}


def test_keys_and_fields_with_optional_ones_left_out_or_given() -> None:
    assert read(BY_KEY).keyed
    assert read({**BY_KEY, "note": ("BYTES", ["x"])}).columns["note"] == ["x"]


def test_shapes_of_one_or_two_dimensions_nested_or_flat() -> None:
    flat = {"name": "note", "shape": [2, 1], "datatype": "BYTES", "data": ["a", "b"]}
    nested = {**flat, "data": [["a"], ["b"]]}
    two = {name: (datatype, values * 2) for name, (datatype, values) in BY_KEY.items()}
    assert read(two, flat).columns == read(two, nested).columns


def test_times_are_microseconds_or_iso_8601() -> None:
    for given in (
        ("BYTES", ["1970-01-01T00:00:01Z"]),
        ("BYTES", ["1970-01-01T01:00:01+01:00"]),
        ("INT64", [1_000_000]),
    ):
        assert read({**BY_KEY, "when": given}).columns["when"] == [1_000_000]
    assert read({**BY_KEY, "when": ("BYTES", ["1970-01-02"])}).columns["when"] == [86_400_000_000]  # midnight UTC
    assert read({**BY_KEY, "when": ("BYTES", [None])}).columns["when"] == [None]


WRONG = {
    "missing": ({name: FULL[name] for name in ("V.number", "V.name")}, "missing: V.count"),
    "missing by key": ({"id": ("INT32", [7])}, "missing: express, when"),
    "unknown": ({**FULL, "V.other": ("FP32", [1.0, 2.0])}, "'V.other'"),
    "unknown by key": ({**BY_KEY, "other": ("FP32", [1.0])}, "'other'"),
    "mixed": ({**BY_KEY, "V.number": ("FP32", [1.0])}, "'V.number' cannot be combined"),
    "lengths": ({**FULL, "V.name": ("BYTES", ["a"])}, "'V.name' has 1 rows, but 'V.number' has 2"),
    "no rows": ({"id": ("INT32", [])}, "'id' has no rows"),
    "too many rows": ({"id": ("INT32", [1] * 5)}, "'id' has 5 rows; the maximum is 4"),
    "datatype": ({**FULL, "V.number": ("FP64", [1.0, 2.0])}, "'V.number' has the datatype 'FP64'; it must be FP32"),
    "text for a number": ({**FULL, "V.number": ("FP32", ["1", "2"])}, "'V.number' contains '1', which is not FP32"),
    "boolean for a number": ({**FULL, "V.number": ("FP32", [True, 1.0])}, "'V.number' contains True"),
    "number for a boolean": ({**BY_KEY, "express": ("BOOL", [1])}, "'express' contains 1"),
    "fraction for an integer": ({**FULL, "V.count": ("INT64", [1, 2.5])}, "'V.count' contains 2.5"),
    "beyond float32": ({**FULL, "V.number": ("FP32", [1e39, 1.0])}, "'V.number' contains 1e"),
    "beyond int32": ({**BY_KEY, "id": ("INT32", [2**31])}, "'id' contains 2147483648"),
    "beyond int64": ({**FULL, "V.count": ("INT64", [2**63, 1])}, "'V.count' contains"),
    "null where none may be": ({**FULL, "V.count": ("INT64", [1, None])}, "'V.count' contains a null"),
    "a list among strings": ({**FULL, "V.name": ("BYTES", ["a", ["b"]])}, "'V.name' contains ['b']"),
    "an object": ({**FULL, "V.name": ("BYTES", ["a", {"x": 1}])}, "'V.name' contains"),
    "a naive time": ({**BY_KEY, "when": ("BYTES", ["2013-07-01T00:00:00"])}, "'when' contains '2013-07-01T00:00:00'"),
    "no time": ({**BY_KEY, "when": ("BYTES", ["soon"])}, "'when' contains 'soon'"),
    "uneven nesting": ({**FULL, "V.number": ("FP32", [[1.0], 2.0])}, "'V.number': Its data is nested unevenly"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(name: str) -> None:
    inputs, message = WRONG[name]
    with pytest.raises(Invalid) as caught:
        read(inputs)
    assert message in str(caught.value)


@pytest.mark.parametrize("shape", [[], [3], [-1], [1, 2], [1, 1, 1], [2, 1]])
def test_shapes_that_do_not_fit_the_data(shape: list[int]) -> None:
    odd = {"name": "id", "shape": shape, "datatype": "INT32", "data": [1]}
    with pytest.raises(Invalid, match="'id' has"):
        read({}, odd)


def test_an_input_given_twice() -> None:
    again = {"name": "id", "shape": [1], "datatype": "INT32", "data": [8]}
    with pytest.raises(Invalid, match="'id' is given twice"):
        read(BY_KEY, again)


@pytest.mark.parametrize("text", ["2024-06-28T10:00:00", "20240628T10", "soon", "", "x" * 10_000])
def test_a_time_that_names_no_instant_is_refused_with_its_fix_in_a_required_and_an_optional_field(text: str) -> None:
    schema = RequestSchema(
        [], [Field("at", DType.Timestamp), Field("paid", DType.Timestamp, required=False)], max_rows=4
    )
    good = "2024-06-28T10:00:00Z"
    for name, texts in (("at", (text, good)), ("paid", (good, text))):
        tensors = [Tensor(field, "BYTES", (1,), [given]) for field, given in zip(("at", "paid"), texts, strict=True)]
        with pytest.raises(Invalid, match=f"Input '{name}' contains") as wrong:
            schema.read(tensors)
        assert "2013-07-01T00:00:00Z" in (wrong.value.fix or "")
        assert len(str(wrong.value)) < 250


def test_long_values_are_not_repeated_in_full() -> None:
    with pytest.raises(Invalid) as caught:
        read({**FULL, "V.number": ("FP32", ["x" * 10_000, 1.0])})
    assert len(str(caught.value)) < 200


def test_a_model_without_a_path_by_key_takes_full_inputs_only() -> None:
    schema = RequestSchema(FEATURES, [], max_rows=4)
    body = {"inputs": [{"name": "id", "shape": [1], "datatype": "INT32", "data": [1]}]}
    with pytest.raises(Invalid, match="no input 'id'"):
        schema.read(decode_infer(msgspec.json.encode(body)).asked.inputs)


TENSORS = TensorSchema(
    [TensorSpec("image", "UINT8", (-1, 2, 3)), TensorSpec("text", "BYTES", (-1,)), TensorSpec("any", "FP32", (-1, -1))],
    max_rows=4,
)
IMAGE = Tensor("image", "UINT8", (2, 2, 3), np.arange(12, dtype=np.uint8).reshape(2, 2, 3))
TEXT = Tensor("text", "BYTES", (2,), [b"zo\xc3\xab", "a"])
ANY = Tensor("any", "FP32", (2, 1), [1.0, 2.0])


def test_tensors_become_arrays_of_their_type_without_a_copy_where_they_are() -> None:
    rows = TENSORS.read([TEXT, IMAGE, ANY])
    assert (rows.count, rows.keyed, rows.tail) == (2, False, ((2, 3), (), (1,)))
    assert rows.columns["image"] is IMAGE.data
    assert rows.columns["text"].tolist() == ["zoë", "a"]
    assert rows.columns["any"].dtype == np.float32
    assert rows.columns["any"].tolist() == [[1.0], [2.0]]


def test_a_model_whose_shapes_are_given_has_no_tail_to_compare() -> None:
    schema = TensorSchema([TensorSpec("image", "UINT8", (-1, 2, 3))], max_rows=4)
    assert schema.read([IMAGE]).tail == ()


WRONG_TENSORS = {
    "missing": ([IMAGE, TEXT], "missing: any"),
    "none": ([], "missing: any, image, text"),
    "unknown": ([IMAGE, TEXT, ANY, Tensor("more", "FP32", (2,), [1.0, 2.0])], "no input 'more'"),
    "twice": ([IMAGE, IMAGE], "'image' is given twice"),
    "datatype": ([Tensor("image", "INT8", (1, 2, 3), [0] * 6)], "'image' has the datatype 'INT8'; it must be UINT8"),
    "rank": ([Tensor("image", "UINT8", (1, 6), [0] * 6)], "'image' has the shape [1, 6]; it must be [-1, 2, 3]"),
    "no rank": ([Tensor("text", "BYTES", (), ["a"])], "'text' has"),
    "sizes": ([Tensor("image", "UINT8", (1, 3, 2), [0] * 6)], "'image' has the shape [1, 3, 2]"),
    "an empty dimension": ([Tensor("any", "FP32", (2, 0), [])], "'any' has the shape [2, 0]; it must be [-1, -1]"),
    "rows": ([IMAGE, Tensor("text", "BYTES", (1,), ["a"])], "'text' has 1 rows, but 'image' has 2"),
    "no rows": ([Tensor("text", "BYTES", (0,), [])], "'text' has no rows"),
    "too many rows": ([Tensor("text", "BYTES", (5,), ["a"] * 5)], "'text' has 5 rows; the maximum is 4"),
    "null": ([Tensor("any", "FP32", (2, 1), [1.0, None])], "'any' contains a null"),
    "no text": ([Tensor("text", "BYTES", (1,), [b"\xff"])], "'text' contains bytes that are not UTF-8"),
}


@pytest.mark.parametrize("name", WRONG_TENSORS)
def test_what_is_wrong_with_tensors_is_named(name: str) -> None:
    inputs, message = WRONG_TENSORS[name]
    with pytest.raises(Invalid) as caught:
        TENSORS.read(inputs)
    assert message in str(caught.value)


def test_a_null_is_nan_in_the_tensors_that_take_one_and_refused_in_others() -> None:
    specs = [TensorSpec(each, each, (-1, 2)) for each in ("FP32", "FP64", "INT64")]
    schema = TensorSchema(specs, max_rows=4, nullable=["FP32", "INT64"])  # an integer has no NaN

    def read(**data: list[Any]) -> Rows:
        given = {"FP32": [1.0, 2.0], "FP64": [1.0, 2.0], "INT64": [1, 2], **data}
        return schema.read([Tensor(name, name, (1, 2), values) for name, values in given.items()])

    found = read(FP32=[None, 0.5]).columns["FP32"]
    assert found.dtype == np.float32
    assert np.array_equal(found, [[np.nan, 0.5]], equal_nan=True)
    for name, values in (("FP64", [None, 1.0]), ("INT64", [1, None])):
        with pytest.raises(Invalid, match=f"'{name}' contains a null"):
            read(**{name: values})


def test_features_may_come_as_arrays_in_which_a_null_is_nan() -> None:
    columns = {
        "V.number": ("FP32", np.array([1.5, np.nan], np.float32)),
        "V.count": ("INT64", np.array([1, 2])),
        "V.name": ("BYTES", [b"a", "\N{SNOWMAN}".encode()]),
    }
    rows = SCHEMA.read([Tensor(name, datatype, (2,), data) for name, (datatype, data) in columns.items()])
    assert rows.columns == {"V.number": [1.5, None], "V.count": [1, 2], "V.name": ["a", "\N{SNOWMAN}"]}
    assert {type(value) for value in rows.columns["V.count"]} == {int}
    columns["V.number"] = ("FP32", np.array([1.5, np.inf], np.float32))
    with pytest.raises(Invalid, match="number' contains an infinite value"):
        SCHEMA.read([Tensor(name, datatype, (2,), data) for name, (datatype, data) in columns.items()])


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (TensorSpec("x", "BF16", (-1,)), "'BF16'"),
        (TensorSpec("x", "FP32", ()), "shape"),
        (TensorSpec("x", "FP32", (2, -1)), "shape"),
        (TensorSpec("x", "FP32", (-1, 0)), "shape"),
        (TensorSpec("", "FP32", (-1,)), "name"),
    ],
)
def test_a_bundle_whose_tensors_cannot_be_is_refused(spec: TensorSpec, words: str) -> None:
    with pytest.raises(Corrupt, match=words):
        check_specs([spec], "bundle 0")
    with pytest.raises(Corrupt, match="name"):
        check_specs([TensorSpec("x", "FP32", (-1,))] * 2, "bundle 0")
