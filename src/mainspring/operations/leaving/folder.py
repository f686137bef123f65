"""Folder of an export: each file is whole or missing, and an interrupted export goes on behind its last whole file.

While an export is unfinished, `.unfinished.jsonl` has its beginning and a line for each whole file. At the end
`manifest.json` and `SHA256SUMS` replace it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec

from mainspring.core.errors import Conflict, Corrupt, Invalid
from mainspring.core.files import disk_errors, make_folder, sweep, sync_folder, write_atomic, write_many

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST, SUMS, README = "manifest.json", "SHA256SUMS", "README.md"
FORMAT = 1
_UNFINISHED = ".unfinished.jsonl"
_AT_ONCE = 1 << 20  # bytes
_COPIED = 256  # files
Written = Callable[[int], None]  # called with the number of rows so far


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One file of an export.

    Attributes:
        path: From the export's folder.
        about: Its content, in a sentence.
        rows: Of a table or of JSON lines; `None` of other files.
        masked: Columns whose values are left out because they identify a person.
    """

    path: str
    about: str
    bytes: int
    sha256: str
    rows: int | None = None
    masked: Sequence[str] = ()


class LeftOut(msgspec.Struct, frozen=True):
    """Something that is not exported, and why."""

    what: str
    why: str


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """Beginning of an export.

    Attributes:
        at: Instant that it shows, by the project's clock, UTC epoch microseconds.
        reveal: Whether values that identify a person are in it.
        tables: Versions of the lake's tables that it has.
    """

    project: str
    lake: str
    at: int
    reveal: bool
    tables: Mapping[str, int]


