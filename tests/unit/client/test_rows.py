"""Rows become the tensors that an endpoint takes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from mainspring.client.results import ModelInfo, TensorInfo
from mainspring.client.rows import predictions_of, tensors_of
from mainspring.core.errors import Invalid


def tensors(**datatypes: str) -> tuple[TensorInfo, ...]:
    return tuple(TensorInfo(name, datatype, (-1,)) for name, datatype in datatypes.items())


MODEL = ModelInfo(
    name="late",
    versions=("1",),
    platform="",
    inputs=tensors(clicks="INT64", share="FP32", both="FP64"),
    outputs=tensors(probability="FP32"),
    keyed=tensors(user="BYTES", at="INT64", both="FP64"),
    optional=frozenset(),
    parameters={},
)


def sent(*rows: dict[str, Any]) -> dict[str, tuple[str, list[Any]]]:
    made = tensors_of(rows, MODEL)
    assert all(each["shape"] == [len(rows)] for each in made)
    return {each["name"]: (each["datatype"], each["data"]) for each in made}


def test_by_key_and_by_features_are_told_apart_by_name() -> None:
    assert sent({"user": "ana", "both": 1}, {"user": None}) == {
        "user": ("BYTES", ["ana", None]),
        "both": ("FP64", [1, None]),
    }
    assert sent({"both": 1.5, "clicks": 3}) == {"both": ("FP64", [1.5]), "clicks": ("INT64", [3])}


def test_an_instant_is_sent_as_it_was_given() -> None:
    at = datetime(2026, 1, 5, 18, 30, tzinfo=UTC)
    assert sent({"at": at}) == {"at": ("INT64", [round(at.timestamp() * 1e6)])}
    assert sent({"at": "2026-01-05T18:30:00Z"}) == {"at": ("BYTES", ["2026-01-05T18:30:00Z"])}
    assert sent({"at": "2026-01-05T19:30:00+01:00"}, {"at": at}, {"at": None}) == {
        "at": ("BYTES", ["2026-01-05T19:30:00+01:00", "2026-01-05T18:30:00Z", None])
    }
    with pytest.raises(Invalid, match="UTC offset"):
        sent({"at": at.replace(tzinfo=None)})


def test_values_are_plain() -> None:
    found = sent({"clicks": np.int64(3), "share": np.float32(0.5), "both": float("nan")})
    assert found == {"clicks": ("INT64", [3]), "share": ("FP32", [0.5]), "both": ("FP64", [None])}
    assert type(found["clicks"][1][0]) is int


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "no rows"),
        ([{}], "takes no"),
        ([{"usr": "ana"}], "did you mean 'user'"),
        ([{"user": "ana", "clicks": 1}], "does not take 'clicks' beside 'user'"),
        ([{"user": object()}], "'user' contains a object"),
        ([{"share": float("inf")}], "'share' contains inf"),
    ],
)
def test_what_no_tensor_holds_is_named(rows: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(Invalid) as caught:
        tensors_of(rows, MODEL)
    assert words in str(caught.value)


def test_replies_become_predictions() -> None:
    reply = {
        "model_version": "3",
        "outputs": [{"name": "value", "data": [1.0, 2.0]}, {"name": "wide", "data": [1, 2, 3, 4]}],
        "parameters": {"prediction_ids": ["a", "b"], "feature_statuses": {"V.x": ["PRESENT", "MISSING"]}},
    }
    found = predictions_of("late", reply, 2)
    assert (len(found), found.version, found.ids) == (2, "3", ("a", "b"))
    assert (found[1].id, found[1].values, found[1].statuses) == (
        "b",
        {"value": 2.0, "wide": [3, 4]},
        {"V.x": "MISSING"},
    )
    assert [each.id for each in found[:1]] == ["a"]
    with pytest.raises(Invalid, match="value, wide"):
        _ = found.values
    only = predictions_of("late", {"outputs": reply["outputs"][:1]}, 2)
    assert (only.values, only[0].value, only[0].id, only.version) == ([1.0, 2.0], 1.0, "", "")
