"""Traces of backups and restores in the state folder: the mark of an unfinished restore, and databases in clear.

Until a restore is finished, the catalog may be half there, or people who were erased may be back.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import msgspec

from mainspring.core.errors import Conflict
from mainspring.core.files import write_atomic
from mainspring.core.locks import Locks

RESTORING = "restoring.json"  # while a restore is not finished
SCRATCH = "backup.tmp"  # databases in clear, while a backup or a restore runs
SCRATCH_LOCK = "backup"


class Restoring(msgspec.Struct, frozen=True):
    """Restore that is not finished.

    Attributes:
        path: Repository of backups.
        copied: All is there, and the erased may be back.
        equal: Counts of the comparison after the copy, for the result.
        kept: Names of what was there with another content, for the result.
    """

    path: str
    id: str
    profile: str
    copied: bool
    equal: dict[str, tuple[int, int]] = {}
    kept: list[str] = []

    @property
    def what(self) -> str:
        """Description of the problem."""
        how = "people who were erased may be back" if self.copied else "a part of it is there"
        return f"the restore of {self.path} is not finished: {how}"

    @property
    def fix(self) -> str:
        """Fix, for the error message."""
        return f"run `mainspring restore {self.path} --profile {self.profile}`, which finishes it"


def read_restoring(state: Path) -> Restoring | None:
    """Return the restore that was interrupted, `None` if there is none."""
    try:
        return msgspec.json.decode((state / RESTORING).read_bytes(), type=Restoring)
    except FileNotFoundError:
        return None


def write_restoring(state: Path, mark: Restoring) -> None:
    """Mark a restore as not finished."""
    write_atomic(state / RESTORING, msgspec.json.encode(mark))


def end_restoring(state: Path) -> None:
    """Remove the mark of a restore."""
    (state / RESTORING).unlink()


def expect_restored(state: Path) -> None:
    """Raise if a restore is not finished.

    Raises:
        Conflict: It is not.
    """
    mark = read_restoring(state)
    if mark is not None:
        raise Conflict(f"{state / RESTORING} says that {mark.what}. Nothing is written until then.", fix=f"{mark.fix}.")


def remove_scratch(state: Path, locks: Locks) -> None:
    """Remove the databases in clear that a killed backup or restore left."""
    if (state / SCRATCH).exists():
        with suppress(Conflict), locks.hold(SCRATCH_LOCK, wait_s=0):  # one that runs removes its own
            shutil.rmtree(state / SCRATCH, ignore_errors=True)
