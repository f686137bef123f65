"""`backup verify` and `backup list`: the backups of a repository, and what of them is damaged."""

from __future__ import annotations

import msgspec

from mainspring.core.errors import Corrupt
from mainspring.core.time import format_instant
from mainspring.operations.backup.making import BUNDLES, LAKE, Told
from mainspring.operations.backup.repository import Point, Repository, folder_of, made_at, open_repository, piece_path
from mainspring.project import Project


class DamagedObject(msgspec.Struct, frozen=True):
    """A damaged object of a repository.

    Attributes:
        object: Its name in the repository.
        of: What needs it: the newest backup, and one of its files.
        detail: What is wrong.
    """

    object: str
    of: str
    detail: str


class VerifiedBackups(msgspec.Struct, frozen=True, kw_only=True):
    """Result of reading a whole repository.

    Attributes:
        bytes: Of the pieces, as they were before they were encrypted.
        unused: Pieces that no backup has, as one that was killed leaves; `--keep` of the next removes them.
        strangers: Objects that are none of the repository.
    """

    repository: str
    backups: int
    pieces: int
    bytes: int
    unused: int
    damage: list[DamagedObject]
    strangers: list[str]


class KeptBackup(msgspec.Struct, frozen=True, kw_only=True):
    """A backup. `made_at` is in UTC epoch microseconds; `error` says why it cannot be read."""

    id: str
    made_at: int
    tables: int = 0
    rows: int = 0
    bundles: int = 0
    files: int = 0
    bytes: int = 0
    error: str = ""


def backups(project: Project, address: str) -> list[KeptBackup]:
    """Return the backups in a repository, newest first.

    Raises:
        NotFound: There is no repository.
    """
    repository = open_repository(project, address)
    return [_listed(repository, each) for each in reversed(repository.points())]


def verify(project: Project, address: str, told: Told = lambda _: None) -> VerifiedBackups:
    """Read all of a repository, each piece once.

    Raises:
        NotFound: There is none.
        Corrupt: Its head or its keys are damaged, or of another key service.
    """
    repository = open_repository(project, address)
    damage, needed, lists = list[DamagedObject](), dict[str, str](), set[str]()
    names = repository.points()
    for name in reversed(names):
        of = f"the backup of {format_instant(made_at(name))}"
        told(of)
        try:
            point = repository.point(name)
        except Corrupt as error:
            damage.append(DamagedObject(name, of, error.what))
            continue
        damage += _collect(repository, point, of, needed, lists)
    size = 0
    told(f"{len(needed)} pieces")
    for piece, found in repository.sizes(needed):
        if isinstance(found, Corrupt):
            damage.append(DamagedObject(piece_path(piece), needed[piece], found.what))
        else:
            size += found
    unused = sum(each not in needed and each not in lists for each in repository.pieces())
    return VerifiedBackups(
        repository=repository.shown, backups=len(names), pieces=len(needed) + len(lists), bytes=size, unused=unused,
        damage=damage, strangers=repository.strangers(),
    )  # fmt: skip


def _collect(
    repository: Repository, point: Point, of: str, needed: dict[str, str], lists: set[str]
) -> list[DamagedObject]:
    """Add the pieces of a backup that are not known yet, and return its lists of files that are damaged."""
    damage = []
    for section in point.sections:
        for piece in section.listing:
            if piece in lists:
                continue
            lists.add(piece)
            try:
                entries = repository.listed(piece)
            except Corrupt as error:
                damage.append(
                    DamagedObject(piece_path(piece), f"the list of files of {section.name}, {of}", error.what)
                )
                continue
            for entry in entries:
                shown = section.name if entry.name == section.name else f"{section.name}/{entry.name}"
                for each in entry.pieces:
                    needed.setdefault(each, f"{shown}, {of}")
    return damage


def _listed(repository: Repository, name: str) -> KeptBackup:
    id_, at = name.rpartition("-")[2], made_at(name)
    try:
        point = repository.point(name)
        bundles = point.section(BUNDLES)
        digests = set() if bundles is None else {folder_of(each.name) for each in repository.entries(bundles)}
    except Corrupt as error:
        return KeptBackup(id=id_, made_at=at, error=error.what)
    tables = point.within(LAKE)
    return KeptBackup(
        id=id_, made_at=at, tables=len(tables), rows=sum(each.rows or 0 for each in tables.values()),
        bundles=len(digests), files=sum(each.files for each in point.sections),
        bytes=sum(each.bytes for each in point.sections),
    )  # fmt: skip
