"""Bundles of XGBoost, LightGBM and CatBoost become packages, proved on their golden rows, or are refused by name."""

from __future__ import annotations

import importlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import mainspring as ms
from kit import serving
from kit.devices import TRUSTED, package
from kit.models import FEATURES, lightgbm_bundle, xgboost_bundle, xgboost_file
from kit.native_trees import FILES, grown, grown_by_texts, trees
from kit.serving import INPUTS
from mainspring.core.errors import Corrupt, Invalid, NotConvertible
from mainspring.deploy.edge.converting import in_onnx, tree_model
from mainspring.deploy.edge.signature import signature_of
from mainspring.features.declaring import request_features
from mainspring.features.definitions import dump
from mainspring.operations.edge.int8 import judge_int8
from mainspring.registry.model import Bundle
from mainspring.serving.ports import Executor
from mainspring.stats.curves import Curve
from mainspring.training.flavours import fresh
from mainspring.training.flavours.scoring import open_session
from mainspring_edge import InvalidRow, load
from mainspring_edge.model import Model

ROW = {
    "Carrier.flights_1h": 3,
    "Carrier.delay_1h": 12.5,
    "distance": 500.0,
    "scheduled_at": "2013-07-01T09:30:00+02:00",
}
CURVES = {
    "none": None,
    "platt": Curve(1e-4, 0.8, 0.1),
    "isotonic": Curve(1e-4, knots=(-2.0, 0.0, 2.0), heights=(0.1, 0.4, 0.9)),
}


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("library", FILES)
def test_a_package_answers_as_the_library_and_tests_itself(library: str, curve: str, tmp_path: Path) -> None:
    made = trees(library, curve=CURVES[curve])
    device = load(package(tmp_path / "p", made), TRUSTED)
    device.self_test()
    known = None if CURVES[curve] is None else msgspec.to_builtins(CURVES[curve])
    native = fresh.load(FILES[library], grown(library), known)
    rows = [{**ROW, "Carrier.flights_1h": n, "Carrier.delay_1h": None if n % 7 == 0 else n / 3} for n in range(40)]
    features = device.features(rows)
    given = {each.name: np.array(features[each.name], np.float64).reshape(-1, 1) for each in INPUTS}
    assert device.predict(rows)["probability"] == pytest.approx(native(given)[:, 0], abs=2e-6)


@pytest.mark.parametrize("library", FILES)
def test_infinite_numbers_are_refused_or_answered_as_the_gateway_does(library: str, tmp_path: Path) -> None:
    made = trees(library)
    device = load(package(tmp_path / "p", made), TRUSTED)
    gateway = open_executor(library, made)
    for value in (math.inf, -math.inf):
        for field, name in (("Carrier.delay_1h", "Carrier.delay_1h"), ("distance", "Schedule.thousands")):
            rows = [ROW, {**ROW, field: value}]
            features = device.features(rows)
            assert features[name][1] == value
            if library == "catboost":
                wanted = gateway.predict(features, 2)["probability"]
                assert device.predict(rows)["probability"] == pytest.approx(list(wanted), abs=1e-9)
                continue
            with pytest.raises(Invalid) as refused:
                gateway.predict(features, 2)
            kind = "float32" if library == "xgboost" else "float64"
            assert refused.value.what == f"Input {name!r} is infinite, or too large for {kind}, in row 1."
            with pytest.raises(InvalidRow) as told:
                device.predict(rows)
            assert str(told.value) == refused.value.what


def open_executor(library: str, made: Bundle) -> Executor:
    module = importlib.import_module(f"mainspring.serving.adapters.{library}")
    executor: Executor = getattr(module, f"{library.capitalize()}Executor")(made)
    return executor


def test_what_float32_rounds_to_infinity_is_refused_too() -> None:
    """An ensemble of XGBoost takes float64 from a device, and float32 inside."""
    pytest.importorskip("xgboost")
    made = in_onnx(trees("xgboost"), "late:1")
    signature = signature_of(open_session(made.files["model.onnx"]), made.manifest)
    model = Model(made.files["model.onnx"], signature, [each.name for each in INPUTS])
    rows = {each.name: [1.0, 1e39 if each.name == "Carrier.delay_1h" else 2.0] for each in INPUTS}
    with pytest.raises(InvalidRow, match=r"'Carrier\.delay_1h' is infinite, or too large for float32, in row 1"):
        model.predict(rows, 2)


