"""Repositories of backups: points in time, made of encrypted pieces that are named by their content.

    repository.json            project, id, and the key by which pieces are named
    keys/<id>.json             a data key, wrapped by the key service: where data keys are, the catalog, is in a backup
    points/<time>-<id>         envelope of a `Point`: the sections of one backup
    pieces/<ab>/<name>         envelope of some MiB of a file, of many small files, or of a section's list of files

A piece's name is an HMAC of its content, so content that an earlier backup wrote is not written again, and a name says
nothing about it. An envelope opens only under its own name in its own repository. A point is written after its pieces.
"""

from __future__ import annotations

import hmac
import re
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import islice
from typing import Annotated, TypeVar

import msgspec

from mainspring.core.errors import Corrupt, Denied, Invalid, NotFound
from mainspring.core.json_content import decoded
from mainspring.operations.backup.stores import ObjectStored, open_objects
from mainspring.project import Project
from mainspring.security import envelopes
from mainspring.security.model import DataKey, StoredKey

PURPOSE = "backups"  # of data keys, and name of the store in envelopes
FORMAT = "mainspring backups 1"
HEAD, _KEYS, _POINTS, _PIECES = "repository.json", "keys/", "points/", "pieces/"
_POINT = re.compile(rf"{_POINTS}([01]\d{{17}})-([0-9a-z]{{26}})")
_PIECE = re.compile(rf"{_PIECES}([0-9a-f]{{2}})/(\1[0-9a-f]{{62}})")
_KEY = re.compile(rf"{_KEYS}([0-9a-f]{{32}})\.json")
_AT_ONCE = 4  # pieces, or files, that are read
_IN_TURN = 1_000
_NAMING = b"mainspring names of pieces\0"
PIECE_BYTES = 4 << 20
RAW, DEFLATED = b"\0", b"\1"
LONGEST = 4 * PIECE_BYTES  # of a piece that is compressed
_Kind = TypeVar("_Kind")


class Head(msgspec.Struct, frozen=True):
    """Head of a repository.

    Attributes:
        key: Id of the data key from which names of pieces follow.
        origin: Name of the audit log of the catalog that it has backups of; empty if that had no event yet.
    """

    format: str
    project: str
    id: str
    key: str
    origin: str = ""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A file of a section.

    Attributes:
        pieces: Its content in order; one that it shares with other files if it begins at `start`.
        mark: Equal as long as the file is unchanged; empty for files that never change.
        piece_bytes: Of each piece but the last.
    """

    name: str
    size: Annotated[int, msgspec.Meta(ge=0)]
    pieces: list[str]
    start: Annotated[int, msgspec.Meta(ge=0)] | None = None
    mark: str = ""
    piece_bytes: Annotated[int, msgspec.Meta(gt=0)] = PIECE_BYTES


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """One store's part of a backup.

    Attributes:
        listing: Pieces with the entries.
        version: Of a table of the lake.
        rows: Likewise.
    """

    name: str
    listing: list[str]
    files: int
    bytes: int
    version: int | None = None
    rows: int | None = None


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One backup. `made_at` is in UTC epoch microseconds; `lake` is a digest of the lake's address."""

    project: str
    id: str
    made_at: int
    lake: str
    sections: list[Section]
    left: list[str]

    def section(self, name: str) -> Section | None:
        """Return a section, `None` if there is none of this name."""
        return next((each for each in self.sections if each.name == name), None)

    def within(self, prefix: str) -> dict[str, Section]:
        """Return the sections whose names begin so, by the rest of their names."""
        return {each.name[len(prefix) :]: each for each in self.sections if each.name.startswith(prefix)}


