"""Copy of a lake's tables and of bundles, file by file: each file is whole or missing, and existing files are skipped.

A table's data is copied before its log, and the log in the order of its versions, so an interrupted copy leaves the
table at an earlier version. Versions, keys of writes and tags stay valid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Any

from mainspring.core.errors import Corrupt
from mainspring.data import duck
from mainspring.data.ports import LakeTables
from mainspring.operations.migrate.content import Content, Step, one_by_one
from mainspring.registry.ports import Blobs


def move_lake(source: LakeTables, target: LakeTables, copy: Callable[[str], None], step: Step) -> list[Content]:
    """Copy every table with all of its versions, and return the target's content, read again row by row.

    Args:
        copy: Copies one table; see `data.adapters.deltacopy`.

    Raises:
        Conflict: The target has other tables, or a table with another history.
        Corrupt: The data read again differs from the data written.
    """
    moved = []
    tables = one_by_one(source.tables(), target.tables(), place="The lake", setting="lake", step=step)
    for table in tables:
        copy(table)
        left, right = content(source, table), content(target, table)
        if left != right or source.version(table) != target.version(table):
            raise Corrupt(
                f"Table {table} has {left.rows} rows ({left.digest}), but its copy has {right.rows} ({right.digest}).",
                fix="run the command again; if the difference persists, empty the target first.",
            )
        moved.append(right)
    return moved


def content(lake: LakeTables, table: str) -> Content:
    """Return the number of rows of the newest version, and a digest of them that is independent of their order."""
    scan = lake.scan(table)
    con = duck.connect(threads=2)
    try:
        duck.register(con, "moved", scan)
        with duck.duck_errors(table, scan):
            rows, total, mixed = duck.one_row(
                con, "SELECT count(*), coalesce(sum(hash(moved)), 0), coalesce(bit_xor(hash(moved)), 0) FROM moved"
            )
    finally:
        con.close()
    return Content(table, int(rows), sha256(f"{int(total)} {int(mixed)}".encode()).hexdigest()[:32])


def move_blobs(source: Blobs, target: Blobs, step: Step) -> list[Content]:
    """Copy the bundles, and return the target's content, read again.

    Raises:
        Corrupt: A bundle read again differs from the one written.
    """
    digests, there = source.all(), set(target.all())
    for number, digest in enumerate(digests):
        step(number, len(digests), digest[:12])
        files = source.get(digest)
        if digest not in there:
            target.put(digest, files)
        if _digests(target.get(digest)) != _digests(files):
            raise Corrupt(
                f"The copy of bundle {digest[:12]} differs from the original.",
                fix="remove it from the target profile's `blobs`, and run the command again.",
            )
    step(len(digests), len(digests), "")
    return [Content("bundles", len(digests), _together(digests))]


def _digests(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: sha256(content).hexdigest() for name, content in files.items()}


def _together(parts: Iterable[Any]) -> str:
    return sha256("\n".join(sorted(map(str, parts))).encode()).hexdigest()[:32]
