"""Signatures of ingested files, for sources that take signed files alone.

Beside FILE lies `FILE.sig`: the hexadecimal Ed25519 signature (RFC 8032) of a statement that binds the file's SHA-256
to the source, so that a file of one source is none of another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from mainspring.core.errors import Corrupt
from mainspring.data.arrow_coercion import FAULT
from mainspring.data.model import Source
from mainspring.data.readers import Input
from mainspring.security.signing import SigningKey, verify

SUFFIX = ".sig"
UNSIGNED = ".unsigned"  # after the id of a batch that was not signed: signed later, it is another one


def statement(source: str, digest: str) -> bytes:
    """Return what is signed.

    Args:
        digest: SHA-256 of the file, hexadecimal.
    """
    return f"mainspring data\n{source}\nsha256:{digest}\n".encode()


def sign_file(path: Path, source: str, key: SigningKey) -> Path:
    """Write the signature of a file beside it, and return its path."""
    signature = path.with_name(path.name + SUFFIX)
    signature.write_text(key.sign(statement(source, _sha256(path))).hex() + "\n", encoding="ascii")
    return signature


def signed_rows(opened: Input, data: Any, source: Source) -> tuple[Input, str]:
    """Return the input of a source that takes signed files alone, and why it is not signed; empty if it is.

    Each row of one that is not signed has this fault. One that is changed while it is read raises `Corrupt` at its end.
    """
    if not isinstance(data, (str, Path)):
        return _faulty(opened, "the rows are of no signed file")
    path = Path(data)
    digest = _sha256(path)
    try:
        signature = bytes.fromhex(path.with_name(path.name + SUFFIX).read_text(encoding="ascii").strip())
    except FileNotFoundError:
        return _faulty(opened, f"{path.name} has no signature")
    except (OSError, ValueError):
        return _faulty(opened, f"the signature of {path.name} cannot be read")
    if not any(_signs(key, signature, statement(source.name, digest)) for key in source.signed_by):
        return _faulty(opened, f"{path.name} was changed, or is signed by no key of the source")

    def pieces() -> Iterator[pa.Table]:
        yield from opened.pieces
        if _sha256(path) != digest:
            raise Corrupt(f"{path} was changed while it was read.", fix="ingest a file that nobody writes to.")

    return replace(opened, pieces=pieces()), ""


def _faulty(opened: Input, why: str) -> tuple[Input, str]:
    def pieces() -> Iterator[pa.Table]:
        for piece in opened.pieces:
            place = piece.column_names.index(FAULT)
            yield piece.set_column(place, FAULT, pa.repeat(why, len(piece)))

    return replace(opened, pieces=pieces()), why


def _signs(key: str, signature: bytes, content: bytes) -> bool:
    try:
        verify(bytes.fromhex(key), signature, content)
    except Corrupt:
        return False
    return True


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
