"""Find pickled objects in files, whatever holds them. Used by the tests of the code and of what a run leaves behind.

Nothing is unpickled: `pickletools` only reads the opcodes.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import io
import pickletools
import re
import sqlite3
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

# Protocols 4 and 5 begin with their number and a frame, wherever they stand. Protocols 2 and 3 have no frame: their two
# bytes occur by chance, so they are looked for at the beginning of a file or a database's value only.
_FRAMED = re.compile(rb"\x80[\x04\x05]\x95.{8}", re.DOTALL)
_ENCODED = re.compile(rb"gA[SW]V[A-Za-z0-9+/_-]{8,}={0,2}")
_SQLITE = b"SQLite format 3\0"


def pickles_in(folder: Path) -> list[str]:
    """Return one line for each pickled object below `folder`: the file, and where in it."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()):
        found += [f"{path.relative_to(folder)}: {where}" for where in _pickles(path.read_bytes(), path)]
    return found


def _pickles(content: bytes, path: Path | None = None) -> Iterator[str]:
    if content.startswith(_SQLITE) and path is not None:
        yield from _in_database(path)
        return
    if content.startswith(b"PK\x03\x04") and zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                yield from (f"{name}: {where}" for where in _pickles(archive.read(name)))
        return
    if content.startswith(b"PAR1"):
        yield from _in_parquet(content)
        return
    unpacked = _unpacked(content)
    if unpacked is not None:
        yield from (f"compressed: {where}" for where in _pickles(unpacked))
        return
    if content[:1] == b"\x80" and content[1:2] in (b"\x02", b"\x03") and _is_pickle(content):
        yield "pickle at byte 0"
    for match in _FRAMED.finditer(content):
        if _is_pickle(content[match.start() :]):
            yield f"pickle at byte {match.start()}"
    for match in _ENCODED.finditer(content):
        if _is_pickle(_decoded(match.group())):
            yield f"base64 of a pickle at byte {match.start()}"


def _in_database(path: Path) -> Iterator[str]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    connection.text_factory = bytes
    try:
        tables = [row[0].decode() for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for number, row in enumerate(connection.execute(f'SELECT * FROM "{table}"')):
                for value in row:
                    if isinstance(value, bytes):
                        yield from (f"{table}, row {number}: {where}" for where in _pickles(value))
    finally:
        connection.close()


def _in_parquet(content: bytes) -> Iterator[str]:
    table = pq.read_table(io.BytesIO(content))
    for name in table.column_names:
        if pa.types.is_binary(table[name].type) or pa.types.is_string(table[name].type):
            values = table[name].unique().drop_null().cast(pa.binary()).to_pylist()
            for where in _pickles(b"\n".join(values)):
                yield f"{name}, {where.partition(' at ')[0]}"


def _unpacked(content: bytes) -> bytes | None:
    try:
        if content.startswith(b"\x1f\x8b"):
            return gzip.decompress(content)
        if content[:2] in (b"\x78\x01", b"\x78\x9c", b"\x78\xda"):
            return zlib.decompress(content)
    except (OSError, EOFError, zlib.error):
        pass
    return None


def _decoded(text: bytes) -> bytes:
    whole = text.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    try:
        return base64.b64decode(whole + b"=" * (-len(whole) % 4))
    except binascii.Error:
        return b""


def _is_pickle(content: bytes) -> bool:
    try:
        return any(opcode.name == "STOP" for opcode, _, _ in pickletools.genops(content))
    except (ValueError, UnicodeDecodeError, EOFError, IndexError):
        return False