class Repository:
    """An opened repository. `keys` opens its data keys."""

    def __init__(self, store: ObjectStored, head: Head, project: Project) -> None:
        self.store = store
        self.head = head
        self._project = project
        self._secrets: dict[str, bytes] = {}
        self._naming = hmac.digest(self._secret(head.key), _NAMING + head.id.encode(), "sha256")
        self._shared = lru_cache(maxsize=4)(self.piece)  # small files lie in turn in a piece
        self._sharing = threading.Lock()

    @property
    def shown(self) -> str:
        return self.store.shown

    def name(self, content: bytes | memoryview) -> str:
        """Return the name of a piece."""
        return hmac.digest(self._naming, content, "sha256").hex()

    def pieces(self) -> Iterator[str]:
        """Yield the names of all pieces."""
        for each in self.store.names(_PIECES):
            if found := _PIECE.fullmatch(each):
                yield found[2]

    def strangers(self) -> list[str]:
        """Return the names of objects in folders of the repository that are none of it."""
        kinds = {_PIECES: _PIECE, _POINTS: _POINT, _KEYS: _KEY}
        return sorted(each for folder, kind in kinds.items() for each in self.store.names(folder)
                      if not kind.fullmatch(each))  # fmt: skip

    def piece(self, name: str) -> bytes:
        """Return the content of a piece.

        Raises:
            Corrupt: It is missing, or was changed, cut or moved.
        """
        sealed = self._open(piece_path(name))
        content = sealed[1:]
        if sealed[:1] == DEFLATED:
            content = zlib.decompressobj().decompress(content, LONGEST)
        if self.name(content) != name:
            raise Corrupt(f"{piece_path(name)} of {self.shown} has another content than its name says.", fix=_OTHER)
        return content

    def sizes(self, pieces: Iterable[str]) -> Iterator[tuple[str, int | Corrupt]]:
        """Read pieces, some at once, and yield the size of each, or what is wrong with it."""
        waiting = iter(pieces)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            while some := [*islice(waiting, _IN_TURN)]:
                yield from zip(some, pool.map(self._size, some), strict=True)

    def _size(self, piece: str) -> int | Corrupt:
        try:
            return len(self.piece(piece))
        except Corrupt as error:
            return error

    def equal(self, entries: Iterable[Entry], parts: Callable[[Entry], Iterable[bytes]]) -> Iterator[bool]:
        """Read files as they are there, some at once, and yield whether each has the content that it has here.

        Args:
            parts: Returns the content of a file.
        """
        waiting = iter(entries)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            while some := [*islice(waiting, _IN_TURN)]:
                yield from pool.map(lambda entry: self.is_file(entry, parts(entry)), some)

    def points(self) -> list[str]:
        """Return the names of the points, oldest first."""
        return sorted(each for each in self.store.names(_POINTS) if _POINT.fullmatch(each))

    def point(self, name: str) -> Point:
        """Return a point.

        Raises:
            Corrupt: It is missing, or was changed, cut or moved.
        """
        found = self._decoded(name, self._open(name), Point)
        if (found.project, name) != (self.head.project, point_name(found)):
            raise Corrupt(f"{name} of {self.shown} is another backup's.", fix=_OTHER)
        return found

    def entries(self, section: Section) -> list[Entry]:
        """Return the files of a section, by name.

        Raises:
            Corrupt: Their list is missing or damaged.
        """
        return [entry for piece in section.listing for entry in self.listed(piece)]

    def listed(self, piece: str) -> list[Entry]:
        """Return the files in a piece of a section's list.

        Raises:
            Corrupt: It is missing or damaged.
        """
        try:
            return msgspec.msgpack.decode(self.piece(piece), type=list[Entry])
        except msgspec.DecodeError as error:
            raise self._foreign(piece_path(piece), error) from None

    def parts(self, entry: Entry) -> Iterator[bytes]:
        """Yield the content of a file.

        Raises:
            Corrupt: A piece is missing or damaged. What was yielded before is authentic.
        """
        size = 0
        for name in entry.pieces:
            part = self.piece(name) if entry.start is None else self._part(name, entry.start, entry.size)
            size += len(part)
            yield part
        if size != entry.size:
            raise Corrupt(f"{entry.name} has {size} of its {entry.size} bytes in {self.shown}.", fix=_OTHER)

    def _part(self, piece: str, start: int, size: int) -> bytes:
        with self._sharing:  # threads that write files of one piece read it once
            content = self._shared(piece)
        return content[start : start + size]

    def is_file(self, entry: Entry, parts: Iterable[bytes]) -> bool:
        """Return whether a content is that of a file."""
        if entry.start is not None:  # it shares a piece, whose name says nothing of this file alone
            return b"".join(parts) == b"".join(self.parts(entry))
        return [self.name(each) for each in cut(parts, entry.piece_bytes)] == entry.pieces

    def remove(self, name: str) -> None:
        """Remove a point, or a piece by the name that `pieces` yields."""
        self.store.remove(name if name.startswith(_POINTS) else piece_path(name))

    def seal(self, key: DataKey, name: str, content: bytes) -> None:
        """Write an object."""
        self.store.put(name, envelopes.seal(key, PURPOSE, f"{self.head.id}/{name}", content))

    def _open(self, name: str) -> bytes:
        try:
            envelope = self.store.get(name)
            return envelopes.unseal(
                self._secret(envelopes.key_of(envelope)), PURPOSE, f"{self.head.id}/{name}", envelope
            )
        except FileNotFoundError:
            raise Corrupt(f"{name} of {self.shown} is missing.", fix=_OTHER) from None
        except Corrupt as error:
            raise Corrupt(f"{name} of {self.shown} is damaged: {error.what}", fix=_OTHER) from error

    def _secret(self, key: str) -> bytes:
        if key not in self._secrets:
            name = key_path(key)
            try:
                stored = self._decoded(name, self.store.get(name), StoredKey)
            except FileNotFoundError:
                raise Corrupt(f"{name} of {self.shown} is missing.", fix=_OTHER) from None
            try:
                self._secrets[key] = self._project.data_keys.opened(stored).secret
            except (Corrupt, Denied, NotFound) as error:
                raise Corrupt(
                    f"The key service of this profile does not open {name} of {self.shown}: {error.what}",
                    fix="restore the master keys that the project had, and name the right project and repository.",
                ) from error
        return self._secrets[key]

    def _decoded(self, name: str, content: bytes, kind: type[_Kind]) -> _Kind:
        try:
            return decoded(content, kind)
        except msgspec.DecodeError as error:
            raise self._foreign(name, error) from None

    def _foreign(self, name: str, error: msgspec.DecodeError) -> Corrupt:
        return Corrupt(f"{name} of {self.shown} is not of this version: {error}.", fix=_OTHER)


