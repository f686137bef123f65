"""Copies of Delta tables with all of their versions: file by file, each there whole or not at all.

Data goes before the log, and the log in the order of its versions: wherever a copy was cut short, the target is the
table as it was at some version. So its versions, the keys of its writes, and what tags name stay what they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from mainspring.core.errors import Conflict, Invalid
from mainspring.core.ids import check_id
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.deltadisk import LOG, version_of
from mainspring.data.adapters.deltaplaces import Place, is_log
from mainspring.data.model import TableListing
from mainspring.data.ports import LakeTables

POINTER = f"{LOG}/_last_checkpoint"  # the only file that changes


def copy_table(source: LakeTables, target: LakeTables, table: str) -> None:
    """Copy what the target lacks of a table.

    Raises:
        Invalid: One of the lakes is not made of Delta tables.
        Conflict: The target's table has another history.
    """
    if not (isinstance(source, DeltaLake) and isinstance(target, DeltaLake)):
        raise Invalid(
            f"A {type(source).__name__} cannot be copied to a {type(target).__name__}: both must hold Delta tables.",
            fix="name a folder or a bucket as `lake` in both profiles.",
        )
    with source.locks.hold(table, wait_s=600.0), target.locks.hold(table, wait_s=600.0):
        _copy(source.place, target.place, table)


def _copy(source: Place, target: Place, table: str) -> None:
    log, there = source.log(table), target.log(table)
    entries = {name for name in log if name.endswith(".json")}
    for name in (name for name in there if name.endswith(".json")):
        if name not in entries or source.read(table, name) != target.read(table, name):
            raise Conflict(
                f"The table {table} of the target profile has a history of its own.",
                fix="name an empty folder for `lake` in that profile.",
            )

    data = sorted(set(source.lying(table)) - set(target.lying(table)))
    for names in (data, [each for each in log if each not in there or each == POINTER]):
        target.write_all(table, [(each, source.parts(table, each)) for each in names])


class DeltaFiles:
    """`TableFiles` of Delta tables.

    Raises:
        Invalid: The lake is not made of Delta tables.
    """

    pointer = POINTER

    def __init__(self, lake: LakeTables) -> None:
        if not isinstance(lake, DeltaLake):
            raise Invalid(
                f"A {type(lake).__name__} cannot be restored to: it must hold Delta tables.",
                fix="name a folder or a bucket as `lake` in the profile.",
            )
        self._place, self._locks = lake.place, lake.locks

    def listed(self, table: str) -> TableListing | None:
        with self._locks.hold(table, wait_s=600.0):
            log = self._place.log(table)
            entries = [name for name in log if name.endswith(".json")]
            if not entries:
                return None
            last = self._place.read(table, POINTER) if POINTER in log else b""
            log = [name for name in log if name != POINTER]
            return TableListing(version_of(entries[-1]), self._place.lying(table), log, last)

    def lying(self, table: str) -> list[str]:
        return self._place.lying(table)

    def parts(self, table: str, name: str) -> Iterator[bytes]:
        return self._place.parts(table, name)

    def is_log(self, name: str) -> bool:
        return name.startswith(f"{LOG}/")

    def expect_room(self, table: str, size: int) -> None:
        self._place.ask_for_room(table, size)

    def write(self, table: str, files: Sequence[tuple[str, Iterable[bytes]]]) -> None:
        check_id(table, "table")
        for name, _ in files:
            if "\0" in name or "\\" in name or not {"", ".", ".."}.isdisjoint(name.split("/")):
                raise _foreign(name)
            if LOG in name and not is_log(name):
                raise _foreign(name)
        with self._place.errors(table):
            self._place.write_all(table, files)

    def remove(self, table: str, names: Iterable[str]) -> None:
        self._place.remove(table, names)


def _foreign(name: str) -> Invalid:
    return Invalid(f"{name[:200]!r} is not a file of a table.", fix="name another backup.")
