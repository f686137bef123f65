"""Anchors in a file: one line of JSON for each head, synced to the disk."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mainspring.core.errors import Corrupt, Unavailable
from mainspring.core.files import disk_errors, make_folder, sync_folder


@contextmanager
def _reached(path: Path) -> Iterator[None]:
    """Turn errors of the file system into ours, which name the place."""
    try:
        with disk_errors(path):
            yield
    except OSError as error:
        raise Unavailable(
            f"The anchors of the audit log in {path} cannot be reached: {error.strerror or error}.",
            fix="see who may append to the file; if its last line is unfinished, take that out.",
        ) from error


class FileAnchors:
    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, note: str, _proof: Sequence[bytes], /) -> None:
        with _reached(self._path):
            make_folder(self._path.parent)
            is_new = not self._path.exists()
            with os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.seek(0)
                content = file.read()
                whole = content.rfind(b"\n") + 1
                if whole < len(content):  # a power cut left a line unfinished
                    file.truncate(whole)
                file.write(json.dumps({"head": note}, ensure_ascii=False).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            if is_new:
                sync_folder(self._path.parent)

    def read(self) -> Iterator[str]:
        with _reached(self._path):
            try:
                content = self._path.read_bytes()
            except FileNotFoundError:
                return
        lines = content[: content.rfind(b"\n") + 1].splitlines()
        try:
            heads = [str(json.loads(line)["head"]) for line in lines]
        except (ValueError, LookupError, TypeError, RecursionError):
            raise Corrupt(
                f"The anchors of the audit log in {self._path} are damaged.",
                fix="restore the file from a backup; if there is none, move it away, and find out who changed it.",
            ) from None
        yield from reversed(heads)
