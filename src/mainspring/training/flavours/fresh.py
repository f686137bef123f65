"""Scoring script for a fresh process: `python -P fresh.py FOLDER WHOLE MIXED`.

The script imports only NumPy and the model's runtime, so the proof cannot depend on the training process. FOLDER holds
the model (`model.onnx`, `model.ubj`, `model.txt` or `model.cbm`) and `inputs.npz` (one array per input, in the model's
order, no pickle). The script writes `answers.npz`. `whole` and `mixed`, shape (rows, outputs), are predictions for all
rows: in order in batches of WHOLE, and shuffled in batches of MIXED. `alone` are predictions for single rows, whose
numbers are in `alone_rows`. `none`, shape (0, outputs), is the output for an empty batch; it is missing if the model
fails on one.

Optional `curve.json` is the calibration curve of the model's output. Optional `categories.json` maps input -> its
texts, in the order of the codes that XGBoost or LightGBM takes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_ALONE = 300

Array = np.ndarray[Any, Any]
Answer = Callable[[dict[str, Array]], Array]  # input -> array of shape (rows, ...); (rows, outputs), float64


def load(
    name: str,
    content: bytes,
    curve: dict[str, Any] | None = None,
    categories: Mapping[str, Sequence[str]] | None = None,
    provider: tuple[str, dict[str, str]] | None = None,
) -> Answer:
    """Return a function that scores rows with a model file. Errors of the framework pass through.

    Args:
        provider: Execution provider of ONNX Runtime that runs the whole graph, and its options; by default the
            processor's.

    Written independently of the serving executors, so that each checks the other.
    """
    kind = name.rpartition(".")[2]
    if kind == "onnx":
        answer = _onnx(content, provider)
    else:
        answer = {"ubj": _xgboost, "txt": _lightgbm, "cbm": _catboost}[kind](content)
    if categories and kind in ("ubj", "txt"):
        answer = _coded(answer, categories)
    return answer if curve is None else lambda inputs: _curved(answer(inputs), curve)


def _coded(answer: Answer, categories: Mapping[str, Sequence[str]]) -> Answer:
    codes = {name: {text: float(code) for code, text in enumerate(texts)} for name, texts in categories.items()}

    def of_codes(inputs: dict[str, Array]) -> Array:
        numbers = dict(inputs)
        for name, known in codes.items():
            found = [known.get(text, np.nan) for text in inputs[name].ravel().tolist()]
            numbers[name] = np.array(found, np.float64).reshape(inputs[name].shape)
        return answer(numbers)

    return of_codes


def _curved(found: Array, curve: dict[str, Any]) -> Array:
    p = np.minimum(np.maximum(found.astype(np.float64), curve["least"]), 1 - curve["least"])
    odds = np.log(p) - np.log(1 - p)
    if curve["knots"]:
        return np.asarray(np.interp(odds, curve["knots"], curve["heights"]))
    return np.asarray(1 / (1 + np.exp(-(curve["slope"] * odds + curve["intercept"]))))


def _onnx(content: bytes, provider: tuple[str, dict[str, str]] | None) -> Answer:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if provider is not None:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = ort.InferenceSession(content, options, providers=[provider or "CPUExecutionProvider"])

    def answer(inputs: dict[str, Array]) -> Array:
        return np.concatenate([_flat(each) for each in session.run(None, inputs)], axis=1)

    return answer


def _xgboost(content: bytes) -> Answer:
    import xgboost

    booster = xgboost.Booster({"nthread": 1}, model_file=bytearray(content))
    best = booster.attr("best_iteration")
    trees = (0, 0) if best is None else (0, int(best) + 1)

    def answer(inputs: dict[str, Array]) -> Array:
        matrix = _matrix(inputs, np.float32)
        return _flat(booster.inplace_predict(matrix, iteration_range=trees, missing=np.nan, validate_features=False))

    return answer


def _lightgbm(content: bytes) -> Answer:
    import lightgbm

    booster = lightgbm.Booster(model_str=content.decode())
    return lambda inputs: _flat(booster.predict(_matrix(inputs, np.float64), num_threads=1))


def _catboost(content: bytes) -> Answer:
    import catboost

    model = catboost.CatBoost().load_model(blob=content)
    loss = json.loads(model.get_metadata()["params"])["loss_function"]["type"]
    kinds = {"Logloss": "Probability", "CrossEntropy": "Probability", "MultiClass": "Probability"}
    kind = kinds.get(loss, "Exponent" if loss in ("Poisson", "Tweedie", "LogLinQuantile") else "RawFormulaVal")

    def answer(inputs: dict[str, Array]) -> Array:
        found = _flat(model.predict(_matrix(inputs, np.object_), prediction_type=kind, thread_count=1))
        return found[:, 1:] if loss in ("Logloss", "CrossEntropy") else found

    return answer


def _matrix(inputs: dict[str, Array], dtype: Any) -> Array:
    with np.errstate(over="ignore"):
        return np.concatenate([_flat(each).astype(dtype) for each in inputs.values()], axis=1)


def _flat(values: Any) -> Array:
    array = np.asarray(values)
    return array.reshape(len(array), int(np.prod(array.shape[1:])))


def in_parts(answer: Answer, inputs: dict[str, Array], rows: Array, size: int) -> Array:
    """Score the given rows in batches of `size`."""
    found = []
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        found.append(np.asarray(answer({name: values[batch] for name, values in inputs.items()}), np.float64))
    return np.concatenate(found)


def main(folder: Path, whole: int, mixed: int) -> None:
    (path,) = folder.glob("model.*")
    if path.suffix in {".txt", ".ubj"}:  # of LightGBM and XGBoost only the booster: the rest takes a second to import
        sys.modules.update(dict.fromkeys(("pandas", "sklearn")))  # type: ignore[arg-type]
    beside = folder / "curve.json"
    curve = json.loads(beside.read_bytes()) if beside.exists() else None
    known = folder / "categories.json"
    categories = json.loads(known.read_bytes()) if known.exists() else None
    answer = load(path.name, path.read_bytes(), curve, categories)
    with np.load(folder / "inputs.npz", allow_pickle=False) as stored:
        inputs = {name: _as_fed(stored[name]) for name in stored.files}
    rows = len(next(iter(inputs.values())))
    order = np.random.default_rng(0).permutation(rows)
    answers = {
        "whole": in_parts(answer, inputs, np.arange(rows), whole),
        "mixed": in_parts(answer, inputs, order, mixed)[np.argsort(order)],
        "alone": in_parts(answer, inputs, order[:_ALONE], 1),
        "alone_rows": order[:_ALONE],
    }
    try:
        none = answer({name: values[:0] for name, values in inputs.items()})
        answers["none"] = np.asarray(none, np.float64).reshape(0, answers["whole"].shape[1])
    except Exception as error:  # the absent array tells the caller
        print(f"no rows: {error!r}", file=sys.stderr)  # noqa: T201
    np.savez(folder / "answers.npz", allow_pickle=False, **answers)


def _as_fed(values: Array) -> Array:
    return values.astype(object) if values.dtype.kind == "U" else values


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
