"""`kit.serving`'s model, grown as trees by XGBoost, LightGBM or CatBoost: a bundle with features and golden rows."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from kit.models import sealed
from kit.serving import INPUTS, KEY, bundle
from mainspring.core.schema import DType
from mainspring.registry.bundles import seal
from mainspring.registry.model import Bundle, Input
from mainspring.stats.curves import Curve
from mainspring.training.flavours import fresh

FILES = {"xgboost": "model.ubj", "lightgbm": "model.txt", "catboost": "model.cbm"}


@cache
def grown(library: str) -> bytes:
    """Return a model file of a library; the test is skipped where it is not installed."""
    module: Any = pytest.importorskip(library)
    rng = np.random.default_rng(0)
    matrix = np.column_stack(
        [rng.integers(0, 40, 800), rng.normal(12, 6, 800), rng.random(800), rng.integers(0, 24, 800)]
    )
    labels = (matrix[:, 1] * matrix[:, 2] + matrix[:, 3] / 4 > 9) ^ (rng.random(800) < 0.1)
    matrix[rng.random(matrix.shape) < 0.1] = np.nan
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILES[library]
        if library == "xgboost":
            kinds = ["q", "q", "q", "c"]
            data = module.DMatrix(matrix, label=labels, feature_types=kinds, enable_categorical=True)
            module.train({"objective": "binary:logistic", "nthread": 1}, data, 12).save_model(path)
        elif library == "lightgbm":
            params = {"objective": "binary", "num_threads": 1, "verbose": -1}
            data = module.Dataset(matrix, label=labels, categorical_feature=[3])
            module.train(params, data, 12).save_model(path)
        else:
            made = module.CatBoostClassifier(iterations=12, thread_count=1, verbose=0, allow_writing_files=False)
            made.fit(matrix, labels).save_model(str(path))
        return path.read_bytes()


def trees(library: str, *, curve: Curve | None = None, shift: float = 0.0) -> Bundle:
    """Return the bundle; its golden rows have what the library answers, plus `shift`."""
    made, name, content = bundle(), FILES[library], grown(library)
    rng = np.random.default_rng(1)
    columns: dict[str, list[Any]] = {each.name: rng.integers(0, 30, 50).tolist() for each in INPUTS}
    columns["Schedule.thousands"] = rng.random(50).tolist()
    columns["Carrier.delay_1h"][:5] = [None] * 5
    known = None if curve is None else msgspec.to_builtins(curve)
    given = {each: np.array(values, np.float64).reshape(-1, 1) for each, values in columns.items()}
    answers = fresh.load(name, content, known)(given)[:, 0] + shift
    golden = json.dumps({"inputs": columns, "outputs": {"probability": answers.tolist()}}).encode()
    files = {each: made.files[each] for each in made.files if each != "model.onnx"}
    manifest = msgspec.structs.replace(made.manifest, flavour=library, curve=curve, files={})
    return seal(manifest, {**files, name: content, "golden.json": golden}, KEY)


def grown_by_texts() -> Bundle:
    """Return a bundle of CatBoost with a column of texts."""
    module: Any = pytest.importorskip("catboost")
    texts = [["a"], ["b"], ["c"], ["a"]] * 20
    made = module.CatBoostRegressor(iterations=2, thread_count=1, verbose=0, allow_writing_files=False)
    made.fit(texts, [float(len(each[0])) + place % 4 for place, each in enumerate(texts)], cat_features=[0])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.cbm"
        made.save_model(str(path))
        inputs = (Input("V.kind", DType.String),)
        return sealed("catboost", {path.name: path.read_bytes()}, task="regression", inputs=inputs, outputs=("value",))
