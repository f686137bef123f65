"""INT8 only where the model's own gates and a tolerance allow it, on held-out rows that did not calibrate it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mainspring as ms
from kit.bakery import late_model
from kit.devices import TRUSTED, package
from kit.serving import KEY
from kit.stage import Stage, rows
from mainspring.core.errors import NotConvertible
from mainspring.deploy.edge.building import FP32, content_of
from mainspring.operations.edge.building import AUTO, packed
from mainspring.operations.edge.int8 import judge_int8
from mainspring.registry.model import Bundle
from mainspring.training.gate_kinds import Gate
from mainspring.training.optimise.static_int8 import quantised
from mainspring_edge import load


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    stage = Stage(tmp_path_factory.mktemp("stage"))
    bundle = stage.bundles.load(stage.register(["V.a", "V.b"]).digest)
    return with_golden(bundle, 1.0)


def with_golden(bundle: Bundle, last: float | None) -> Bundle:
    inputs = {"V.a": [0.0, 1.5, -2.0, last], "V.b": [1.0, 0.0, 0.5, 1.0]}
    golden = {"inputs": inputs, "outputs": {"probability": [0.5] * 4}}
    return replace(bundle, files={**bundle.files, "golden.json": json.dumps(golden).encode()})


def gated(*gates: Gate) -> Any:
    return replace(late_model(), gates=gates)


def test_it_is_smaller_near_and_allowed_by_a_tolerance_that_it_meets(made: Bundle) -> None:
    found, content = judge_int8(made, 0.02, gated(ms.at_least("auc", 0.6)))
    assert found.allowed
    assert found.why == ""
    assert found.worst is not None
    assert 0 < found.worst < 0.02
    assert found.judged == 450  # of 600, of which every fourth calibrated
    assert found.rows == 454
    assert [gate.passed for gate in found.gates] == [True]
    assert b"QuantizeLinear" in (content or b"")


def test_the_bundles_own_tolerance_refuses_it_and_says_by_how_much(made: Bundle) -> None:
    found, content = judge_int8(made, made.manifest.tolerance)
    assert content is None
    assert found.why == f"an output differs by {found.worst:.2g}, more than 1e-05"


def test_a_gate_refuses_it(made: Bundle) -> None:
    auc = judge_int8(made, 0.02, gated(ms.at_least("auc", 0.6)))[0].gates[0].value
    assert auc is not None
    found, content = judge_int8(made, 0.02, gated(ms.at_least("auc", auc + 0.001)))
    assert content is None
    assert "a gate fails: auc at least" in found.why


def test_a_number_where_fp32_has_none_is_a_difference(made: Bundle) -> None:
    assert "differs by inf" in judge_int8(with_golden(made, None), 0.02)[0].why


def test_without_held_out_rows_or_products_it_is_not_tried(made: Bundle) -> None:
    alone = replace(made, files={name: made.files[name] for name in ("model.onnx", "golden.json")})
    assert "no held-out rows" in judge_int8(alone, 0.5)[0].why
    from kit.models import identity

    with pytest.raises(NotConvertible, match="no products of matrices"):
        quantised(identity("FP32"), {"x": np.zeros((4, 3), np.float32)})


def test_a_row_has_the_same_answer_alone_and_in_a_batch_on_a_device(made: Bundle, tmp_path: Path) -> None:
    found, model = judge_int8(made, 0.02)
    content = content_of(made, model=model, tolerance=found.tolerance)
    assert (content.about["precision"], content.about["tolerance"]) == ("int8", 0.02)
    from mainspring.deploy.edge.package import write_package

    write_package(tmp_path / "p", {**content.about, "project": "toy", "version": 1}, content.files, KEY)
    device = load(tmp_path / "p", TRUSTED)
    table = rows(seed=3, count=64)
    given = table.select(["V.a", "V.b"]).to_pylist()
    together = device.predict(given)["probability"]
    assert together == [device.predict([row])["probability"][0] for row in given]


def test_a_package_has_what_the_verdict_says(made: Bundle) -> None:
    content, found = packed(made, None, AUTO, 0.02, stored_as_inputs=False)
    assert found is not None
    assert (found.allowed, content.about["precision"], len(content.files["model.onnx"])) == (True, "int8", found.bytes)
    fp32 = len(made.files["model.onnx"])
    assert found.detail(fp32).startswith(f"INT8: {found.bytes:,} of {fp32:,} bytes; outputs differ by at most 0.0")
    content, found = packed(made, None, AUTO, None, stored_as_inputs=False)
    assert found is not None
    assert found.detail(fp32) == f"An output differs by {found.worst:.2g}, more than 1e-05."
    assert (content.about["precision"], content.files["model.onnx"]) == ("fp32", made.files["model.onnx"])
    assert packed(made, None, FP32, None, stored_as_inputs=False)[1] is None


def test_fp32_is_the_default_of_a_package(made: Bundle, tmp_path: Path) -> None:
    index = json.loads((package(tmp_path / "p", made) / "edge.json").read_bytes())
    assert (index["precision"], index["tolerance"]) == ("fp32", 1e-5)