_OTHER = "name another backup with `--at`; `mainspring backup verify` reads all of them."


def point_name(point: Point) -> str:
    """Return the name of a point's object."""
    return f"{_POINTS}{point.made_at:018d}-{point.id}"


def made_at(name: str) -> int:
    """Return when a point was made, UTC epoch microseconds, by its name."""
    return int(name[len(_POINTS) :].partition("-")[0])


def open_repository(project: Project, address: str) -> Repository:
    """Open a repository.

    Raises:
        NotFound: There is none.
        Invalid: It is of another project.
        Corrupt: It is damaged, or of another key.
    """
    return opened(project, open_objects(address))


def opened(project: Project, store: ObjectStored) -> Repository:
    return Repository(store, read_head(project, store), project)


def read_head(project: Project, store: ObjectStored) -> Head:
    try:
        head = decoded(store.get(HEAD), Head)
        if head.format != FORMAT or not re.fullmatch(r"[0-9a-f]{32}", head.key):
            raise msgspec.DecodeError(f"its format is {head.format[:40]!r}")
    except FileNotFoundError:
        raise NotFound(
            f"There is no repository of backups in {store.shown}.",
            fix=f"make a backup: mainspring backup --to {store.shown}",
        ) from None
    except msgspec.DecodeError as error:
        raise Corrupt(f"{store.shown} is not a repository of this version: {error}.", fix="name another one.") from None
    if head.project != project.settings.project:
        raise Invalid(f"{store.shown} has backups of project {head.project!r}.", fix="name another one, or work there.")
    return head


def piece_path(piece: str) -> str:
    """Return the name of a piece's object."""
    return f"{_PIECES}{piece[:2]}/{piece}"


def key_path(key: str) -> str:
    """Return the name of the object of a wrapped data key."""
    return f"{_KEYS}{key}.json"


def folder_of(name: str) -> str:
    """Return the outermost folder of a file's name; it is the digest of a bundle."""
    return name.partition("/")[0]


def cut(parts: Iterable[bytes], size: int = PIECE_BYTES) -> Iterator[bytes]:
    held = bytearray()
    for part in parts:
        held += part
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)
