"""Tables of the lake in a restore: first the data files, as they are read, and once all is proved the logs.

Data files without a log are no table. So the largest part of a backup is read once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

from mainspring.data import duck
from mainspring.data.ports import TableFiles
from mainspring.operations.backup.making import LAKE, Told
from mainspring.operations.backup.repository import Entry, Repository, Section
from mainspring.project import Project
from mainspring.project.backends.data import table_files

Counts = dict[str, tuple[int, int]]  # what was compared -> how many are equal, of how many


class TableCopies:
    """Copies of a backup's tables in a lake.

    Args:
        tables: Sections of the backup by table.

    Attributes:
        kept: Tables that were there with another content, or are there with another one than was written.
    """

    def __init__(self, project: Project, repository: Repository, tables: Mapping[str, Section], told: Told) -> None:
        self._project = project
        self._repository = repository
        self._tables = tables
        self._told = told
        self._copied: dict[str, list[str]] = {}  # table -> data files that lack
        self.kept: list[str] = []

    @cached_property
    def _files(self) -> TableFiles:
        return table_files(self._project.stored_lake)

    def logs(self, entries: Iterable[Entry]) -> list[Entry]:
        """Return the files of a table's log, in the order of writing: the pointer is the last."""
        return sorted((each for each in entries if self._files.is_log(each.name)), key=lambda each: each.name)

    def expect_room(self) -> None:
        """Find the data files that lack of the tables that are missing, or were copied in part.

        Raises:
            StorageFull: They certainly do not fit.
        """
        size = 0
        for table, section in self._tables.items():
            entries = self._repository.entries(section)
            if self._is_part(table, {each.name: each for each in entries}):
                there = {*self._files.lying(table)}
                lacking = [each for each in entries if not self._files.is_log(each.name) and each.name not in there]
                self._copied[table] = [each.name for each in lacking]
                size += sum(each.size for each in lacking)
                self._files.expect_room(table, size)

    def write_data(self) -> None:
        """Write the data files that lack.

        Raises:
            Corrupt: One is damaged.
        """
        for table, names in self._copied.items():
            self._told(f"{LAKE}{table}")
            entries = {each.name: each for each in self._repository.entries(self._tables[table])}
            self._write(table, [entries[each] for each in names])

    def remove_data(self) -> None:
        """Remove the data files that were written."""
        for table, names in self._copied.items():
            self._files.remove(table, names)

    def finish(self) -> Counts:
        """Write the logs, read all again, and return the comparison with the backup."""
        equal = rows = equal_rows = 0
        for table, section in self._tables.items():
            self._told(f"{LAKE}{table}, read again")
            of = section.rows or 0
            rows += of
            if table in self._copied and self._is_equal(table, section):
                equal, equal_rows = equal + 1, equal_rows + of
            else:
                self.kept.append(f"{LAKE}{table}")
        return {"tables": (equal, len(self._tables)), "rows of tables": (equal_rows, rows)}

    def _is_equal(self, table: str, section: Section) -> bool:
        entries = self._repository.entries(section)
        self._write(table, self.logs(entries))
        if not all(self._repository.equal(entries, lambda entry: self._files.parts(table, entry.name))):
            return False
        scan = self._project.stored_lake.scan(table, section.version)
        with duck.session(threads=2) as con, duck.duck_errors(table, scan):
            duck.register(con, "restored", scan)
            rows = int(duck.one_row(con, "SELECT count(*) FROM restored")[0])
        return section.rows in (rows, None)

    def _write(self, table: str, entries: Iterable[Entry]) -> None:
        self._files.write(table, [(each.name, self._repository.parts(each)) for each in entries])

    def _is_part(self, table: str, entries: Mapping[str, Entry]) -> bool:
        """Return whether a table is missing, or was copied in part by a restore that was killed."""
        listed = self._files.listed(table)
        for name in () if listed is None else listed.log:
            if name not in entries or not self._repository.is_file(entries[name], self._files.parts(table, name)):
                return False
        return True
