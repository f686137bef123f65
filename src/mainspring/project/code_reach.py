"""Files of a project that are open to the code of its models, and those that are closed to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mainspring.core.settings import PROJECT_FILE, Settings, Url

_IN_FILES = ("file", "sqlite", "lmdb")  # schemes whose path is one of this machine


def open_to_code(settings: Settings) -> list[Path]:
    """Return the files and folders of the project that code of models may read.

    Left out are names that begin with a dot (`.mainspring`, `.env`, `.git`), the project's file, which may have
    passwords in it, and links, which may lead anywhere.
    """
    try:
        inner = sorted(settings.root.iterdir())
    except OSError:  # of a process that is confined already, and whose parent named them
        return []
    return [
        each for each in inner if not each.name.startswith(".") and each.name != PROJECT_FILE and not each.is_symlink()
    ]


def closed_to_code(settings: Settings) -> list[Path]:
    """Return the places of the project's stores, keys and state, wherever the profile puts them."""
    return [each for each in dict.fromkeys(_places(settings)) if each != settings.root]


def _places(value: Any) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
    elif isinstance(value, Url):
        yield from _place(value.text)
    elif isinstance(value, str):
        yield from _place(value) if ":" in value else ()
    elif is_dataclass(value) and not isinstance(value, type):
        for each in fields(value):
            yield from _places(getattr(value, each.name))
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _places(each)
    elif isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray)):
        for each in value:
            yield from _places(each)


def _place(address: str) -> Iterator[Path]:
    try:
        parts = urlsplit(address)
    except ValueError:
        return
    if parts.scheme in _IN_FILES and parts.path not in ("", "/"):
        path = Path("/" + unquote(parts.path).lstrip("/"))
        yield path
        yield from (path.with_name(f"{path.name}-{end}") for end in ("wal", "shm", "journal"))