def test_made_rows_leave_out_what_is_refused(tmp_path: Path) -> None:
    @request_features
    class Schedule:
        thousands = ms.col("distance") * 1e306
        hour = ms.col("scheduled_at").hour().cast(ms.Int64)

    made = trees("lightgbm")
    files = {**made.files, "features.json": dump([serving.Carrier, Schedule], serving.OBSERVATIONS)}
    folder = package(tmp_path / "p", replace(made, files=files))
    golden = json.loads((folder / "golden.json").read_bytes())
    assert max(each or 0.0 for each in golden["rows"]["distance"]) == 100.0
    assert len(golden["rows"]["distance"]) > 20
    load(folder, TRUSTED).self_test()


@pytest.mark.parametrize("library", FILES)
def test_golden_rows_that_it_does_not_meet_refuse_it_with_the_number(library: str, tmp_path: Path) -> None:
    with pytest.raises(NotConvertible, match=r"differs by 0\.000\d+ from the answers that training recorded; .* 1e-05"):
        package(tmp_path / "p", trees(library, shift=3e-4))
    assert not (tmp_path / "p").exists()


def test_a_matrix_as_one_tensor(tmp_path: Path) -> None:
    for made in (xgboost_bundle("multiclass"), lightgbm_bundle("categories")):
        name = next(name for name in made.files if name.startswith("model."))
        kind = np.float32 if name == "model.ubj" else np.float64
        matrix = np.random.default_rng(2).normal(size=(30, FEATURES)).astype(kind)
        matrix[::3, 1] = np.nan
        answers = fresh.load(name, made.files[name])({"input": matrix})
        wanted = answers.tolist() if answers.shape[1] > 1 else answers[:, 0].tolist()
        listed = [[None if np.isnan(x) else x for x in row] for row in matrix.tolist()]
        golden = json.dumps({"inputs": {"input": listed}, "outputs": {"output": wanted}}).encode()
        whole = replace(made, files={**made.files, "golden.json": golden})
        device = load(package(tmp_path / name, whole), TRUSTED)
        device.self_test()
        assert np.allclose(device.predict([{"input": row} for row in listed])["output"], wanted, atol=2e-6)


def linear() -> Bundle:
    return lightgbm_bundle("linear", columns=True)


def unknown_objective() -> Bundle:
    made = lightgbm_bundle(columns=True)
    content = made.files["model.txt"].replace(b"objective=binary sigmoid:1", b"objective=cross_entropy_lambda")
    return replace(made, files={"model.txt": content})


def classes() -> Bundle:
    made = xgboost_bundle("multiclass", "json", columns=True)
    content = xgboost_file("multiclass", "json").replace(b"multi:softprob", b"multi:softmax")
    return replace(made, files={"model.json": content})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (linear, "leaves of late:1 are linear functions"),
        (unknown_objective, "late:1 has the objective 'cross_entropy_lambda'"),
        (classes, "late:1 has the objective 'multi:softmax'"),
        (lambda: xgboost_bundle("linear", columns=True), "late:1 is a 'gblinear', not trees"),
        (grown_by_texts, r"late:1 takes the categories \['V.kind'\]"),
    ],
)
def test_what_has_no_exact_counterpart_is_named(make: Any, words: str) -> None:
    pytest.importorskip("lightgbm")
    pytest.importorskip("xgboost")
    with pytest.raises(NotConvertible, match=words) as caught:
        tree_model(make(), "late:1")
    assert caught.value.fix


def test_categories_that_would_fill_a_device_are_refused() -> None:
    from mainspring.deploy.edge import converting
    from mainspring.deploy.edge.trees import Derived

    sets = [Derived(5, (9_000_000,), True, False, float(number)) for number in range(9)]
    with pytest.raises(NotConvertible, match="The categories of 'kind' would take 77 MB"):
        converting._sides(converting._Graph(), "x", sets, "'kind'")


def test_a_bundle_without_golden_rows_is_refused_and_int8_says_why(tmp_path: Path) -> None:
    made = trees("lightgbm")
    with pytest.raises(Corrupt, match="golden rows"):
        in_onnx(replace(made, files={name: made.files[name] for name in made.files if name != "golden.json"}), "late:1")
    kept = in_onnx(made, "late:1")
    assert kept.manifest.flavour == "onnx"
    assert set(kept.files) == set(made.files) - {"model.txt"} | {"model.onnx"}
    assert in_onnx(kept, "late:1") is kept
    assert "no held-out rows" in judge_int8(kept, 0.5)[0].why
    index = json.loads((package(tmp_path / "p", made) / "edge.json").read_bytes())
    assert (index["precision"], index["bundle"]) == ("fp32", made.digest)
