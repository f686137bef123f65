"""What a request may hold: each way to be wrong is refused, and the message names the input."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from mainspring.core.errors import Invalid
from mainspring.core.schema import DType
from mainspring.serving.codec import decode_infer
from mainspring.serving.schema import Field, RequestSchema

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
    assert read({**BY_KEY, "when": ("BYTES", [None])}).columns["when"] == [None]


WRONG = {
    "missing": ({name: FULL[name] for name in ("V.number", "V.name")}, "missing: V.count"),
    "missing by key": ({"id": ("INT32", [7])}, "missing: express, when"),
    "unknown": ({**FULL, "V.other": ("FP32", [1.0, 2.0])}, "'V.other'"),
    "unknown by key": ({**BY_KEY, "other": ("FP32", [1.0])}, "'other'"),
    "mixed": ({**BY_KEY, "V.number": ("FP32", [1.0])}, "'V.number' cannot stand beside"),
    "lengths": ({**FULL, "V.name": ("BYTES", ["a"])}, "'V.name' has 1 rows, 'V.number' has 2"),
    "no rows": ({"id": ("INT32", [])}, "'id' has no rows"),
    "too many rows": ({"id": ("INT32", [1] * 5)}, "'id' has 5 rows; a request may have 4"),
    "datatype": ({**FULL, "V.number": ("FP64", [1.0, 2.0])}, "'V.number' has the datatype 'FP64'; it must be FP32"),
    "text for a number": ({**FULL, "V.number": ("FP32", ["1", "2"])}, "'V.number' holds '1', which is no FP32"),
    "boolean for a number": ({**FULL, "V.number": ("FP32", [True, 1.0])}, "'V.number' holds True"),
    "number for a boolean": ({**BY_KEY, "express": ("BOOL", [1])}, "'express' holds 1"),
    "fraction for an integer": ({**FULL, "V.count": ("INT64", [1, 2.5])}, "'V.count' holds 2.5"),
    "beyond float32": ({**FULL, "V.number": ("FP32", [1e39, 1.0])}, "'V.number' holds 1e"),
    "beyond int32": ({**BY_KEY, "id": ("INT32", [2**31])}, "'id' holds 2147483648"),
    "beyond int64": ({**FULL, "V.count": ("INT64", [2**63, 1])}, "'V.count' holds"),
    "null where none may be": ({**FULL, "V.count": ("INT64", [1, None])}, "'V.count' holds a null"),
    "a list among strings": ({**FULL, "V.name": ("BYTES", ["a", ["b"]])}, "'V.name' holds ['b']"),
    "an object": ({**FULL, "V.name": ("BYTES", ["a", {"x": 1}])}, "'V.name' holds"),
    "a naive time": ({**BY_KEY, "when": ("BYTES", ["2013-07-01T00:00:00"])}, "'when' holds '2013-07-01T00:00:00'"),
    "no time": ({**BY_KEY, "when": ("BYTES", ["soon"])}, "'when' holds 'soon'"),
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


def test_long_values_are_not_repeated_in_full() -> None:
    with pytest.raises(Invalid) as caught:
        read({**FULL, "V.number": ("FP32", ["x" * 10_000, 1.0])})
    assert len(str(caught.value)) < 200


def test_a_model_without_a_path_by_key_takes_full_inputs_only() -> None:
    schema = RequestSchema(FEATURES, [], max_rows=4)
    body = {"inputs": [{"name": "id", "shape": [1], "datatype": "INT32", "data": [1]}]}
    with pytest.raises(Invalid, match="no input 'id'"):
        schema.read(decode_infer(msgspec.json.encode(body)).asked.inputs)
