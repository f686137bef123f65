"""A bundle holds one model of its flavour, or it is neither sealed nor loaded, whoever signed it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kit.models import (
    KEY,
    function_bundle,
    graph_bundle,
    identity_bundle,
    lightgbm_bundle,
    lightgbm_file,
    mlp,
    mlp_bundle,
    sealed,
    xgboost_bundle,
    xgboost_file,
)
from mainspring.core.errors import Corrupt, Invalid
from mainspring.registry.adapters.memory import MemoryBlobs
from mainspring.registry.bundles import MANIFEST, SIGNATURE, Bundles, encode_manifest, open_blob, sha256
from mainspring.registry.model import Bundle, Code, Graph, Manifest, Node
from mainspring.security.signing import SigningKey

ONE = mlp_bundle()
SPECS = {"tensors": ONE.manifest.tensors, "output_tensors": ONE.manifest.output_tensors}
CODE = Code("mine.pre:scaled", "0" * 64)
GRAPH = Graph((Node(name="a", bundle=ONE.digest, inputs={"x": "x"}),), {"y": "a.y"})


def whole() -> list[Bundle]:
    return [
        ONE,
        identity_bundle("BYTES"),
        xgboost_bundle(),
        xgboost_bundle("regression", "json"),
        lightgbm_bundle("multiclass"),
        function_bundle("mine.pre:scaled", "0" * 64, SPECS["tensors"], SPECS["output_tensors"]),
        graph_bundle(GRAPH, SPECS["tensors"], SPECS["output_tensors"]),
    ]


@pytest.mark.parametrize("place", range(7))
def test_what_is_sealed_comes_back(place: int) -> None:
    made = whole()[place]
    bundles = Bundles(MemoryBlobs(), KEY.public)
    bundles.save(made)
    assert bundles.load(made.digest) == made


def test_another_key_is_refused_for_every_flavour() -> None:
    for made in whole():
        blob = {**made.files, MANIFEST: encode_manifest(made.manifest), SIGNATURE: made.signature}
        with pytest.raises(Corrupt, match="signature"):
            open_blob(made.digest, blob, SigningKey(b"x" * 32).public)


WRONG: dict[str, tuple[str, dict[str, Any], dict[str, bytes], str]] = {
    "an unknown flavour": ("pickle", {}, {}, "flavour 'pickle'"),
    "no model": ("onnx", {}, {}, r"no file; it needs model\.onnx"),
    "another's model": ("onnx", {}, {"model.txt": b"tree\n"}, r"model\.txt; it needs model\.onnx"),
    "two models": ("onnx", {}, {"model.onnx": mlp(), "model.txt": b"tree\n"}, r"model\.onnx and model\.txt"),
    "two of one flavour": ("xgboost", {}, {"model.ubj": b"{", "model.json": b"{"}, r"model\.json and model\.ubj"),
    "a forest as ONNX": ("onnx", {}, {"model.onnx": lightgbm_file()}, r"model\.onnx"),
    "ONNX as a forest": ("lightgbm", {}, {"model.txt": mlp()}, "does not start"),
    "a forest of the other library": ("lightgbm", {}, {"model.txt": xgboost_file()}, "does not start"),
    "a cut forest": ("xgboost", {}, {"model.ubj": xgboost_file()[:-9]}, "truncated"),
    "a model beside a function": ("function", {"code": CODE}, {"model.onnx": mlp()}, "no model's file"),
    "a function that is none": ("function", {}, {}, "cannot also be"),
    "a function beside a model": ("onnx", {"code": CODE}, {"model.onnx": mlp()}, "cannot also be"),
    "a path as a function": ("function", {"code": Code("/tmp/x.py:f", "0" * 64)}, {}, "module:function"),
    "a function without a digest": ("function", {"code": Code("mine:f", "")}, {}, "no SHA-256"),
    "a graph that is none": ("graph", {}, {}, "cannot also be"),
    "a graph beside a model": ("onnx", {"graph": GRAPH}, {"model.onnx": mlp()}, "cannot also be"),
    "a graph of paths": (
        "graph", {"graph": Graph((Node(name="a", bundle="../x", inputs={"x": "x"}),), {"y": "a.y"})}, {}, "not a digest"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_model_of_its_flavour_is_not_sealed(kind: str) -> None:
    flavour, fields, files, said = WRONG[kind]
    with pytest.raises(Corrupt, match=said):
        sealed(flavour, files, **SPECS, **fields)


@pytest.mark.parametrize("kind", WRONG)
def test_nor_is_it_loaded_though_the_projects_key_signed_it(kind: str) -> None:
    flavour, fields, files, said = WRONG[kind]
    hashes = {name: sha256(content) for name, content in files.items()}
    changes = {"flavour": flavour, "files": hashes, **fields}
    manifest: Manifest = msgspec.structs.replace(ONE.manifest, **changes)
    content = encode_manifest(manifest)
    blob = {**files, MANIFEST: content, SIGNATURE: KEY.sign(content)}
    with pytest.raises(Corrupt, match=said):
        open_blob(sha256(content), blob, KEY.public)


@pytest.mark.parametrize("name", ["model.pkl", "model.pt", "model.keras", "weights.bin", "code.py", "model.onnx.data"])
def test_files_of_other_formats_have_no_place_in_a_bundle(name: str) -> None:
    with pytest.raises(Invalid, match="cannot contain"):
        sealed("onnx", {"model.onnx": mlp(), name: b"x"}, **SPECS)


def test_a_manifest_from_before_there_were_tensors_keeps_its_digest() -> None:
    fields = msgspec.json.decode(encode_manifest(sealed("onnx", {"model.onnx": mlp()}).manifest))
    assert not {"tensors", "output_tensors", "code", "graph"} & set(fields)
