"""Git-ignore files for backend folders inside the project, which contain data and hashes of keys."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from mainspring.core.settings import Settings, Url

_NAME = ".gitignore"


def keep_out_of_git(settings: Settings) -> None:
    """Write a `.gitignore` into each existing backend folder inside the project that has none.

    A folder that a backend owns is ignored completely; in the folder of a database file, the files of that name are.
    """
    lines: dict[Path, set[str]] = {settings.state: {"*"}}
    for name in ("lake", "blobs", "ledger", "catalog", "tracking", "online", "vectors"):
        url: Url = getattr(settings, name)
        if url.scheme in ("file", "lmdb"):
            lines.setdefault(url.path, set()).add("*")
        elif url.scheme == "sqlite":
            lines.setdefault(url.path.parent, set()).update((f"{url.path.name}*", f".{url.path.name}*"))
    if settings.catalog.scheme == "sqlite":  # its locks are beside it
        folder = settings.catalog.path.parent
        lines.setdefault(folder, set()).add("locks/")
        lines.setdefault(folder / "locks", set()).add("*")  # for a folder that was created before this module existed
    for folder, patterns in lines.items():
        inside = folder != settings.root and folder.is_relative_to(settings.root)
        if folder != settings.state and folder.is_relative_to(settings.state):
            continue  # ignored with the state folder
        if inside and folder.is_dir() and not (folder / _NAME).exists():
            with suppress(OSError):  # a read-only folder is not ours to change
                (folder / _NAME).write_text("".join(f"{each}\n" for each in sorted({*patterns, _NAME})))
