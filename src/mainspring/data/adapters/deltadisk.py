"""Durability of Delta tables in a folder: commits are synced, and damaged log entries are detected.

delta-rs does not sync. After a power loss a log entry may exist without content, and delta-rs treats it as an empty
commit.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

from mainspring.core.errors import Corrupt
from mainspring.core.files import sync_file, sync_folder

LOG = "_delta_log"
_POINTER = "_last_checkpoint"
_PARQUET = b"PAR1"
_SAME_ROWS = ("OPTIMIZE", "DELETE")  # operations that add no rows


def check_log(folder: Path, after: int | None) -> None:
    """Raise if a log entry that delta-rs would read is empty.

    Args:
        after: Check the entries after this version; by default those since the newest checkpoint.

    Raises:
        Corrupt: An entry is empty; the fix says how to recover the table.
    """
    log = folder / LOG
    if after is None:
        after = _checkpoint(log)
    for version, entry in _entries(log, after):
        if not entry.stat().st_size:
            raise _empty(entry, newest=not _entry(log, version + 1).exists())


def recover_log(folder: Path) -> bool:
    """Remove the remains of a power loss at the end of a table's log; return whether there were any.

    These are empty entries that no complete one follows, and an incomplete checkpoint. The caller excludes writers. A
    commit is synced before it is acknowledged, so none of the removed ones was.
    """
    log = folder / LOG
    removed = _remove_checkpoint(log)
    for entry in sorted(log.glob("*.json"), reverse=True):
        if entry.stat().st_size:
            break
        entry.unlink()
        removed = True
    if removed:
        sync_folder(log)
    return removed


def _remove_checkpoint(log: Path) -> bool:
    pointer = log / _POINTER
    try:
        version = int(json.loads(pointer.read_bytes())["version"])
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError):
        pointer.unlink()
        return True
    torn = [path for path in log.glob(f"{version:020d}.checkpoint*.parquet") if not whole_parquet(path)]
    if torn:
        pointer.unlink()
        for path in torn:
            path.unlink()
    return bool(torn)


def whole_parquet(path: Path) -> bool:
    """Return whether a file ends with Parquet's magic bytes."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - len(_PARQUET)))
        return file.read() == _PARQUET


def sync_log(folder: Path, after: int | None) -> None:
    """Sync a table's commits after a version: data files, log entries, checkpoints and folders.

    Args:
        after: The version; None for every commit since the newest checkpoint.
    """
    log = folder / LOG
    first = -1 if after is None else after
    newest = _checkpoint(log)
    for version, entry in _entries(log, newest if after is None else after):
        for name in _added(entry):
            with suppress(FileNotFoundError):  # replaced by a later commit and vacuumed
                sync_file(folder / name)
        sync_file(entry)
        # A search lists the whole log, which has many entries where a stream writes.
        for checkpoint in log.glob(f"{version:020d}.checkpoint*.parquet") if after is None or version == newest else ():
            sync_file(checkpoint)
            with suppress(FileNotFoundError):  # removed by `recover_log`
                sync_file(log / _POINTER)
    sync_folder(log)
    sync_folder(folder)
    if first < 0:  # parent folders may be new
        device = folder.stat().st_dev
        for parent in folder.parents:
            if parent.stat().st_dev != device or not os.access(parent, os.R_OK):
                break
            sync_folder(parent)


def version_of(name: str) -> int:
    """Return the version number in a log file's name, -1 if there is none."""
    digits = Path(name).name.partition(".")[0]
    return int(digits) if digits.isdigit() else -1


def appended_in(entry: bytes) -> list[str] | None:
    """Return the data files that a log entry appends; `None` if it changes rows in another way.

    Files from compaction or from the deletion of rows are not appended.
    """
    actions = [json.loads(line) for line in entry.splitlines()]
    operation = next((action["commitInfo"].get("operation") for action in actions if "commitInfo" in action), None)
    if operation in _SAME_ROWS:
        return []
    if any("remove" in action for action in actions):
        return None
    return [unquote(action["add"]["path"]) for action in actions if "add" in action]


def _entry(log: Path, version: int) -> Path:
    return log / f"{version:020d}.json"


def _entries(log: Path, after: int) -> Iterator[tuple[int, Path]]:
    version = after + 1
    while (entry := _entry(log, version)).exists():
        yield version, entry
        version += 1


def _added(entry: Path) -> Iterator[str]:
    for line in entry.read_bytes().splitlines():
        if line.startswith(b'{"add"'):
            yield unquote(json.loads(line)["add"]["path"])


def _checkpoint(log: Path) -> int:
    """Return the version of the newest checkpoint, -1 if there is none."""
    pointer = log / _POINTER
    try:
        return int(json.loads(pointer.read_bytes())["version"])
    except FileNotFoundError:
        return -1
    except (ValueError, KeyError, TypeError):
        raise Corrupt(
            f"{pointer} cannot be read.", fix=f"run `rm {pointer}`: the entries beside it have the same content."
        ) from None


def _empty(entry: Path, *, newest: bool) -> Corrupt:
    what = f"{entry} is empty: a power cut lost the rows of this commit."
    if newest:
        return Corrupt(what, fix=f"run `rm {shlex.quote(str(entry))}`, and ingest the lost rows again.")
    folder = shlex.quote(str(entry.parent.parent))
    return Corrupt(
        what, fix=f"restore the table from a backup, or run `mv {folder} {folder}.damaged` and ingest its rows again."
    )
