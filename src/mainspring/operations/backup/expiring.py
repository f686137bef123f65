"""Removal of backups that have expired, and of pieces that no backup has."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import msgspec

from mainspring.operations.backup.repository import Repository, made_at

_AT_ONCE = 8  # pieces that are removed


class Removed(msgspec.Struct, frozen=True):
    """Numbers of backups and pieces that were removed."""

    backups: int
    pieces: int


def expire(repository: Repository, before: int) -> Removed:
    """Remove the backups that were made before a time, but the newest, and all pieces that the others do not need.

    The caller has excluded other writers. Killed, the next does the rest.

    Args:
        before: UTC epoch microseconds.

    Raises:
        Corrupt: A backup to be kept cannot be read, so its pieces are not known; nothing was removed.
    """
    names = repository.points()
    old = [each for each in names[:-1] if made_at(each) < before]
    used = set[str]()
    for each in names:
        if each not in old:
            used |= _needed(repository, each, used)
    for each in old:
        repository.remove(each)
    unused = [each for each in repository.pieces() if each not in used]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(repository.remove, unused):
            pass
    return Removed(len(old), len(unused))


def _needed(repository: Repository, point: str, known: set[str]) -> set[str]:
    found = set[str]()
    for section in repository.point(point).sections:
        for piece in section.listing:
            if piece not in known:  # most tables are in each backup as they were in the one before
                found.update([piece], *(each.pieces for each in repository.listed(piece)))
    return found
