"""Files of a bundle beside the model."""

from __future__ import annotations

import io
import json
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mainspring.core.schema import DType
from mainspring.core.time import DAY
from mainspring.stats.reference import Reference
from mainspring.stats.sketch_history import unpack
from mainspring.training.bundling import (
    GOLDEN_PROBES,
    _quality,
    golden_file,
    golden_probes,
    inputs_of,
    parquet_file,
    reference_file,
    wide_columns,
)
from mainspring.training.model import Model
from mainspring.training.sets.training_set import Split

DTYPES = {"V.x": DType.Float32, "V.n": DType.Int64, "V.b": DType.Boolean, "V.s": DType.String}


def split(rows: int, **changed: Any) -> Split:
    values: dict[str, Any] = {
        "V.x": np.arange(rows, dtype=np.float32) / 3,
        "V.n": np.where(np.arange(rows) % 5 == 0, np.nan, np.arange(rows, dtype=np.float64)),
        "V.b": (np.arange(rows) % 2).astype(np.float32),
        "V.s": pd.Series([None if row % 4 == 0 else f"s{row % 3}" for row in range(rows)], dtype=object),
        **changed,
    }
    return Split(pd.DataFrame(values), np.zeros(rows, np.int64), np.arange(rows))


def test_golden_rows_are_spread_and_have_the_types_of_a_request() -> None:
    held_out, scores = split(1000).X, np.arange(1000, dtype=np.float64).reshape(-1, 1) / 1000
    golden = json.loads(golden_file(held_out, DTYPES, scores, ("probability",)))
    rows = [round(score * 1000) for score in golden["outputs"]["probability"]]
    assert (len(rows), rows[0], rows[-1]) == (200, 0, 999)
    assert max(np.diff(rows)) <= 6
    assert list(golden["inputs"]) == list(DTYPES)
    assert golden["inputs"]["V.n"] == [None if row % 5 == 0 else row for row in rows]
    assert golden["inputs"]["V.b"] == [bool(row % 2) for row in rows]
    assert golden["inputs"]["V.s"] == [None if row % 4 == 0 else f"s{row % 3}" for row in rows]
    assert np.array_equal(np.array(golden["inputs"]["V.x"], np.float32), held_out["V.x"].to_numpy()[rows])
    assert not any(isinstance(value, float) for value in golden["inputs"]["V.n"])


def test_the_rarest_of_very_many_classes_is_recorded() -> None:
    """A gate on shares of classes judges the rarest one, of however many."""
    classes = np.r_[np.repeat(np.arange(1200), 3), 1200].astype(str)
    model = Model.__new__(Model)
    object.__setattr__(model, "task", "multiclass")
    object.__setattr__(model, "gates", ())
    rows = Split(pd.DataFrame({"V.x": np.zeros(classes.size)}), classes, np.arange(classes.size))
    shares = _quality(model, rows)["class_shares"]
    assert min(shares.values()) == shares["1200"] == 1 / classes.size


def test_few_rows_are_all_golden() -> None:
    golden = json.loads(golden_file(split(3).X, DTYPES, np.zeros((3, 2)), ("a", "b")))
    assert golden["outputs"] == {"a": [0.0] * 3, "b": [0.0] * 3}
    assert len(golden["inputs"]["V.x"]) == 3


def test_probes_that_a_request_could_hold_are_golden_too() -> None:
    frame = split(2000).X.assign(**{"V.n": np.arange(2000) / 2, "V.b": np.float32(1)})
    frame.loc[frame.index < 4, "V.b"] = 0.5
    words = ["V.n null", "V.s unseen", "V.n null", "V.s unseen", *["V.n near the threshold 3"] * 1996]
    found = golden_probes(frame, words, DTYPES)
    assert len(found) == GOLDEN_PROBES  # the first four hold half a boolean
    assert (found["V.n"] % 1 == 0).all()
    frame["V.b"] = np.float32(0)
    found = golden_probes(frame, words, DTYPES)
    assert found["V.n"].iloc[:1].tolist() == [1.0]  # of each kind one, if its numbers are whole
    assert len(found) == 1 + GOLDEN_PROBES
    scores = np.zeros((len(found), 1))
    golden = json.loads(golden_file(frame, DTYPES, np.zeros((2000, 1)), ("value",), (found, scores)))
    assert len(golden["inputs"]["V.n"]) == 200
    assert len(golden["probes"]["inputs"]["V.n"]) == len(golden["probes"]["outputs"]["value"]) == len(found)


def test_inputs_carry_the_categories_of_training() -> None:
    inputs = inputs_of(split(20), DTYPES)
    assert [(each.name, each.dtype) for each in inputs] == list(DTYPES.items())
    assert [each.categories for each in inputs] == [(), (), (), ("s0", "s1", "s2")]
    many = split(1001, **{"V.s": pd.Series([f"s{row}" for row in range(1001)], dtype=object)})
    assert inputs_of(many, DTYPES)[3].categories == ()


def test_columns_that_float32_cannot_hold() -> None:
    fine = split(10)
    assert wide_columns([fine, fine], DTYPES) == []
    assert wide_columns([fine, split(10, **{"V.n": np.full(10, 2.0**24 + 1)})], DTYPES) == ["V.n"]
    assert wide_columns([split(10, **{"V.n": np.full(10, 0.1)})], {**DTYPES, "V.n": DType.Float64}) == ["V.n"]


def test_the_reference_has_every_column_and_the_scores() -> None:
    scores = np.linspace(0, 1, 50).reshape(-1, 1)
    reference = json.loads(reference_file(split(100), scores, ("probability",)))["columns"]
    assert list(reference) == [*DTYPES, "probability"]
    assert reference["V.s"]["kind"] == "categorical"
    assert (reference["V.x"]["kind"], reference["V.x"]["count"]) == ("numeric", 100)
    assert reference["V.n"]["nulls"] + reference["V.n"]["nans"] == 20
    assert reference["probability"]["count"] == 50


def test_the_reference_has_the_days_of_all_rows_and_the_held_out_scores() -> None:
    parts = [split(60), split(20), split(50)]
    for place, part in enumerate(parts):
        part.at[:] = np.arange(len(part)) * (DAY // 10) + 20 * place * DAY
    scores = np.linspace(0, 1, 50).reshape(-1, 1)
    content = reference_file(parts[0], scores, ("probability",), parts)
    days = unpack(msgspec.json.decode(content, type=Reference).history)
    assert [day.start // DAY for day in days] == [*range(6), 20, 21, *range(40, 45)]
    assert {day.sketch.columns for day in days} == {(*DTYPES, "probability")}
    assert [day.pairs.rows for day in days] == [10] * 13
    rows = [tuple(day.sketch.count("rows").tolist()) for day in days]
    assert rows == [(10, 10, 10, 10, 0)] * 8 + [(10, 10, 10, 10, 10)] * 5
    assert reference_file(parts[0], scores, ("probability",), parts) == content
    crossed = msgspec.json.decode(content, type=Reference).crossed
    assert crossed == ("V.x", "V.n")  # the score grows with both


def test_held_out_rows_come_back_as_they_were() -> None:
    table = pa.table({"V.x": pa.array([1.5, None], pa.float32()), "_label": [True, False]})
    assert pq.read_table(io.BytesIO(parquet_file(table))).equals(table)
