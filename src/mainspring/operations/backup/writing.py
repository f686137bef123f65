"""Writers of a repository: of pieces that are not there yet, and of sections that are made of them."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import groupby
from types import TracebackType

import msgspec

from mainspring.core.errors import Conflict, Corrupt, NotFound
from mainspring.core.ids import new_id
from mainspring.operations.backup.repository import (
    DEFLATED,
    FORMAT,
    HEAD,
    LONGEST,
    PIECE_BYTES,
    PURPOSE,
    RAW,
    Entry,
    Head,
    Repository,
    Section,
    cut,
    folder_of,
    key_path,
    opened,
    piece_path,
    read_head,
)
from mainspring.operations.backup.stores import ObjectStored
from mainspring.project import Project
from mainspring.security.model import DataKey, StoredKey

_SMALL_BYTES = 256 << 10  # a smaller file shares its piece with others
_FILES_A_PIECE, _ENTRIES_A_PIECE = 64, 1024  # on average: names decide, so one file more moves no other
_AT_ONCE = 4  # pieces that are written
_NAME_BYTES, _ENTRY_BYTES = 66, 32  # of a piece's name in a list of files, and of the rest of an entry
_SAMPLE = 64 << 10
_WORTH = 0.8  # share of a sample that is left, below which a piece is compressed


class Writing:
    """Pieces that a backup writes, some at once; as a context it waits for them. Pieces that are there are not written.

    Attributes:
        written: Number of pieces that were.
        bytes: Of them, as stored.
    """

    def __init__(self, repository: Repository, key: DataKey) -> None:
        self._repository = repository
        self._key = key
        self._known = {*repository.pieces()}
        self._pool = ThreadPoolExecutor(_AT_ONCE)
        self._room = threading.BoundedSemaphore(_AT_ONCE)
        self._running: set[Future[int]] = set()
        self.written = self.bytes = 0

    def __enter__(self) -> Writing:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        if kind is None:
            self._settle(all_of_them=True)

    def has(self, pieces: Iterable[str]) -> bool:
        """Return whether all of some pieces are there."""
        return self._known.issuperset(pieces)

    def entries(self, section: Section | None) -> dict[str, Entry]:
        """Return the files of an earlier section by name; none if they cannot be read: then all is read anew."""
        try:
            return {} if section is None else {each.name: each for each in self._repository.entries(section)}
        except Corrupt:
            return {}

    def put(self, content: bytes) -> str:
        """Write a piece, and return its name. It is there once the context has ended."""
        name = self._repository.name(content)
        if name not in self._known:
            self._known.add(name)
            self._settle()
            self._room.acquire()
            future = self._pool.submit(self._write, name, content)
            self._running.add(future)
            future.add_done_callback(lambda _: self._room.release())
        return name

    def _write(self, name: str, content: bytes) -> int:
        sample = content[:_SAMPLE]
        if len(content) <= LONGEST and len(zlib.compress(sample, 1)) < _WORTH * len(sample):
            stored = DEFLATED + zlib.compress(content, 1)
        else:
            stored = RAW + content
        self._repository.seal(self._key, piece_path(name), stored)
        return len(stored)

    def _settle(self, *, all_of_them: bool = False) -> None:
        """Raise what a writer raised."""
        for each in [each for each in self._running if all_of_them or each.done()]:
            self._running.discard(each)
            self.bytes += each.result()
            self.written += 1


class SectionWriter:
    """A section while it is written.

    Args:
        before: The section in the backup before, `None` if there is none.
        piece_bytes: Of a file that does not fit into one piece.
    """

    def __init__(
        self, writing: Writing, name: str, before: Section | None = None, piece_bytes: int = PIECE_BYTES
    ) -> None:
        self._writing = writing
        self._name = name
        self._piece_bytes = piece_bytes
        self._before = writing.entries(before)
        self._folders = {
            key: [*each] for key, each in groupby(self._before.values(), lambda each: folder_of(each.name))
        }
        self._entries: list[Entry] = []
        self._small: list[tuple[str, str, bytes]] = []  # name, mark, content
        self._small_bytes = 0

    def keep(self, name: str, mark: str = "") -> bool:
        """Take a file from the backup before, without reading it; return False if that does not have it."""
        entry = self._before.get(name)
        if entry is None or entry.mark != mark or not self._writing.has(entry.pieces):
            return False
        self._entries.append(entry)
        return True

    def keep_folder(self, folder: str) -> bool:
        """Take all files of an outermost folder as `keep` does; return False if there are none, or a piece lacks."""
        within = self._folders.get(folder, [])
        if not within or not all(self._writing.has(each.pieces) for each in within):
            return False
        self._entries += within
        return True

    def add(self, name: str, parts: Iterable[bytes], mark: str = "") -> None:
        """Write a file. Raises what its reading raises; then it is not in the section."""
        pieces, size, first = list[str](), 0, b""
        for piece in cut(parts, self._piece_bytes):
            size += len(piece)
            if size == len(piece) <= _SMALL_BYTES:
                first = piece
            else:
                pieces.append(self._writing.put(piece))
        if first and not pieces:
            self._small.append((name, mark, first))
            self._small_bytes += size
            if zlib.crc32(name.encode()) % _FILES_A_PIECE == 0 or self._small_bytes > PIECE_BYTES:
                self.cut()
        else:
            self._entries.append(Entry(name, size, pieces, None, mark, self._piece_bytes))

    def done(self, *, version: int | None = None, rows: int | None = None) -> Section:
        """Write the list of files, and return the section."""
        self.cut()
        self._entries.sort(key=lambda each: each.name)
        listing, held, size = list[str](), list[Entry](), 0
        for each in self._entries:
            held.append(each)
            size += len(each.name) + len(each.mark) + _NAME_BYTES * len(each.pieces) + _ENTRY_BYTES
            if zlib.crc32(each.name.encode()) % _ENTRIES_A_PIECE == 0 or size > PIECE_BYTES:
                listing.append(self._writing.put(msgspec.msgpack.encode(held)))
                held, size = [], 0
        if held:
            listing.append(self._writing.put(msgspec.msgpack.encode(held)))
        return Section(
            name=self._name, listing=listing, files=len(self._entries), bytes=sum(each.size for each in self._entries),
            version=version, rows=rows,
        )  # fmt: skip

    def cut(self) -> None:
        """Write the small files so far: those that follow share no piece with them."""
        if not self._small:
            return
        piece, start = self._writing.put(b"".join(content for _, _, content in self._small)), 0
        for name, mark, content in self._small:
            self._entries.append(Entry(name, len(content), [piece], start, mark))
            start += len(content)
        self._small, self._small_bytes = [], 0


def make_repository(project: Project, store: ObjectStored) -> tuple[Repository, DataKey]:
    """Open a repository to write, made if it is missing, and return it with the key that encrypts.

    The caller has excluded other writers.

    Raises:
        Conflict: It has backups of another catalog, as of another profile.
    """
    tree = project.audit.tree()
    origin = "" if tree is None else tree.origin
    head = None
    with suppress(NotFound):
        head = read_head(project, store)
    if head is not None and head.origin not in ("", origin):
        raise Conflict(
            f"{store.shown} has backups of another catalog of project {head.project!r}.",
            fix="name another repository: each profile and installation has one of its own.",
        )
    stored = project.data_keys.stored(PURPOSE)
    _keep_keys(store, [each for each in project.data_key_store.all() if each.purpose == PURPOSE])
    if head is None:
        head = Head(FORMAT, project.settings.project, new_id(), stored.id)
    if head.origin != origin or not origin:
        store.put(HEAD, msgspec.json.encode(msgspec.structs.replace(head, origin=origin)))
    return opened(project, store), project.data_keys.opened(stored)


def _keep_keys(store: ObjectStored, keys: Iterable[StoredKey]) -> None:
    """Keep wrapped keys, as they are after a rotation of the master key."""
    for each in keys:
        name, content = key_path(each.id), msgspec.json.encode(each)
        try:
            known = store.get(name)
        except FileNotFoundError:
            known = b""
        if known != content:
            store.put(name, content)
