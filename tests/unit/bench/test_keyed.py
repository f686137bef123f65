"""By an entity's key: what ours, a floor and Feast read is the same row, and the model's answer to it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import keyed
import serve_floor
import serve_keys
from mainspring.features.online import OnlineReader
from mainspring.project import Project
from mainspring.serving.adapters.onnx import OnnxExecutor
from mainspring.serving.plane.runtime import load
from networks import onnx_mlp

NOW_OF_FEAST = {
    "metadata": {"feature_names": ["user", *reversed(keyed.FEATURES)]},
    "results": [{"values": ["user-000007"]}, *({"values": [float(number)]} for number in range(10))],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "mlp.onnx"
    onnx_mlp(path, (len(keyed.FEATURES), 8, 1))
    return path


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Project:
    folder = tmp_path_factory.mktemp("keyed")
    pq.write_table(keyed.facts(), folder / "facts.parquet")
    return keyed.prepared(folder, folder / "facts.parquet", model)


def test_the_project_answers_by_key_as_the_model(project: Project, model: Path) -> None:
    wanted = keyed.expected(keyed.facts(), model, users=20)
    (route,) = project.routes.current().values()
    (arm,) = route.arms
    runtime = load(project.bundles.load(arm.digest), project.online, OnnxExecutor)
    assert isinstance(runtime.reader, OnlineReader)
    read = runtime.reader.read({"user": list(wanted)}, project.clock.now())
    assert {status for column in read.statuses.values() for status in column} == {"PRESENT"}
    found = runtime.executor.predict(read.features, len(wanted))["value"]
    assert np.allclose(found, np.ravel(list(wanted.values())), atol=1e-5)


def test_a_floor_reads_the_same_rows(project: Project) -> None:
    table = keyed.facts().slice(40, 3)
    rows = serve_floor.stored(*keyed.store(project))([[user] for user in table["user"].to_pylist()])
    assert np.allclose(rows, np.column_stack([table[name] for name in keyed.FEATURES]), atol=1e-6)


def test_requests_name_a_user_each() -> None:
    (asked,) = keyed.requests(8080, ["user-000007"], [("Authorization", "Bearer k")])
    head, _, body = asked.partition(b"\r\n\r\n")
    assert b"Authorization: Bearer k" in head
    assert json.loads(body)["inputs"] == [{"name": "user", "shape": [1], "datatype": "BYTES", "data": ["user-000007"]}]


def test_features_from_feast_come_in_our_order() -> None:
    assert serve_keys.row_of(NOW_OF_FEAST) == [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0]
    (asked,) = serve_keys.features_of(6566, ["user-000007"])
    document = json.loads(asked.partition(b"\r\n\r\n")[2])
    assert document["entities"] == {"user": ["user-000007"]}
    assert document["features"] == [f"facts:{name}" for name in keyed.FEATURES]


def test_without_feast_its_columns_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(serve_keys.starting, "missing", lambda _: "not installed")
    found = serve_keys.others(tmp_path, tmp_path, tmp_path, {}, 1.0)
    assert {name: [each.note for each in turns] for name, turns in found.items()} == {
        "feast and mlserver": ["not installed"],
        "feast and litserve": ["not installed"],
    }
