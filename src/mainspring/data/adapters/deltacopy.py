"""Copy of a Delta table with all of its versions: file by file, each there whole or not at all, those there left out.

Data goes before the log, and the log in the order of its versions: wherever a copy was cut short, the target is the
table as it was at some version. So its versions, the keys of its writes, and what tags name stay what they are.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from mainspring.core.errors import Conflict, Invalid
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.deltadisk import LOG
from mainspring.data.adapters.deltaplaces import Place
from mainspring.data.ports import LakeTables

_AT_ONCE = 8  # files
_LAST = "_last_checkpoint"


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

    def copy(name: str) -> None:
        target.write(table, name, source.read(table, name))

    data = sorted(set(source.lying(table)) - set(target.lying(table)))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(copy, data))
    for name in log:
        if name not in there or name == f"{LOG}/{_LAST}":  # the only file that changes
            copy(name)
