"""Backups as files: a head in clear, then one envelope of all entries.

The head is a line of JSON. It has the data key of the backup, wrapped by the key service: the catalog, where data keys
are, is in the backup. An entry is frames: its name, its content in pieces, an empty frame. A frame's length has 4
bytes. The envelope ends with its last entry, so a file that was cut does not open.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from mainspring.core.errors import Conflict, Corrupt, NotFound
from mainspring.core.files import disk_errors, sync_folder
from mainspring.security import envelopes
from mainspring.security.model import DataKey, StoredKey

BACKUPS = "backups"  # purpose of the data keys, and name of the store in envelopes
UNFINISHED = ".unfinished"  # after the name of a backup that is being written, or whose writer was killed
_MAGIC = b"mainspring backup 1 "
_LONGEST_HEAD = 1 << 16
_AT_ONCE = 1 << 20
_LENGTH = 4

Entries = Iterable[tuple[str, Iterable[bytes]]]  # name, content in pieces


class Head(msgspec.Struct, frozen=True):
    """Head of a backup. `made_at` is in UTC epoch microseconds."""

    project: str
    id: str
    made_at: int
    key: StoredKey


def write(path: Path, head: Head, key: DataKey, entries: Entries) -> None:
    """Write a backup, which has its name only once it is whole.

    Raises:
        Conflict: There is such a file.
        StorageFull: No space.
    """
    if path.exists():
        raise Conflict(f"{path} exists.", fix="give the backup another name.")
    part = path.with_name(path.name + UNFINISHED)
    try:
        with disk_errors(path):
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(_MAGIC + msgspec.json.encode(head) + b"\n")
                for piece in envelopes.seal_parts(key, BACKUPS, head.id, _framed(entries)):
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            part.rename(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read_head(path: Path) -> Head:
    """Return the head of a backup.

    Raises:
        NotFound: There is no such file.
        Corrupt: It is no backup.
    """
    if not path.is_file():
        raise NotFound(f"There is no backup {path}.", fix="name the file that `mainspring backup` wrote.")
    with disk_errors(path), path.open("rb") as file:
        line = file.readline(_LONGEST_HEAD)
    try:
        if not line.startswith(_MAGIC):
            raise msgspec.DecodeError("it begins otherwise")
        return msgspec.json.decode(line[len(_MAGIC) :], type=Head)
    except msgspec.DecodeError as error:
        raise Corrupt(f"{path} is not a backup of this version: {error}.", fix="name another file.") from None


def read(path: Path, head: Head, key: DataKey) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Yield the entries of a backup in their order. A content is to be read before the next entry is asked for.

    Raises:
        Corrupt: The file was changed or cut. What was yielded before is authentic.
    """
    with disk_errors(path), path.open("rb") as file:
        file.readline(_LONGEST_HEAD)
        chunks = iter(lambda: file.read(_AT_ONCE), b"")
        frames = _frames(envelopes.unseal_parts(lambda _: key.secret, BACKUPS, head.id, chunks))
        for name in frames:
            yield name.decode(), iter(lambda: next(frames), b"")


def _framed(entries: Entries) -> Iterator[bytes]:
    for name, content in entries:
        yield _frame(name.encode())
        for piece in content:
            for start in range(0, len(piece), _AT_ONCE):
                yield _frame(piece[start : start + _AT_ONCE])
        yield _frame(b"")


def _frame(content: bytes) -> bytes:
    return len(content).to_bytes(_LENGTH) + content


def _frames(parts: Iterable[bytes]) -> Iterator[bytes]:
    held = bytearray()
    for part in parts:
        held += part
        while len(held) >= _LENGTH and len(held) >= (end := _LENGTH + int.from_bytes(held[:_LENGTH])):
            yield bytes(held[_LENGTH:end])
            del held[:end]
