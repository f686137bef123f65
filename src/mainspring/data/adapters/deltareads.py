"""Reads of Delta tables: their versions, as paths of local Parquet files, and what of them is damaged."""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Hashable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from mainspring.core.errors import Corrupt, NotFound
from mainspring.core.ids import check_id
from mainspring.data.adapters import deltakeys as keys
from mainspring.data.adapters.deltadisk import LOG, appended_in, version_of, whole_parquet
from mainspring.data.adapters.deltaerrors import delta_errors
from mainspring.data.adapters.deltaplaces import Place
from mainspring.data.model import TableScan, TableVersion
from mainspring.data.write_keys import marks_of


class DeltaReads:
    """The reading half of `LakeTables`; see `delta.DeltaLake`."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._thread = threading.local()

    def has(self, table: str, key: str) -> bool:
        at = self._open(table)
        return at is not None and keys.written(key, self._stored(table, at))

    def marks(self, table: str, names: Iterable[str]) -> dict[str, int]:
        at = self._open(table)
        return {} if at is None else marks_of(names, self._stored(table, at))

    def version(self, table: str) -> int | None:
        at = self._open(table)
        return None if at is None else int(at.version())

    def tables(self) -> list[str]:
        return self.place.tables()

    def scan(self, table: str, version: int | None = None) -> TableScan:
        at = self._version(table, version)
        content = self._content(table, at)
        found = self.place.fetch(table, content.names)
        self._check_files(table, at, content.names, found)
        return TableScan(content.version, files=tuple(found[name] for name in content.names), schema=content.schema)

    def readable(self, table: str, versions: Iterable[int]) -> list[int]:
        lying = set(self.place.lying(table))
        found = []
        for version in versions:
            with suppress(NotFound):
                self._needed(table, version, lying)
                found.append(version)
        return found

    def appended(self, table: str, since: int, until: int | None = None) -> TableScan | None:
        at = self._open(table)
        if at is None:
            raise NotFound(f"There is no table {table!r}.", fix=f"the lake has {self.tables()}.")
        names: list[str] = []
        until = int(at.version()) if until is None else until
        for version in range(since + 1, until + 1):
            try:
                entry = self.place.read(table, f"{LOG}/{version:020d}.json")
            except FileNotFoundError:  # removed by a log clean-up
                return None
            added = appended_in(entry)
            if added is None:
                return None
            names += added
        found = self.place.fetch(table, names)
        if since > until or len(found) < len(set(names)):
            return None
        return TableScan(until, files=tuple(found[name] for name in names), schema=self._content(table, at).schema)

    def describe(self, table: str, version: int | None = None) -> TableVersion:
        newest = self.version(table)
        if version is not None and newest is not None and not 0 <= version <= newest:
            raise NotFound(f"Table {table!r} never had a version {version}.", fix=f"its newest version is {newest}.")
        at = self._version(table, version)
        content, restored = self._content(table, at), keys.restored(self._stored(table, at))
        return TableVersion(content.version, content.rows, content.schema, restored, content.names)

    def damage(self, table: str) -> list[str]:
        at = self._open(table)
        if at is None:
            lying = len(self.place.lying(table))
            return [f"{self._address(table)} has {lying} files but no transaction log"] if lying else []
        added = added_files(at)
        sizes: dict[str, Any] = dict(zip(file_names(at), added["size_bytes"].to_pylist(), strict=True))
        found = self.place.fetch(table, sizes)
        wrong = {name: _damage(found.get(name), size) for name, size in sizes.items()}
        return [f"{self._address(table)}/{name} {what}" for name, what in wrong.items() if what]

    def _version(self, table: str, version: int | None) -> DeltaTable:
        newest = self._open(table)
        if newest is None:
            raise NotFound(f"There is no table {table!r}.", fix=f"the lake has {self.tables()}.")
        if version is None or version == newest.version():
            return newest
        if not 0 <= version < newest.version():
            raise self._gone(table, version)
        try:
            with delta_errors(self._address(table)):
                return self._at(table, version)
        except TableNotFoundError:  # the log was truncated
            raise self._gone(table, version) from None
        except Corrupt:
            if self._dropped(table, version):
                raise self._gone(table, version) from None
            raise

    def _dropped(self, table: str, version: int) -> bool:
        """Return whether what describes a version was removed from the log: its entry, or all that it begins with."""
        names = self.place.log(table)
        entries = {version_of(name) for name in names if name.endswith(".json")}
        begins = {0, *(version_of(name) for name in names if "checkpoint." in name)} & {*range(version + 1)}
        first = max((each for each in begins if each or 0 in entries), default=None)
        return first is None or not entries.issuperset(range(first + 1, version + 1))

    def _check_files(self, table: str, at: DeltaTable, names: Sequence[str], there: Container[str]) -> None:
        lost = [name for name in names if name not in there]
        if lost and at.version() != self.version(table):
            raise self._gone(table, int(at.version()))
        if lost:
            raise Corrupt(
                f"Table {table!r} lacks its file {self._address(table)}/{lost[0]}.", fix="restore it from a backup."
            )

    def _needed(self, table: str, version: int | None, lying: Container[str]) -> list[str]:
        """Return the file names of a version, after checking that all exist; fetches nothing."""
        at = self._version(table, version)
        names = self._content(table, at).names
        self._check_files(table, at, names, lying)
        return [*names]

    def _gone(self, table: str, version: int) -> NotFound:
        return NotFound(
            f"Table {table!r} does not have version {version}; it never existed, or was vacuumed.",
            fix=f"its newest version is {self.version(table)}.",
        )

    def _address(self, table: str) -> str:
        return self.place.address(check_id(table, "table"))

    def _at(self, table: str, version: int | None = None) -> DeltaTable:
        options = None if self.place.options is None else dict(self.place.options)
        return DeltaTable(self._address(table), version=version, storage_options=options)

    def _open(self, table: str) -> DeltaTable | None:
        """Return the newest version, from this thread's cache if it is still current."""
        identity = self.place.identity(check_id(table, "table"))
        if identity is None:
            return None
        opened: dict[str, _Opened] = self._thread.__dict__.setdefault("opened", {})
        known = opened.pop(table, None)
        if known is None or known.identity != identity:
            with delta_errors(self._address(table)):
                self.place.check(table, None)
                try:
                    at = self._at(table)
                except TableNotFoundError:
                    return None
            known = _Opened(identity, at, keys.Numbers(partial(self.place.read, table)))
        elif self.place.newer(table, int(known.at.version())):
            with delta_errors(self._address(table)):
                self.place.check(table, int(known.at.version()))
                try:
                    known.at.update_incremental()
                except DeltaError:  # the log was shortened: there is no way from the version to the newest
                    known = _Opened(identity, self._at(table), keys.Numbers(partial(self.place.read, table)))
        opened[table] = known
        return known.at

    def _content(self, table: str, at: DeltaTable) -> _Content:
        """Return the content of a version; that of the newest is read from delta-rs once."""
        newest: _Opened | None = self._thread.__dict__.get("opened", {}).get(table)
        if newest is None or newest.at is not at:
            return _Content(at)
        if newest.content is None or newest.content.version != at.version():
            newest.content = _Content(at)
        return newest.content

    def _stored(self, table: str, at: DeltaTable) -> Callable[[str], int | None]:
        """Return a function that returns the number of a key's or a mark's name; see `deltakeys`."""
        newest: _Opened | None = self._thread.__dict__.get("opened", {}).get(table)
        return newest.numbers.stored(at) if newest is not None and newest.at is at else at.transaction_version