class ExportFolder:
    """Files of one export, which is begun or goes on.

    Args:
        begin: Returns the beginning of a new export.

    Raises:
        Conflict: The folder has something else, a finished export, or one that was begun otherwise.
    """

    def __init__(self, folder: Path, begin: Callable[[], Begun], *, project: str, lake: str, reveal: bool) -> None:
        self.path = folder
        self._record = folder / _UNFINISHED
        self._files: dict[str, File] = {}
        self.left_out: list[LeftOut] = []
        if folder.exists() and not folder.is_dir():
            raise Invalid(f"{folder} is a file.", fix="name a folder for the export.")
        with disk_errors(folder):
            make_folder(folder)
            if not self._record.exists():
                if (folder / MANIFEST).exists():
                    raise Conflict(f"{folder} has a finished export.", fix="name another folder.")
                sweep(self._record)
                if any(folder.iterdir()):
                    raise Conflict(f"{folder} has other files.", fix="name a folder that is empty, or not there yet.")
                self.begun = begin()
                write_atomic(self._record, msgspec.json.encode(self.begun) + b"\n")
                return
            self.begun = self._read()
        if (self.begun.project, self.begun.lake, self.begun.reveal) != (project, lake, reveal):
            raise Conflict(
                f"{folder} has an unfinished export of project {self.begun.project!r}, "
                f"{'with' if self.begun.reveal else 'without'} --reveal.",
                fix="go on with the same options, or delete that folder.",
            )

    def _read(self) -> Begun:
        first, *lines = self._record.read_bytes().splitlines(keepends=True)
        whole = [each for each in lines if each.endswith(b"\n")]  # the writer of the last may have been killed in it
        try:
            begun = msgspec.json.decode(first, type=Begun)
            for line in whole:
                file = msgspec.json.decode(line, type=File)
                if (self.path / file.path).is_file() and (self.path / file.path).stat().st_size == file.bytes:
                    self._files[file.path] = file
        except msgspec.DecodeError as error:
            raise Corrupt(
                f"{self._record} cannot be read: {error}.", fix="delete the folder, and begin anew."
            ) from None
        if whole != lines:
            write_atomic(self._record, b"".join([first, *whole]))
        return begun

    @property
    def files(self) -> list[File]:
        """The whole files, sorted by path."""
        return [self._files[path] for path in sorted(self._files)]

    def has(self, path: str) -> bool:
        """Return whether a file is whole already."""
        return path in self._files

    def table(
        self, path: str, about: str, tables: Iterable[pa.Table], *, masked: Iterable[str] = (), told: Written
    ) -> None:
        """Write one or more tables of one schema as a Parquet file, unless it is there."""
        from mainspring.features.offline.pieces import write_whole

        if not self.has(path):
            rows = write_whole(self._target(path), tables, told)
            self._note(path, about, rows=rows, masked=masked)

    def lines(
        self, path: str, about: str, rows: Iterable[bytes | str], *, masked: Iterable[str] = (), told: Written
    ) -> None:
        """Write lines of JSON, unless the file is there."""
        if self.has(path):
            return
        count = 0
        with self._writing(path) as file:
            for row in rows:
                file.write((row.encode() if isinstance(row, str) else row) + b"\n")
                count += 1
                if not count % 1_000:
                    told(count)
        told(count)
        self._note(path, about, rows=count, masked=masked)

    def content(self, path: str, about: str, content: bytes, *, rows: int | None = None) -> None:
        """Write a file, unless it is there."""
        if not self.has(path):
            write_atomic(self._target(path), content)
            self._note(path, about, rows=rows)

    def document(self, path: str, about: str, document: Any) -> None:
        """Write a JSON document, unless it is there."""
        self.content(path, about, msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")

    def copy(self, files: Iterable[tuple[str, str, Path]]) -> None:
        """Copy files, unless they are there, some at once. One that is removed meanwhile is left away.

        Args:
            files: Paths in the export, contents in a sentence, and files.
        """
        lacking = (each for each in files if not self.has(each[0]))
        while some := [*islice(lacking, _COPIED)]:
            while some:
                try:
                    write_many((self.path / path, _parts(source)) for path, _, source in some)
                    break
                except FileNotFoundError:
                    there = [each for each in some if each[2].exists()]
                    if len(there) == len(some):
                        raise
                    some = there
            self._note_all((path, about, None, ()) for path, about, _ in some)

    def made(self, path: str, about: str, make: Callable[[Path], None]) -> None:
        """Let `make` write a file at a path beside it, unless the file is there."""
        if self.has(path):
            return
        target = self._target(path)
        beside = target.with_name(f".{target.name}.partial")
        with disk_errors(target):
            for each in target.parent.glob(
                f"{beside.name}*"
            ):  # of a killed export, with what a database keeps beside it
                each.unlink()
            make(beside)
            beside.replace(target)
            sync_folder(target.parent)
        self._note(path, about)

    def leave_out(self, what: str, why: str) -> None:
        """Note something that is not exported."""
        self.left_out.append(LeftOut(what, why))

    def finish(self, document: Mapping[str, Any], readme: str) -> None:
        """Write the manifest, the README and the checksums, which makes the export a finished one."""
        self._files.pop(README, None)
        self.content(README, "What each file is", readme.encode())
        files = [msgspec.to_builtins(each) for each in self.files]
        manifest = {**document, "files": files, "left_out": [msgspec.to_builtins(each) for each in self.left_out]}
        content = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
        sums = [(each.sha256, each.path) for each in self.files] + [(hashlib.sha256(content).hexdigest(), MANIFEST)]
        write_atomic(self.path / SUMS, "".join(f"{digest}  {path}\n" for digest, path in sums).encode())
        write_atomic(self.path / MANIFEST, content)
        for each in self.path.rglob(".*.partial*"):  # what killed writers left
            if each.is_file():
                each.unlink()
        self._record.unlink()
        sync_folder(self.path)

    def _target(self, path: str) -> Path:
        target = self.path / path
        with disk_errors(target):
            make_folder(target.parent)
        return target

    @contextmanager
    def _writing(self, path: str) -> Iterator[IO[bytes]]:
        target = self._target(path)
        beside = target.with_name(f".{target.name}.partial")
        with disk_errors(target):
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            beside.replace(target)
            sync_folder(target.parent)

    def _note(self, path: str, about: str, *, rows: int | None = None, masked: Iterable[str] = ()) -> None:
        self._note_all([(path, about, rows, masked)])

    def _note_all(self, files: Iterable[tuple[str, str, int | None, Iterable[str]]]) -> None:
        noted = []
        for path, about, rows, masked in files:
            target = self.path / path
            with disk_errors(target), target.open("rb") as read:
                digest = hashlib.file_digest(read, "sha256").hexdigest()
            size = target.stat().st_size
            noted.append(File(path=path, about=about, bytes=size, sha256=digest, rows=rows, masked=sorted(masked)))
        with disk_errors(self._record), self._record.open("ab") as record:
            record.writelines(msgspec.json.encode(each) + b"\n" for each in noted)
            record.flush()
            os.fsync(record.fileno())
        self._files.update((each.path, each) for each in noted)


def _parts(source: Path) -> Iterator[bytes]:
    with source.open("rb") as read:
        while piece := read.read(_AT_ONCE):
            yield piece
