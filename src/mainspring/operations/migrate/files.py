"""Moving a lake's tables and the bundles: file by file, each there whole or not at all, those that are there left out.

A table's data goes before its log, and the log in the order of its versions: wherever a move was cut short, the target
is the table as it was at some version. So its versions, the keys of its writes, and what tags name stay what they are.
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
    """Copy every table with all of its versions, and return what the target has, read again row by row.

    Args:
        copy: Copies one table; see `data.adapters.deltacopy`.

    Raises:
        Conflict: The target has other tables, or another history of one.
        Corrupt: What was written is not what is read again.
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
    """Return how many rows the newest version has, and a digest of them that does not depend on their order."""
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
    """Copy the bundles, and return what the target has, read again.

    Raises:
        Corrupt: A bundle is not read as it was written.
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
