"""A device computes features, predicts and tests itself; its command line does the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kit.devices import TRUSTED, package
from kit.models import mlp_bundle
from kit.serving import KEY, bundle, expected
from mainspring_edge import Device, InvalidRow, Refused, SelfTestFailed, load
from mainspring_edge.cli import main

ROW: Mapping[str, Any] = {
    "Carrier.flights_1h": 3,
    "Carrier.delay_1h": 12.5,
    "distance": 500.0,
    "scheduled_at": "2013-07-01T09:30:00+02:00",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package(tmp_path_factory.mktemp("edge") / "late", version=3)


@pytest.fixture(scope="module")
def device(folder: Path) -> Device:
    return load(folder, TRUSTED)


def test_a_row_of_fields_and_stored_features_is_predicted(device: Device) -> None:
    assert device.inputs == {
        "Carrier.flights_1h": "int64",
        "Carrier.delay_1h": "float32",
        "distance": "float32",
        "scheduled_at": "timestamp",
    }
    at = datetime(2013, 7, 1, 7, 30, tzinfo=UTC)
    rows = [ROW, {**ROW, "scheduled_at": at}, {**ROW, "scheduled_at": int(at.timestamp()) * 1_000_000, "more": 1}]
    features = {
        "Carrier.flights_1h": [3],
        "Carrier.delay_1h": [12.5],
        "Schedule.thousands": [0.5],
        "Schedule.hour": [7],
    }
    assert device.features(rows) == {name: values * 3 for name, values in features.items()}
    assert device.predict(rows)["probability"] == pytest.approx(expected(features) * 3, abs=1e-6)
    assert device.predict([]) == {"probability": []}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"distance": "500"}, "'distance' is '500', which is not a float32"),
        ({"distance": True}, "not a float32"),
        ({"distance": 1e39}, "not a float32"),
        ({"Carrier.flights_1h": 1.0}, "not a int64"),
        ({"Carrier.flights_1h": 2**63}, "not a int64"),
        ({"scheduled_at": "2013-07-01T09:30:00"}, "not a timestamp"),
        ({"scheduled_at": datetime(2013, 7, 1)}, "not a timestamp"),  # noqa: DTZ001
        ({"scheduled_at": "yesterday"}, "not a timestamp"),
        ({"scheduled_at": 1 << 62}, "not a timestamp"),
    ],
)
def test_a_value_of_another_type_is_named(device: Device, change: Mapping[str, Any], words: str) -> None:
    with pytest.raises(InvalidRow, match=words):
        device.predict([ROW, {**ROW, **change}])


def test_a_missing_input_is_named(device: Device) -> None:
    with pytest.raises(InvalidRow, match=r"lacks the input 'distance'; it has \['Carrier"):
        device.predict([{name: value for name, value in ROW.items() if name != "distance"}])


def test_a_model_of_tensors(tmp_path: Path) -> None:
    made = mlp_bundle()
    from dataclasses import replace

    from mainspring.registry.model import Bundle

    golden = {"inputs": {"x": [[0.0, 0.0, 0.0, 0.0]]}, "outputs": {"y": [[0.0, 0.0, 0.0]]}}
    kept: Bundle = replace(made, files={**made.files, "golden.json": json.dumps(golden).encode()})
    device = load(package(tmp_path / "p", kept), TRUSTED)
    assert device.inputs == {"x": "tensor"}
    found = device.predict([{"x": [1, 2, 3, 4]}, {"x": [0.5, 0, 0, 0]}])["y"]
    assert [len(row) for row in found] == [3, 3]
    with pytest.raises(InvalidRow, match=r"'x' of the model is \[\[1, 2\]\]"):
        device.predict([{"x": [1, 2]}])
    with pytest.raises(SelfTestFailed, match="Output y of golden model 0"):
        device.self_test()


def _resigned(folder: Path, name: str, change: Any) -> Device:
    import hashlib

    document = json.loads((folder / name).read_bytes())
    content = json.dumps(change(document)).encode()
    (folder / name).write_bytes(content)
    index = json.loads((folder / "edge.json").read_bytes())
    index["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    signed = json.dumps(index).encode()
    (folder / "edge.json").write_bytes(signed)
    (folder / "edge.sig").write_bytes(KEY.sign(signed))
    return load(folder, TRUSTED)


def test_the_self_test_sees_a_wrong_output_and_a_wrong_feature(tmp_path: Path) -> None:
    load(package(tmp_path / "p"), TRUSTED).self_test()

    def other_output(golden: Any) -> Any:
        golden["outputs"]["probability"][1] += 1e-3
        return golden

    def other_answer(golden: Any) -> Any:
        golden["answers"]["probability"][2] += 1e-3
        return golden

    def other_feature(golden: Any) -> Any:
        place = next(at for at, value in enumerate(golden["features"]["Schedule.thousands"]) if value)
        golden["features"]["Schedule.thousands"][place] *= 1 + 1e-9
        return golden

    for number, (change, words) in enumerate(
        [(other_output, "golden model 1"), (other_answer, "golden row 2"), (other_feature, "Schedule.thousands")]
    ):
        with pytest.raises(SelfTestFailed, match=words):
            _resigned(package(tmp_path / str(number)), "golden.json", change).self_test()


def test_held_out_rows_of_people_do_not_leave(tmp_path: Path) -> None:
    whole = json.loads((package(tmp_path / "whole") / "golden.json").read_bytes())
    assert len(whole["outputs"]["probability"]) == 2
    definitions = json.loads(bundle().files["features.json"])
    definitions["sources"]["schedule"]["pii"] = ["distance"]
    made = bundle(features_json=json.dumps(definitions).encode())
    folder = package(tmp_path / "p", made)
    golden = json.loads((folder / "golden.json").read_bytes())
    assert (golden["columns"], golden["outputs"]) == ({}, {})
    assert len(golden["answers"]["probability"]) > 20
    load(folder, TRUSTED).self_test()


def test_an_operation_of_a_newer_build_is_named(tmp_path: Path) -> None:
    def newer(features: Any) -> Any:
        for step in features["steps"]:
            if step["op"] == "float_div":
                step["op"] = "float_pow"
        return features

    with pytest.raises(Refused, match="'float_pow'") as caught:
        _resigned(package(tmp_path / "p"), "features.json", newer)
    assert caught.value.reason == "features"


def test_the_command_checks_and_predicts(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "key").write_text(TRUSTED.hex() + "\n")
    assert main(["check", str(folder), "--key", f"@{tmp_path / 'key'}"]) == 0
    assert "late version 3: signature, files and golden rows are right" in capsys.readouterr().out
    assert main(["check", str(folder), "--key", TRUSTED.hex(), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == 3
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(ROW) + "\n" for _ in range(300)))
    assert main(["predict", str(folder), str(rows), "--key", TRUSTED.hex()]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 300
    assert 0 < json.loads(lines[299])["probability"] < 1


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("[1]", 2, "Line 2 is not a JSON object: '[1]'"),
        ("{", 2, "Line 2 is not a JSON object"),
        ('{"distance": 1}', 2, "lacks the input"),
    ],
)
def test_the_command_names_a_wrong_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, code: int, words: str
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(f"{json.dumps(ROW)}\n{line}\n")
    assert main(["predict", str(folder), str(rows), "--key", TRUSTED.hex()]) == code
    assert words in capsys.readouterr().err


def test_the_command_refuses(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(folder), "--key", "0" * 64]) == 1
    assert "another key" in capsys.readouterr().err
    assert main(["check", str(tmp_path), "--key", TRUSTED.hex()]) == 1
    assert main(["check", str(folder), "--key", f"@{tmp_path / 'none'}"]) == 1
    assert main(["predict", str(folder), str(tmp_path / "none"), "--key", TRUSTED.hex()]) == 2


def test_a_device_imports_nothing_of_the_package(folder: Path) -> None:
    code = (
        "import sys, mainspring_edge as e\n"
        f"e.load({str(folder)!r}, {TRUSTED.hex()!r}).self_test()\n"
        "print(sorted({n.partition('.')[0] for n in sys.modules} & {'mainspring', 'msgspec', 'onnx', 'pyarrow'}))"
    )
    source = Path(__file__).parents[3] / "edge-runtime" / "src"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(source)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
