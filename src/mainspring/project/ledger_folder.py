"""The folder of a profile's prediction log. Predictions logged for one lake never go into another.

Profiles of a project share its state folder by default. A log folder contains the name of the first lake that it was
used for; a profile with another lake has a subfolder, which contains the name of its lake, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from mainspring.core.errors import MainspringError
from mainspring.core.files import write_once
from mainspring.core.locks import Locks
from mainspring.core.settings import Settings
from mainspring.project.settings import load_settings, name_profiles

_OWNER = "lake"  # file with the name of the lake
_OF = "of-"  # prefix of a subfolder, followed by a digest of the lake's name
_SEGMENTS = "*.segment"


@dataclass(frozen=True, slots=True)
class Stranded:
    """Stranded segments of the log, whose lake neither a profile nor the environment names.

    Attributes:
        lake: Their lake; empty if an earlier version of Mainspring made the folder.
        instead: The lake of the profile in use.
    """

    folder: Path
    lake: str
    segments: int
    instead: str

    @property
    def what(self) -> str:
        """Description of the problem."""
        lake = repr(self.lake) if self.lake else "another lake"
        return (
            f"{self.segments} segments of the prediction log in {self.folder} belong to {lake}, which neither a "
            f"profile nor the environment names: the current lake is {self.instead!r}"
        )

    @property
    def fix(self) -> str:
        """Fix, for the error message."""
        lake = f"lake = {self.lake!r}" if self.lake else "its lake"
        once = f", or `MAINSPRING_LAKE={self.lake} mainspring doctor`" if self.lake else ""
        return (
            f"give a profile {lake} and run `mainspring doctor --profile` with it{once}, which moves the segments "
            f"there; or, if you do not need them, move {self.folder} away"
        )


def ledger_folder(settings: Settings, *, claim: bool = True) -> Path:
    """Return the folder of segments whose predictions belong to the lake of `settings`.

    Args:
        claim: Whether to create the folder and store the lake's name in it; else nothing is written, and it may be
            missing.
    """
    folder, mine = settings.ledger.path, _name(settings)
    owner = _owner(folder)
    if owner is None and not claim:
        # Without a name it is free for a later lake, unless a version without such names has logged there.
        return folder if any(folder.glob(_SEGMENTS)) or any(folder.glob("damaged/*")) else _inside(folder, mine)
    if owner is None:
        write_once(folder / _OWNER, mine.encode())
        owner = _owner(folder)
    if owner == mine:
        return folder
    inside = _inside(folder, mine)
    if claim and _owner(inside) is None:
        write_once(inside / _OWNER, mine.encode())
    return inside


@contextmanager
def log_copies(settings: Settings, locks: Locks) -> Iterator[Iterator[tuple[str, Iterator[bytes]]]]:
    """Context with the names and contents of a copy of the prediction log, while nothing is moved into the lake."""
    from mainspring.ledger.adapters.lake import LOCK
    from mainspring.ledger.adapters.unread import copies

    with locks.hold(LOCK):
        yield copies(ledger_folder(settings, claim=False))


def stranded(settings: Settings) -> Iterator[Stranded]:
    """Yield segments of the log for a lake that neither a profile nor the environment names."""
    from mainspring.ledger.adapters.unread import waiting

    root = settings.ledger.path
    folders = {folder: waiting(folder) for folder in (root, *sorted(root.glob(f"{_OF}*")))}
    if not any(folders.values()):
        return
    lakes = {_name(profile) for profile in (settings, *_others(settings)) if profile.ledger == settings.ledger}
    unread = {_inside(root, name) for name in lakes}
    for folder, segments in folders.items():
        lake = _owner(folder)
        claimed = lake in lakes if lake is not None else folder == root or folder in unread
        if segments and not claimed:
            yield Stranded(folder, lake or "", segments, _name(settings))


def _others(settings: Settings) -> Iterator[Settings]:
    """Yield the settings of every readable profile of the project, with and without the environment."""
    environments: tuple[dict[str, str] | None, ...] = (None, {})
    for name in name_profiles(settings.root, settings.profile)[1]:
        for environment in environments:
            try:
                yield load_settings(settings.root, name, environment=environment)
            except MainspringError:  # `profile list` says it
                continue


def _inside(folder: Path, name: str) -> Path:
    return folder / f"{_OF}{_digest(name)}"


def lake_digest(settings: Settings) -> str:
    """Return an identifier of a profile's lake of twelve characters. For a lake inside the project it survives a move
    of the project.
    """
    return _digest(_name(settings))


def _digest(name: str) -> str:
    return sha256(name.encode()).hexdigest()[:12]


def _name(settings: Settings) -> str:
    """Return a canonical name of a lake, relative to the project if it lies inside."""
    lake = settings.lake
    if lake.scheme == "file" and lake.path.is_relative_to(settings.root):
        return str(lake.path.relative_to(settings.root))
    return lake.shown


def _owner(folder: Path) -> str | None:
    try:
        return (folder / _OWNER).read_text("utf-8")
    except FileNotFoundError:
        return None
