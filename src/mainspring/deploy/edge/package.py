"""Writing of a package: its files, their index, and the index's signature."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from mainspring.core.errors import Conflict, Corrupt, NotFound
from mainspring.core.files import disk_errors, make_folder, sync_folder, write_atomic
from mainspring.security import signing
from mainspring.security.signing import SigningKey

KIND, FORMAT = "mainspring-edge", 1
INDEX, SIGNATURE = "edge.json", "edge.sig"
MODEL, FEATURES, GOLDEN, SKETCH = "model.onnx", "features.json", "golden.json", "sketch.json"


def write_package(folder: Path, about: Mapping[str, Any], files: Mapping[str, bytes], key: SigningKey) -> bytes:
    """Write a package into a new folder, the signature last, and return its index.

    Args:
        about: The fields of `edge.json` but for `kind`, `format` and `files`.

    Raises:
        Conflict: The folder is not empty.
        StorageFull: No space.
    """
    listed = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)} for name, content in files.items()
    }
    index = msgspec.json.encode({**about, "kind": KIND, "format": FORMAT, "files": listed}, order="sorted")
    expect_new(folder)
    with disk_errors(folder):
        make_folder(folder)
        for name, content in (*files.items(), (INDEX, index), (SIGNATURE, key.sign(index))):
            write_atomic(folder / name, content, mode=0o644)
        sync_folder(folder)
    return index


def expect_new(folder: Path) -> None:
    """Raise if a folder is not new or empty.

    Raises:
        Conflict: It holds something, or is a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(f"{folder} exists and is not an empty folder.", fix="name a new folder, or remove this one.")


def read_package(folder: Path, public: bytes) -> dict[str, bytes]:
    """Return the files of a package by name, its index and signature among them, verified as a device does.

    Raises:
        NotFound: There is no package.
        Corrupt: A file was changed or cut, or another key signed the index.
    """
    try:
        signed = {name: (folder / name).read_bytes() for name in (INDEX, SIGNATURE)}
        signing.verify(public, signed[SIGNATURE], signed[INDEX])
        listed = msgspec.json.decode(signed[INDEX])["files"]
        files = {name: (folder / Path(name).name).read_bytes() for name in listed}
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(
            f"{folder} is not an edge package: {error}.", fix="make one by `mainspring edge build`."
        ) from None
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != listed[name]["sha256"]:
            raise Corrupt(f"{folder / name} was changed.", fix="make the package again by `mainspring edge build`.")
    return {**files, **signed}
