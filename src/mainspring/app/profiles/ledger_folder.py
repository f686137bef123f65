"""The folder of a profile's prediction log: what is logged for one lake never goes into another.

Profiles of a project share its state folder unless they say otherwise. The first lake that a folder of the log is used
for is named in it; a profile with another lake has a folder of its own inside.
"""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

from mainspring.core.files import disk_errors, sync_folder
from mainspring.core.settings import Settings

_OWNER = "lake"  # the file that names the lake


def ledger_folder(settings: Settings) -> Path:
    """Return where the segments are whose predictions belong into the lake of `settings`, made if it is not there."""
    folder, mine = settings.ledger.path, _name(settings)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        owner = folder / _OWNER
        if not owner.exists():
            _claim(owner, mine)
    if owner.read_text("utf-8") == mine:
        return folder
    return folder / f"of-{sha256(mine.encode()).hexdigest()[:12]}"


def _name(settings: Settings) -> str:
    """Return what a lake is called, whoever asks; one inside of the project moves with it."""
    lake = settings.lake
    if lake.scheme == "file" and lake.path.is_relative_to(settings.root):
        return str(lake.path.relative_to(settings.root))
    return lake.shown


def _claim(owner: Path, name: str) -> None:
    """Write the name, whole, unless somebody was faster."""
    beside = owner.with_name(f".{owner.name}.{os.urandom(6).hex()}.claim")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(name)
            file.flush()
            os.fsync(file.fileno())
        try:
            owner.hardlink_to(beside)  # unlike a rename, fails where it is there
        except FileExistsError:
            return
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(owner.parent)
