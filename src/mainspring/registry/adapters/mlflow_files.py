"""Artefacts of MLflow runs, in the folder where MLflow's own tools expect them. Symbolic links are never followed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from mainspring.core.errors import Invalid, NotFound
from mainspring.core.files import disk_errors, sync_folder, write_atomic
from mainspring.registry.naming import check_artefact, check_file


class RunFiles:
    """Artefacts of one run, below `folder`."""

    def __init__(self, folder: Path, run_id: str) -> None:
        self._folder = folder
        self._run_id = run_id

    def put(self, name: str, content: bytes | Path) -> None:
        """Store a file, replacing one of the same name atomically.

        Raises:
            Invalid: `name` is not a valid file name, or passes through a link or a file.
            NotFound: The file `content` does not exist.
            StorageFull: No space.
        """
        path = self._path(name)
        for folder in self._folders(path):
            if folder.is_symlink() or folder.is_file():
                raise Invalid(
                    f"{name!r} leads through {folder.name!r}, which is no folder of the run.", fix="rename it."
                )
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if isinstance(content, Path):
            _copy(content, path)
        else:
            write_atomic(path, content)

    def get(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
            NotFound: The file does not exist, or is a link.
        """
        path = self._path(name)
        if any(folder.is_symlink() for folder in (*self._folders(path), path)) or not path.is_file():
            raise NotFound(f"Run {self._run_id} keeps no file {name!r}; it has {sorted(self.all())}.")
        return path.read_bytes()

    def all(self) -> dict[str, int]:
        """Return name -> size in bytes of every file, sorted by name."""
        return dict(sorted(self._sizes()))

    def _sizes(self) -> Iterator[tuple[str, int]]:
        for folder, _, names in os.walk(self._folder):  # does not follow links
            for name in names:
                path = Path(folder) / name
                if not path.is_symlink() and not name.startswith("."):  # partial files begin with a dot
                    yield path.relative_to(self._folder).as_posix(), path.stat().st_size

    def _path(self, name: str) -> Path:
        return self._folder / check_artefact(name)

    def _folders(self, path: Path) -> list[Path]:
        """Return the folders between the run's own folder and the file."""
        return list(path.parents)[: len(path.relative_to(self._folder).parts) - 1]


def _copy(source: Path, path: Path) -> None:
    check_file(source)
    beside = path.with_name(f".{path.name}.{os.urandom(6).hex()}.partial")
    with disk_errors(path):
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as to, source.open("rb") as read:
                shutil.copyfileobj(read, to, 1 << 20)
                to.flush()
                os.fsync(to.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        sync_folder(path.parent)
