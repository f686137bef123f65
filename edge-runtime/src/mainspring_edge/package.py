"""A package: verified completely before anything in it is parsed further.

`edge.sig` is the Ed25519 signature (RFC 8032) of `edge.json`, which lists the size and SHA-256 of every other file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from mainspring_edge.errors import Refused

KIND = "mainspring-edge"
FORMAT = 1
INDEX, SIGNATURE = "edge.json", "edge.sig"
MODEL, FEATURES, GOLDEN = "model.onnx", "features.json", "golden.json"
SKETCH = "sketch.json"
_NEEDED = {MODEL, FEATURES, GOLDEN}
_LARGEST_INDEX = 4 << 20
_SIGNATURE_BYTES = 64
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}")


@dataclass(frozen=True, slots=True)
class Package:
    """A verified package.

    Attributes:
        index: The content of `edge.json`.
        files: Name -> content of every file that it lists.
    """

    index: Mapping[str, Any]
    files: Mapping[str, bytes]

    @property
    def name(self) -> str:
        return str(self.index["name"])

    @property
    def version(self) -> int:
        return int(self.index["version"])


def open_package(folder: str | Path, trusted_key: bytes | str, *, name: str | None = None) -> Package:
    """Return the package in a folder, verified. Files that it does not list are ignored.

    Args:
        trusted_key: Ed25519 public key that must have signed it: 32 bytes, or 64 hexadecimal digits.
        name: The name that it must have; by default any.

    Raises:
        Refused: The package is not what the key signed, or this runtime cannot read it.
    """
    folder, key = Path(folder), public_key(trusted_key)
    content = _read(folder / INDEX, _LARGEST_INDEX)
    signature = _read(folder / SIGNATURE, _SIGNATURE_BYTES)
    if len(signature) != _SIGNATURE_BYTES:
        raise Refused("cut", f"{SIGNATURE} has {len(signature)} bytes; a signature has {_SIGNATURE_BYTES}.")
    try:
        key.verify(signature, content)
    except InvalidSignature:
        raise Refused(
            "signature", f"{INDEX} was changed, or signed by another key than {key.public_bytes_raw().hex()[:12]}…."
        ) from None
    index = _index(content)
    if name is not None and index["name"] != name:
        raise Refused("name", f"The package is of {index['name']!r}; this device runs {name!r}.")
    return Package(index, {each: _file(folder, each, listed) for each, listed in index["files"].items()})


def public_key(key: bytes | str) -> Ed25519PublicKey:
    """Return the key from 32 bytes or 64 hexadecimal digits.

    Raises:
        Refused: It is neither.
    """
    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(key) if isinstance(key, str) else key)
    except ValueError:
        raise Refused("key", f"{key!r:.80} is not a public key: give 32 bytes, or 64 hexadecimal digits.") from None


def _index(content: bytes) -> dict[str, Any]:
    """Return the parsed index, whose signature was verified."""
    try:
        index = json.loads(content)
        kind, version = index["kind"], index["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Refused("format", f"{INDEX} is signed, but is not the index of an edge package.") from None
    if kind != KIND or type(version) is not int:
        raise Refused("format", f"{INDEX} is signed, but is a {kind!r:.40} of format {version!r:.40}.")
    if version != FORMAT:
        raise Refused("format", f"The package has the format {version}; this runtime reads {FORMAT}. Upgrade it.")
    if not (isinstance(index.get("name"), str) and type(index.get("version")) is int and _lists(index.get("files"))):
        raise Refused("format", f"{INDEX} is signed, but lacks a name, a version or files with size and SHA-256.")
    names = set(index["files"])
    if not names >= _NEEDED or not all(_NAME.fullmatch(name) for name in names):
        raise Refused("format", f"The package lists the files {sorted(names)}; it needs {sorted(_NEEDED)}.")
    return dict(index)


def _lists(files: Any) -> bool:
    return isinstance(files, dict) and all(
        isinstance(each, dict) and type(each.get("size")) is int and 0 <= each["size"] < 1 << 40 and "sha256" in each
        for each in files.values()
    )


def _file(folder: Path, name: str, listed: Mapping[str, Any]) -> bytes:
    size = listed["size"]
    content = _read(folder / name, size)
    if len(content) < size:
        raise Refused("cut", f"{name} has {len(content):,} bytes of {size:,}.")
    if hashlib.sha256(content).hexdigest() != listed["sha256"]:
        raise Refused("changed", f"{name} is not the file that was signed: its SHA-256 differs.")
    return content


def _read(path: Path, most: int) -> bytes:
    """Return the content of a regular file of at most `most` bytes."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would block
    except OSError as error:
        raise Refused("missing", f"{path} cannot be read: {error.strerror}.") from None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Refused("missing", f"{path} is not a regular file.")
        content = file.read(most + 1)
    if len(content) > most:
        raise Refused("changed", f"{path.name} has more than {most:,} bytes.")
    return content
