"""CatBoost against the shared suite of executors: numbers, texts and nulls side by side."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kit.later import later
from kit.models import sealed
from mainspring.core.errors import Corrupt, Invalid
from mainspring.core.schema import DType
from mainspring.registry.model import Bundle, Input
from mainspring.serving.conformance.executors import ExecutorConformance, Inputs
from mainspring.serving.ports import Executor

catboost = later("catboost")

ROWS = 12
RNG = np.random.default_rng(3)
COLUMNS = (Input("Kind.a", DType.Float32), Input("Kind.kind", DType.String), Input("Kind.epoch", DType.Float64))
GIVEN = {
    "Kind.a": [None, *RNG.normal(size=ROWS - 1).tolist()],
    "Kind.kind": ["x", None, "never seen ☃", *RNG.choice(["x", "y", ""], ROWS - 3).tolist()],
    "Kind.epoch": (1.76e9 + 0.37 + np.arange(ROWS)).tolist(),
}
OUTPUTS = {"binary": ("probability",), "multiclass": ("a", "b", "c"), "regression": ("value",)}


@cache
def trained(task: str) -> tuple[Any, bytes]:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "Kind.a": rng.normal(size=500).astype(np.float32),
            "Kind.kind": rng.choice(["x", "y", ""], 500),
            "Kind.epoch": 1.76e9 + 0.37 + rng.integers(0, ROWS, 500),
        }
    )
    pull = rows["Kind.a"] + (rows["Kind.kind"] == "x") + (rows["Kind.epoch"] - 1.76e9) / 6
    y = pull * 1e6 if task == "regression" else np.digitize(pull, [1.0] if task == "binary" else [1.0, 2.0])
    kind = catboost.CatBoostRegressor if task == "regression" else catboost.CatBoostClassifier
    made = kind(iterations=30, thread_count=1, verbose=0, allow_writing_files=False)
    made.fit(rows, y, cat_features=["Kind.kind"])
    with TemporaryDirectory() as place:
        path = Path(place) / "model.cbm"
        made.save_model(str(path))
        return made, path.read_bytes()


def bundle(task: str) -> Bundle:
    return sealed("catboost", {"model.cbm": trained(task)[1]}, task=task, inputs=COLUMNS, outputs=OUTPUTS[task])


def open_executor(made: Bundle) -> Executor:
    from mainspring.serving.adapters.catboost import CatboostExecutor

    return CatboostExecutor(made)


@pytest.mark.parametrize("task", OUTPUTS)
class TestCatboost(ExecutorConformance):
    @pytest.fixture
    def executor(self, task: str) -> Executor:
        return open_executor(bundle(task))

    @pytest.fixture
    def inputs(self) -> Inputs:
        return GIVEN


@pytest.mark.parametrize("task", OUTPUTS)
def test_it_answers_bit_for_bit_as_the_library(task: str) -> None:
    frame = pd.DataFrame({**GIVEN, "Kind.kind": [value or "" for value in GIVEN["Kind.kind"]]})
    frame["Kind.a"] = frame["Kind.a"].astype(np.float32)
    model = trained(task)[0]
    expected = model.predict(frame) if task == "regression" else model.predict_proba(frame)
    expected = expected[:, 1:] if task == "binary" else np.asarray(expected).reshape(ROWS, -1)
    answers = open_executor(bundle(task)).predict(GIVEN, ROWS)
    assert np.array_equal(np.stack(list(answers.values()), axis=1), expected)


def test_a_number_for_a_text_is_refused() -> None:
    with pytest.raises(Invalid, match=r"Kind\.kind"):
        open_executor(bundle("binary")).predict({**GIVEN, "Kind.kind": [1] * ROWS}, ROWS)


def test_a_manifest_of_tensors_is_refused() -> None:
    from mainspring.registry.model import TensorSpec

    specs = {
        "tensors": (TensorSpec("x", "FP32", (-1, 3)),),
        "output_tensors": (TensorSpec("y", "FP64", (-1,)),),
    }
    with pytest.raises(Corrupt, match="takes columns"):
        open_executor(sealed("catboost", {"model.cbm": trained("binary")[1]}, **specs))
