"""What a CatBoost file is, read without CatBoost; damage is noticed, or changes nothing that is asked of it."""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from kit.later import later
from mainspring.core.errors import Corrupt, Invalid
from mainspring.registry.catboost_file import Ensemble, check_catboost
from mainspring.registry.model_file import read_model

catboost = later("catboost")

RNG = np.random.default_rng(0)
ROWS = pd.DataFrame({"a": RNG.normal(size=200), "kind": RNG.choice(["x", "y"], 200), "b": RNG.normal(size=200)})
CLASSES = RNG.integers(0, 3, 200)


@cache
def model(kind: str) -> bytes:
    options = {"iterations": 5, "thread_count": 1, "verbose": 0, "allow_writing_files": False}
    made: Any
    if kind == "texts":
        made = catboost.CatBoostClassifier(**options, text_features=["kind"])
        made.fit(ROWS.assign(kind=[f"{each} and more" for each in ROWS["kind"]]), CLASSES == 0)
    elif kind == "multiclass":
        made = catboost.CatBoostClassifier(**options).fit(ROWS[["a", "b"]], CLASSES)
    elif kind == "binary":
        made = catboost.CatBoostClassifier(**options).fit(ROWS, CLASSES > 0, cat_features=["kind"])
    else:
        made = catboost.CatBoostRegressor(**options, loss_function=kind).fit(ROWS[["a", "b"]], CLASSES)
    with TemporaryDirectory() as place:
        path = Path(place) / "model.cbm"
        made.save_model(str(path))
        return path.read_bytes()


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("binary", Ensemble((0, 2), (1,), 1, "Logloss", "Probability")),
        ("multiclass", Ensemble((0, 1), (), 3, "MultiClass", "Probability")),
        ("RMSE", Ensemble((0, 1), (), 1, "RMSE", "RawFormulaVal")),
        ("Poisson", Ensemble((0, 1), (), 1, "Poisson", "Exponent")),
    ],
)
def test_what_it_takes_and_gives(kind: str, found: Ensemble) -> None:
    assert check_catboost(model(kind)) == found


def test_texts_are_refused() -> None:
    with pytest.raises(Corrupt, match="text_process"):
        check_catboost(model("texts"))


def test_another_file_is_none() -> None:
    for content in (b"", b"tree\n", b"\x80\x04pickle."):
        with pytest.raises(Corrupt, match="does not start"):
            check_catboost(content)


def test_what_follows_the_model_is_refused() -> None:
    with pytest.raises(Corrupt, match="3 extra bytes after the end"):
        check_catboost(model("RMSE") + b"end")


@given(st.integers(0, 10_000))
def test_a_cut_file_is_refused(size: int) -> None:
    content = model("RMSE")
    with pytest.raises(Corrupt):
        check_catboost(content[: min(size, len(content) - 1)])


@settings(max_examples=examples(gate=100, deep=300))
@given(st.lists(st.tuples(st.integers(4, 40_000), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_file_is_refused_or_read_never_anything_else(changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(model("binary"))
    for place, value in changes:
        damaged[place % len(damaged)] = value
    try:
        check_catboost(bytes(damaged))
    except Corrupt:
        return


def test_offsets_beyond_the_end_are_refused() -> None:
    content = bytearray(model("RMSE"))
    struct.pack_into("<I", content, 8, 0xFFFFFFF0)
    with pytest.raises(Corrupt, match="truncated or damaged"):
        check_catboost(bytes(content))


def test_a_file_that_somebody_brings_is_refused_whatever_its_name(tmp_path: Path) -> None:
    for name in ("model.cbm", "model.onnx"):
        path = tmp_path / name
        path.write_bytes(model("RMSE"))
        with pytest.raises(Invalid, match="CatBoost's format"):
            read_model(path)
