"""A device uses a package only if it is, to the byte, what the trusted key signed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.devices import TRUSTED, package
from kit.serving import KEY
from mainspring.security.signing import SigningKey
from mainspring_edge import Refused, load, open_package


def refused(folder: Path, key: bytes | str = TRUSTED, name: str | None = None) -> Refused:
    with pytest.raises(Refused) as caught:
        load(folder, key, name=name)
    return caught.value


def test_a_whole_package_is_taken(tmp_path: Path) -> None:
    opened = open_package(package(tmp_path / "p", version=7), TRUSTED.hex(), name="late")
    assert (opened.name, opened.version, opened.index["project"]) == ("late", 7, "toy")
    assert set(opened.files) == {"model.onnx", "features.json", "golden.json"}


@pytest.mark.parametrize("name", ["edge.json", "edge.sig", "model.onnx", "features.json", "golden.json"])
def test_every_changed_cut_or_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    folder = package(tmp_path / "p")
    whole = (folder / name).read_bytes()
    signed = name in ("edge.json", "edge.sig")
    places = range(0, len(whole), max(1, len(whole) // 40))
    for place in places:
        (folder / name).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert refused(folder).reason == ("signature" if signed else "changed")
        (folder / name).write_bytes(whole[:place])
        assert refused(folder).reason == ("cut" if name != "edge.json" else "signature")
    (folder / name).write_bytes(whole + b"\n")
    assert refused(folder).reason == ("signature" if name == "edge.json" else "changed")
    (folder / name).unlink()
    assert refused(folder).reason == "missing"
    (folder / name).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_bytes(whole)
    assert refused(folder).reason == "missing"
    (folder / name).unlink()
    (folder / name).write_bytes(whole)
    load(folder, TRUSTED).self_test()


def test_another_key_another_project_another_model(tmp_path: Path) -> None:
    other = SigningKey(bytes(32))
    error = refused(package(tmp_path / "other", key=other))
    assert error.reason == "signature"
    assert "another key" in str(error)
    assert TRUSTED.hex()[:12] in str(error)
    assert refused(package(tmp_path / "late"), name="fraud").reason == "name"
    for wrong in ("", "ab", "g" * 64, TRUSTED.hex()[:-2], b"short"):
        assert refused(tmp_path / "late", wrong).reason == "key"


def _signed(folder: Path, change: Callable[[dict[str, object]], object]) -> Path:
    index = json.loads((folder / "edge.json").read_bytes())
    content = json.dumps(change(index)).encode()
    (folder / "edge.json").write_bytes(content)
    (folder / "edge.sig").write_bytes(KEY.sign(content))
    return folder


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda index: {**index, "format": 2}, "format 2; this runtime reads 1. Upgrade it."),
        (lambda index: {**index, "format": "1"}, "format '1'"),
        (lambda index: {**index, "kind": "bundle"}, "'bundle'"),
        (lambda index: [index], "not the index"),
        (lambda index: {**index, "files": {"model.onnx": index["files"]["model.onnx"]}}, "it needs"),
        (lambda index: {**index, "files": {**index["files"], "../x": {"size": 1, "sha256": ""}}}, "it needs"),
        (lambda index: {**index, "model": {}}, "cannot be read"),
        (lambda index: {name: index[name] for name in index if name != "tolerance"}, "cannot be read"),
    ],
)
def test_what_is_signed_but_not_for_this_runtime(
    tmp_path: Path, change: Callable[[dict[str, object]], object], words: str
) -> None:
    error = refused(_signed(package(tmp_path / "p"), change))
    assert error.reason == "format"
    assert words in str(error)


def test_a_folder_that_holds_something_is_not_overwritten(tmp_path: Path) -> None:
    from mainspring.core.errors import Conflict

    package(tmp_path / "p")
    with pytest.raises(Conflict, match="not an empty folder"):
        package(tmp_path / "p")
