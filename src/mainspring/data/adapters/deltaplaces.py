"""Storage behind Delta tables, for operations outside delta-rs: listing tables and files, free space, syncing."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

from mainspring.core.errors import Invalid, StorageFull
from mainspring.core.files import disk_errors, write_atomic, write_many
from mainspring.core.ids import ID_PATTERN, check_id
from mainspring.data.adapters.deltadisk import LOG, check_log, recover_log, sync_log

FOLLOWED = ".followed"  # of a version in a log that lacks the next entries, but not the newest
_LOG_FILE = re.compile(LOG + r"/(\d{20}\.(json|followed|checkpoint(\.[\w-]+)*\.parquet)|_last_checkpoint)")
_SPARE_BYTES = 1 << 20  # for the log
_PART_BYTES = 1 << 20


class Place(Protocol):
    """A folder of tables. File names are relative to the table, as in its log.

    Attributes:
        options: Storage options for delta-rs.
    """

    options: Mapping[str, str] | None

    def address(self, table: str) -> str:
        """Return the address of a table, for delta-rs and for messages."""
        ...

    def errors(self, table: str) -> AbstractContextManager[None]:
        """Translate storage errors inside the block into Mainspring's."""
        ...

    def tables(self) -> list[str]:
        """Return the tables that have a log."""
        ...

    def identity(self, table: str) -> Hashable | None:
        """Return a value that changes when a table is replaced under the same name; `None` if it surely does not
        exist. It costs the same however long the table's log is.
        """
        ...

    def newer(self, table: str, version: int) -> bool:
        """Return whether the table may have a later version."""
        ...

    def check(self, table: str, after: int | None) -> None:
        """Check the log entries after a version, or all since the newest checkpoint.

        Raises:
            Corrupt: An entry is damaged in a way that delta-rs does not detect.
        """
        ...

    def sync(self, table: str, after: int | None) -> None:
        """Sync the commits after a version, or all since the newest checkpoint, with their files."""
        ...

    def recover(self, table: str) -> bool:
        """Remove the remains of an incomplete commit after a power loss; return whether there were any."""
        ...

    def ask_for_room(self, table: str, size: int) -> None:
        """Raise if a write certainly does not fit.

        Raises:
            StorageFull: There is too little space for `size` bytes.
        """
        ...

    def fetch(self, table: str, names: Iterable[str]) -> dict[str, str]:
        """Return name -> local path of the data files, as text: they may be many; missing files are omitted."""
        ...

    def lying(self, table: str) -> list[str]:
        """Return every file of a table outside its log."""
        ...

    def log(self, table: str) -> list[str]:
        """Return the files of a table's log, sorted by name and so by version."""
        ...

    def read(self, table: str, name: str) -> bytes:
        """Return the content of a file.

        Raises:
            FileNotFoundError: The file does not exist.
        """
        ...

    def write(self, table: str, name: str, content: bytes) -> None:
        """Write a file atomically, replacing one of the same name."""
        ...

    def parts(self, table: str, name: str) -> Iterator[bytes]:
        """Yield the content of a file.

        Raises:
            FileNotFoundError: The file does not exist.
        """
        ...

    def write_all(self, table: str, files: Sequence[tuple[str, Iterable[bytes]]]) -> None:
        """Write files atomically, replacing those of the same names, in the memory of some parts.

        Those of the log get their names in the order given.
        """
        ...

    def remove(self, table: str, names: Iterable[str]) -> None:
        """Delete files; a missing file is not an error."""
        ...


