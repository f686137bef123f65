"""Log files of child processes: path, opening and tail."""

from __future__ import annotations

import os
from io import BufferedWriter
from pathlib import Path

_LARGEST = 10 << 20  # bytes; what is larger at a start is put aside


def log_path(state: Path, name: str) -> Path:
    """Return the path of a child's log."""
    return state / "logs" / f"{name}.log"


def open_log(path: Path) -> BufferedWriter:
    """Open the log for appending."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if path.exists() and path.stat().st_size > _LARGEST:
        path.replace(path.with_suffix(".old.log"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def last_lines(path: Path, lines: int = 3) -> str:
    """Return the last lines of a log, joined to one line."""
    try:
        return " | ".join(path.read_text(errors="replace").splitlines()[-lines:]) or "(empty)"
    except FileNotFoundError:
        return "(empty)"
