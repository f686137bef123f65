"""Tables of an embedded index. Those of the format before, with vectors in `entry`, are brought up to this one."""

from __future__ import annotations

from mainspring.core.errors import Corrupt
from mainspring.core.sqlite_file import SqliteFile

SCHEMA = """
CREATE TABLE IF NOT EXISTS spec (one INTEGER PRIMARY KEY CHECK (one = 1), json BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS version (
    one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER NOT NULL, writes INTEGER NOT NULL, cleaned INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS entry (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, fields BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS vector (number INTEGER PRIMARY KEY, vector BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS removed (change INTEGER PRIMARY KEY AUTOINCREMENT, number INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS graph (
    one INTEGER PRIMARY KEY CHECK (one = 1), file TEXT NOT NULL, digest TEXT NOT NULL, last INTEGER NOT NULL,
    numbers BLOB NOT NULL
);
INSERT INTO version VALUES (1, 0, 0, 0) ON CONFLICT DO NOTHING;
"""
_TABLES = frozenset({"spec", "version", "entry", "vector", "removed", "graph"})
_USUAL, _LARGE, _FEW_BYTES, _CELL = 4_096, 16_384, 1_024, 16  # bytes; a vector has a cell with its number
_BEFORE = (_TABLES - {"vector"}, {"number", "id", "vector", "fields"})  # its tables, and columns of its entries


def page_bytes(dimension: int) -> int:
    """Return the size of the pages of a database, which few vectors would fill badly: two of 384 numbers fill three
    quarters of a usual page. One that fills more than a usual page has pages of its own in any case."""
    return _LARGE if _FEW_BYTES < 4 * dimension + _CELL <= _USUAL else _USUAL


def bring_up(file: SqliteFile) -> None:
    """Bring a database of the format before up to this one.

    Raises:
        Corrupt: It is of another.
    """
    if _format(file)[0] >= _TABLES:
        return
    with file.transaction() as connection:
        tables, columns = _format(file)
        if tables >= _TABLES:  # another process was faster
            return
        if not tables >= _BEFORE[0] or columns != _BEFORE[1]:
            raise Corrupt(
                f"The vector index {file.path} is of another format: it has no tables {sorted(_TABLES - tables)}.",
                fix=f"stop Mainspring, delete {file.path.parent}, and run `mainspring collections build NAME`.",
            )
        connection.execute("CREATE TABLE vector (number INTEGER PRIMARY KEY, vector BLOB NOT NULL)")
        connection.execute("INSERT INTO vector SELECT number, vector FROM entry ORDER BY number")
        connection.execute("ALTER TABLE entry DROP COLUMN vector")


def _format(file: SqliteFile) -> tuple[set[str], set[str]]:
    """Return the names of a database's tables, and of the columns of its entries."""
    with file.errors():
        connection = file.connection()
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        columns = {name for (name,) in connection.execute("SELECT name FROM pragma_table_info('entry')")}
    return tables, columns
