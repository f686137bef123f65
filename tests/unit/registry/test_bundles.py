"""A bundle is exactly what was sealed, or it is refused by a message that says what is wrong."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from mainspring.core.errors import Corrupt, Invalid, NotFound
from mainspring.core.schema import DType
from mainspring.registry.adapters.folder import FolderBlobs
from mainspring.registry.adapters.memory import MemoryBlobs
from mainspring.registry.bundles import ALLOWED, Bundles, encode_manifest, seal
from mainspring.registry.model import Bundle, Input, Manifest
from mainspring.security.signing import SigningKey

KEY = SigningKey(b"k" * 32)
MODEL = b"\x08\x09\x3a\x00"  # ModelProto: ir_version 9, an empty graph
FILES = {
    "model.onnx": MODEL,
    "features.json": b'{"a":1}',
    "reference.json": b"{}",
    "golden.json": b"[1,2]",
    "holdout.parquet": b"PAR1",
}
MANIFEST = Manifest(
    model="late",
    task="binary",
    flavour="onnx",
    inputs=(Input("Traffic.visits", DType.Int64), Input("Order.kind", DType.String, ("bread", "cake"))),
    outputs=("probability",),
    run_id="run1",
    dataset_commit="c1",
    features_digest="f1",
    code_version="abc",
    created_at=5,
    metrics={"auc": 0.75},
)


@pytest.fixture
def bundle() -> Bundle:
    return seal(MANIFEST, FILES, KEY)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture
def stored(folder: Path, bundle: Bundle) -> Path:
    """The folder of the stored bundle, to be tampered with."""
    Bundles(FolderBlobs(folder), KEY.public).save(bundle)
    return folder / bundle.digest


def load(stored: Path, key: SigningKey = KEY) -> Bundle:
    return Bundles(FolderBlobs(stored.parent), key.public).load(stored.name)


def test_what_was_sealed_is_loaded(stored: Path, bundle: Bundle) -> None:
    loaded = load(stored)
    assert loaded == bundle
    assert loaded.manifest.files == {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}


def test_the_digest_is_that_of_the_manifest(stored: Path, bundle: Bundle) -> None:
    assert hashlib.sha256((stored / "manifest.json").read_bytes()).hexdigest() == bundle.digest == stored.name


def test_the_same_content_has_the_same_digest_and_other_content_another(bundle: Bundle) -> None:
    turned = dict(reversed(FILES.items()))
    assert seal(MANIFEST, turned, KEY) == bundle
    assert seal(MANIFEST, {**FILES, "golden.json": b"[1,3]"}, KEY).digest != bundle.digest
    assert seal(msgspec.structs.replace(MANIFEST, run_id="run2"), FILES, KEY).digest != bundle.digest


def test_the_manifest_is_canonical_json(bundle: Bundle) -> None:
    content = encode_manifest(bundle.manifest)
    plain = msgspec.json.decode(content)
    assert list(plain) == sorted(plain)
    assert b" " not in content
    assert encode_manifest(msgspec.json.decode(content, type=Manifest)) == content


@pytest.mark.parametrize("name", [*sorted(FILES), "manifest.json", "signature"])
def test_one_changed_byte_is_noticed(stored: Path, name: str) -> None:
    path = stored / name
    for position in (0, len(path.read_bytes()) // 2, -1):
        before = path.read_bytes()
        changed = bytearray(before)
        changed[position] ^= 1
        path.write_bytes(bytes(changed))
        with pytest.raises(Corrupt, match=name.partition(".")[0]):
            load(stored)
        path.write_bytes(before)
    load(stored)


@pytest.mark.parametrize("name", [*sorted(FILES), "manifest.json", "signature"])
def test_a_missing_file_is_named(stored: Path, name: str) -> None:
    (stored / name).unlink()
    with pytest.raises(Corrupt, match=f"lacks the file {name}"):
        load(stored)


@pytest.mark.parametrize("name", ["model.onnx.data", "weights.bin", "sitecustomize.py", ".hidden"])
def test_an_extra_file_is_named(stored: Path, name: str) -> None:
    (stored / name).write_bytes(b"x")
    with pytest.raises(Corrupt, match=name):
        load(stored)


def test_a_link_is_refused_though_what_it_leads_to_is_right(stored: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "model.onnx"
    (stored / "model.onnx").rename(elsewhere)
    (stored / "model.onnx").symlink_to(elsewhere)
    with pytest.raises(Corrupt, match=r"model\.onnx.*not a plain file"):
        load(stored)


def test_a_folder_in_place_of_a_file_is_refused(stored: Path) -> None:
    (stored / "golden.json").unlink()
    (stored / "golden.json").mkdir()
    with pytest.raises(Corrupt, match=r"golden\.json.*not a plain file"):
        load(stored)


def test_a_pipe_in_place_of_a_file_is_refused_and_does_not_block(stored: Path) -> None:
    (stored / "golden.json").unlink()
    os.mkfifo(stored / "golden.json")
    with pytest.raises(Corrupt, match=r"golden\.json.*not a plain file"):
        load(stored)


def test_a_linked_bundle_is_refused(stored: Path, tmp_path: Path) -> None:
    stored.rename(tmp_path / "moved")
    stored.symlink_to(tmp_path / "moved")
    with pytest.raises(Corrupt, match="not a folder"):
        load(stored)


def test_another_keys_signature_is_refused(stored: Path) -> None:
    with pytest.raises(Corrupt, match="signature"):
        load(stored, SigningKey(b"o" * 32))


def test_a_bundle_under_another_digest_is_refused(stored: Path) -> None:
    stored.rename(stored.parent / ("0" * 64))
    with pytest.raises(Corrupt, match="manifest"):
        load(stored.parent / ("0" * 64))


def signed(manifest: object, files: dict[str, bytes]) -> tuple[str, dict[str, bytes]]:
    """A blob whose digest and signature are right, whatever its manifest says."""
    content = msgspec.json.encode(manifest, order="sorted")
    return hashlib.sha256(content).hexdigest(), {**files, "manifest.json": content, "signature": KEY.sign(content)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2"),
        ({"format": "one"}, "cannot be read"),
        ({"surprise": 1}, "cannot be read"),
        ({"files": {"model.onnx": hashlib.sha256(MODEL).hexdigest(), "run.py": "0" * 64}}, r"run\.py"),
        ({"files": {}}, r"model\.onnx"),
    ],
)
def test_even_a_signed_manifest_is_checked(bundle: Bundle, change: dict[str, object], message: str) -> None:
    manifest = {**msgspec.json.decode(encode_manifest(bundle.manifest)), **change}
    present = {"model.onnx": MODEL, "run.py": b""} if "run.py" in str(change) else {"model.onnx": MODEL}
    digest, blob = signed(manifest, present)
    blobs = MemoryBlobs()
    blobs.put(digest, blob)
    with pytest.raises(Corrupt, match=message):
        Bundles(blobs, KEY.public).load(digest)


def test_a_signed_model_with_data_elsewhere_is_refused(bundle: Bundle) -> None:
    outside = b"\x3a\x06\x2a\x04\x6a\x00\x70\x01"  # a graph with an initializer whose data_location is EXTERNAL
    manifest = msgspec.structs.replace(bundle.manifest, files={"model.onnx": hashlib.sha256(outside).hexdigest()})
    digest, blob = signed(manifest, {"model.onnx": outside})
    blobs = MemoryBlobs()
    blobs.put(digest, blob)
    with pytest.raises(Corrupt, match="another file"):
        Bundles(blobs, KEY.public).load(digest)


@pytest.mark.parametrize("name", ["model.pkl", "model.onnx.data", "../model.onnx", "manifest.json", "signature"])
def test_a_file_that_no_bundle_may_hold_is_not_sealed(name: str) -> None:
    with pytest.raises(Invalid, match="cannot contain"):
        seal(MANIFEST, {**FILES, name: b"x"}, KEY)
    assert name not in ALLOWED


def test_a_bundle_without_a_model_is_not_sealed() -> None:
    with pytest.raises(Corrupt, match=r"needs model\.onnx"):
        seal(MANIFEST, {"golden.json": b"[]"}, KEY)


def test_what_does_not_hold_together_is_not_saved(bundle: Bundle) -> None:
    blobs = MemoryBlobs()
    for wrong in (
        Bundle(bundle.digest, bundle.manifest, {**bundle.files, "golden.json": b"[]"}, bundle.signature),
        Bundle(bundle.digest, bundle.manifest, bundle.files, b"s" * 64),
        Bundle("0" * 64, bundle.manifest, bundle.files, bundle.signature),
    ):
        with pytest.raises(Corrupt):
            Bundles(blobs, KEY.public).save(wrong)
    assert blobs.all() == []


def test_having_been_looked_through_holds_of_these_bytes_alone(bundle: Bundle) -> None:
    outside = b"\x3a\x06\x2a\x04\x6a\x00\x70\x01"  # a graph with an initializer whose data_location is EXTERNAL
    manifest = msgspec.structs.replace(bundle.manifest, files={"model.onnx": hashlib.sha256(outside).hexdigest()})
    digest, blob = signed(msgspec.json.decode(encode_manifest(manifest)), {"model.onnx": outside})
    blobs = MemoryBlobs()
    assert bundle.looked_through == bundle.digest
    for wrong, message in (
        (replace(bundle, files={**FILES, "model.onnx": outside}), r"model\.onnx of bundle .* was changed"),
        (replace(bundle, digest=digest, manifest=manifest, files={"model.onnx": outside}), "signature"),
        (Bundle(digest, manifest, {"model.onnx": outside}, blob["signature"], bundle.digest), "in another file"),
        (Bundle(digest, manifest, {"model.onnx": outside}, blob["signature"]), "in another file"),
    ):
        with pytest.raises(Corrupt, match=message):
            Bundles(blobs, KEY.public).save(wrong)
    assert blobs.all() == []


def test_what_was_loaded_is_looked_through_under_another_signature_too(stored: Path) -> None:
    other = SigningKey(b"o" * 32)
    loaded = load(stored)
    assert loaded.looked_through == loaded.digest
    blobs = MemoryBlobs()
    Bundles(blobs, other.public).save(replace(loaded, signature=other.sign(encode_manifest(loaded.manifest))))
    assert Bundles(blobs, other.public).load(loaded.digest).files == FILES


def test_the_unknown_is_not_found_and_a_path_is_no_digest(folder: Path) -> None:
    loader = Bundles(FolderBlobs(folder), KEY.public)
    with pytest.raises(NotFound, match="0000"):
        loader.load("0" * 64)
    with pytest.raises(Invalid):
        loader.load("../../etc/passwd")
