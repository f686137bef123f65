"""What `mainspring edge check` says of personal columns: whether their values are in a package."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import pytest
from onnx import TensorProto

from kit.serving import bundle
from mainspring.core.schema import DType
from mainspring.deploy.edge.building import content_of
from mainspring.operations.edge.checking import private_finding
from mainspring.registry.model import Bundle, Input
from mainspring.training.flavours.graph import constant_model
from mainspring.training.flavours.graph import content_of as bytes_of


@pytest.fixture(scope="module")
def made() -> Bundle:
    """A model of one personal text, of which it knows two."""
    known = bundle()
    definitions = json.loads(known.files["features.json"])
    definitions["sources"]["schedule"]["pii"] = ["tail"]
    manifest = msgspec.structs.replace(known.manifest, inputs=(Input("tail", DType.String, ("N725MQ", "N14228")),))
    files = {
        "model.onnx": bytes_of(constant_model([("tail", TensorProto.STRING)], [0.5], ["probability"])),
        "features.json": json.dumps(definitions).encode(),
        "golden.json": json.dumps({"inputs": {"tail": ["N725MQ"]}, "outputs": {"probability": [0.5]}}).encode(),
    }
    return replace(known, manifest=manifest, files=files)


def test_a_package_has_no_value_of_a_personal_column(made: Bundle) -> None:
    content = content_of(made)
    assert b"N725MQ" not in content.files["golden.json"]
    assert b"N14228" not in content.files["golden.json"]
    golden = json.loads(content.files["golden.json"])
    found = private_finding(made, frozenset({"tail"}), content.files, golden)
    assert (found.ok, found.detail) == (True, "No value of tail is in the package.")
    assert private_finding(made, frozenset(), content.files, golden).detail == "The model takes none."
    assert "does not have the package's bundle" in private_finding(None, frozenset(), content.files, golden).detail


def test_each_way_that_a_value_would_leave_is_named(made: Bundle) -> None:
    content = content_of(made)
    columns = [{"name": "tail", "kind": "categorical"}, {"name": "other", "kind": "hidden"}]
    files = {
        **content.files,
        "model.onnx": content.files["model.onnx"] + b"N725MQ",
        "sketch.json": json.dumps({"columns": columns}).encode(),
    }
    found = private_finding(made, frozenset({"tail"}), files, {"columns": {"tail": ["N725MQ"]}})
    assert not found.ok
    assert found.detail == (
        "Values would leave: the golden rows are held-out rows; the sketch has bins of tail; "
        "the model holds 1 texts of tail."
    )
    assert found.fix == "train the model without tail."