class FolderPlace:
    """Tables in a local folder.

    Raises:
        Invalid: delta-rs cannot address the folder's name.
    """

    options: Mapping[str, str] | None = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._paths: dict[str, Path] = {}  # by table: a batch of a stream asks a hundred times
        path = str(self.folder)
        if set(path) & set("[]|^\\") or unquote(path) != path:
            raise Invalid(
                f"Tables cannot be stored in {path}: Delta interprets its special characters.",
                fix="use a folder without [ ] | ^ \\ and %xx in its path.",
            )

    def address(self, table: str) -> str:
        return str(self._path(table))

    def errors(self, table: str) -> AbstractContextManager[None]:
        return disk_errors(self._path(table))

    def tables(self) -> list[str]:
        logs = self.folder.glob(f"*/{LOG}")
        return sorted(log.parent.name for log in logs if is_table(log.parent.name) and _any_inside(log))

    def identity(self, table: str) -> Hashable | None:
        try:
            return (self._path(table) / LOG).stat().st_ino
        except FileNotFoundError:
            return None

    def newer(self, table: str, version: int) -> bool:
        entry = f"{self._path(table)}/{LOG}/{version:020d}"
        following = f"{self._path(table)}/{LOG}/{version + 1:020d}.json"
        if os.access(following, os.F_OK) or not os.access(f"{entry}.json", os.F_OK):
            return True
        return os.access(f"{entry}{FOLLOWED}", os.F_OK)

    def check(self, table: str, after: int | None) -> None:
        check_log(self._path(table), after)

    def sync(self, table: str, after: int | None) -> None:
        with disk_errors(self._path(table)):
            sync_log(self._path(table), after)

    def recover(self, table: str) -> bool:
        return recover_log(self._path(table))

    def ask_for_room(self, table: str, size: int) -> None:
        """Raise if too little space is free; delta-rs would panic on standard error in mid-write."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        free = shutil.disk_usage(self.folder).free
        if size + _SPARE_BYTES > free:
            raise StorageFull(
                f"No space left for {self._path(table)}: {size >> 20} MiB are needed, {free >> 20} MiB are free.",
                fix="free some space and run the command again.",
            )

    def fetch(self, table: str, names: Iterable[str]) -> dict[str, str]:
        folder = self._path(table)
        paths = {name: f"{folder}/{name}" for name in names}
        # The folder also has the files of older versions, which may be many more.
        return {name: path for name, path in paths.items() if os.access(path, os.F_OK)}

    def lying(self, table: str) -> list[str]:
        folder = self._path(table)
        files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        return sorted(str(path) for path in files if path.parts[0] != LOG)

    def log(self, table: str) -> list[str]:
        folder = self._path(table)
        return sorted(name for path in (folder / LOG).glob("*") if is_log(name := f"{LOG}/{path.name}"))

    def read(self, table: str, name: str) -> bytes:
        return (self._path(table) / name).read_bytes()

    def write(self, table: str, name: str, content: bytes) -> None:
        path = self._path(table) / name
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomic(path, content)

    def parts(self, table: str, name: str) -> Iterator[bytes]:
        with (self._path(table) / name).open("rb") as file:
            yield from iter(lambda: file.read(_PART_BYTES), b"")

    def write_all(self, table: str, files: Sequence[tuple[str, Iterable[bytes]]]) -> None:
        folder = self._path(table)
        write_many((folder / name, parts) for name, parts in files)

    def remove(self, table: str, names: Iterable[str]) -> None:
        for name in names:
            (self._path(table) / name).unlink(missing_ok=True)

    def _path(self, table: str) -> Path:
        path = self._paths.get(table)
        if path is None:
            path = self._paths[table] = self.folder / check_id(table, "table")
        return path


def _any_inside(folder: Path) -> bool:
    """Return whether a folder has any file; the log of a stream's table has many thousands."""
    with os.scandir(folder) as entries:
        return next(entries, None) is not None


def is_log(name: str) -> bool:
    """Return whether a table's file is part of its log: an entry, a checkpoint, or the checkpoint pointer."""
    return _LOG_FILE.fullmatch(name) is not None


def is_table(name: str) -> bool:
    """Return whether a folder's name is a valid table name."""
    return re.fullmatch(ID_PATTERN, name) is not None
