"""Where the files of a training's checkpoints lie."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol, TypeVar

from mainspring.core.errors import Conflict
from mainspring.core.files import disk_errors, sync_folder
from mainspring.core.locks import FileLocks

CORRUPT = ".corrupt"
T = TypeVar("T")


class Shelf(Protocol):
    """Files of the checkpoints of one training, by name. Each of its processes has its own."""

    def shown(self, name: str = "") -> str:
        """Return the place of a file, or of all, for messages."""
        ...

    def hold(self) -> AbstractContextManager[None]:
        """Return a context in which no other training has the files, and what a killed one left in part is gone.

        Raises:
            Conflict: Another training has them.
        """
        ...

    def names(self) -> list[str]:
        """Return the names of all whole files."""
        ...

    def put(self, name: str, write: Callable[[Path], T], *, last: bool = False) -> T:
        """Store a file as a whole or not at all; return what `write` does, which writes a new one at a path.

        Args:
            last: True for a file that makes others a checkpoint.

        Raises:
            StorageFull, OSError: It could not be stored.
            Conflict: Another training has the files by now.
        """
        ...

    def has(self, name: str) -> bool: ...

    def local(self, name: str) -> Path:
        """Return a path at which a file's content is, for as long as the checkpoints are used.

        Raises:
            OSError: There is no such file.
        """
        ...

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""
        ...

    def set_aside(self, name: str) -> None:
        """Rename a file that is damaged."""
        ...


class FolderShelf:
    """A folder. Ranks on several machines need one that they share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def shown(self, name: str = "") -> str:
        return str(self.folder / name)

    @contextmanager
    def hold(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with FileLocks(self.folder).hold("training", wait_s=0):
                for left in self.folder.glob(".*.partial"):
                    left.unlink(missing_ok=True)
                yield
        except Conflict as busy:
            raise Conflict(
                f"Another training uses the checkpoints in {self.folder}: {busy.what}",
                fix="wait for it, stop it, or give this training another folder.",
            ) from busy

    def names(self) -> list[str]:
        with suppress(FileNotFoundError):
            return sorted(path.name for path in self.folder.iterdir())
        return []

    def put(self, name: str, write: Callable[[Path], T], *, last: bool = False) -> T:  # noqa: ARG002
        path = self.folder / name
        beside = path.with_name(f".{name}.{os.urandom(6).hex()}.partial")
        with disk_errors(path):
            try:
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                done = write(beside)
                beside.replace(path)
            finally:
                beside.unlink(missing_ok=True)
            sync_folder(self.folder)  # before a checkpoint names it, and before older ones are removed
        return done

    def has(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def local(self, name: str) -> Path:
        return self.folder / name

    def remove(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)

    def set_aside(self, name: str) -> None:
        with suppress(OSError):
            (self.folder / name).replace((self.folder / name).with_suffix(CORRUPT))
