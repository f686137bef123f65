"""Signatures of ingested files, for sources that take signed files alone.

Beside FILE lies `FILE.sig`: the hexadecimal Ed25519 signature (RFC 8032) of a statement that binds the file's SHA-256
to the source, so that a file of one source is none of another.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from mainspring.core.errors import Corrupt
from mainspring.core.files import disk_errors, make_folder
from mainspring.data.arrow_coercion import FAULT
from mainspring.data.model import Source
from mainspring.data.readers import Input
from mainspring.security.signing import SigningKey, verify

SUFFIX = ".sig"
UNSIGNED = ".unsigned"  # after the id of a batch that was not signed: signed later, it is another one
_AT_ONCE = 1 << 20


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


@contextmanager
def signed_rows(
    opened: Input, data: Any, source: Source, reopen: Callable[[Path], Input], scratch: Path | None = None
) -> Iterator[tuple[Input, str]]:
    """Context of the input of a source that takes signed files alone, and why it is not signed; empty if it is.

    Rows of a signed file come from a private copy, which nobody changes once its signature was checked. Each row of an
    input that is not signed has this fault.

    Args:
        reopen: Opens the copy.
        scratch: Folder for copies of this source, of which a killed process may have left one. By default a temporary
            one.
    """
    if not isinstance(data, (str, Path)):
        yield _faulty(opened, "the rows are of no signed file")
        return
    path = Path(data)
    if scratch is not None:
        shutil.rmtree(scratch, ignore_errors=True)
        make_folder(scratch)
    with TemporaryDirectory(dir=scratch) as folder:
        copy = Path(folder) / path.name
        why = _unsigned(path, copy, source)
        yield _faulty(opened, why) if why else (replace(reopen(copy), name=opened.name), "")


def _unsigned(path: Path, copy: Path, source: Source) -> str:
    """Copy a file, and return why what was copied is not signed; empty if it is."""
    try:
        signature = bytes.fromhex(path.with_name(path.name + SUFFIX).read_text(encoding="ascii").strip())
    except FileNotFoundError:
        return f"{path.name} has no signature"
    except (OSError, ValueError):
        return f"the signature of {path.name} cannot be read"
    digest = hashlib.sha256()
    with disk_errors(copy), path.open("rb") as file, open(copy, "xb", opener=_private) as to:
        while piece := file.read(_AT_ONCE):
            digest.update(piece)
            to.write(piece)
    if any(_signs(key, signature, statement(source.name, digest.hexdigest())) for key in source.signed_by):
        return ""
    return f"{path.name} was changed, or is signed by no key of the source"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


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