class _Content:
    """Names of the files, schema and number of rows of one version, which delta-rs tells in time of all its files."""

    def __init__(self, at: DeltaTable) -> None:
        self._at = at
        self.version = int(at.version())
        self.names = tuple(file_names(at))
        self.schema = arrow_schema(at)

    @cached_property
    def rows(self) -> int:
        assert self._at.version() == self.version
        return int(self._at.count())


@dataclass
class _Opened:
    """Newest version that a thread has seen of a table; `identity` is that of the table, which may be made anew."""

    identity: Hashable
    at: DeltaTable
    numbers: keys.Numbers
    content: _Content | None = None


def _damage(file: str | None, size: int) -> str | None:
    """Return a description of a data file's damage, given its size in the log; None if it is intact."""
    if file is None:
        return "is gone"
    path = Path(file)
    there = path.stat().st_size
    if there != size:
        return f"has {there} of {size} bytes"
    return None if whole_parquet(path) else "does not end like a Parquet file"


def added_files(at: DeltaTable, *, flatten: bool = False) -> pa.Table:
    """Return the log's entries for the table's files. (`pa.table` of a stream would import pandas.)"""
    return pa.RecordBatchReader.from_stream(at.get_add_actions(flatten=flatten)).read_all()


def file_names(at: DeltaTable) -> list[str]:
    return [unquote(uri.rsplit("/", 1)[-1]) for uri in at.file_uris()]


def arrow_schema(at: DeltaTable) -> pa.Schema:
    return pa.schema(at.schema().to_arrow())
