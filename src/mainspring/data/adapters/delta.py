"""Tables as Delta tables: writes and maintenance by delta-rs; the reads are in `deltareads`.

A write's `key` is stored as the identifier of a Delta transaction, in the commit that adds the rows: see `deltakeys`.
Deletion vectors and expiry of log entries stay off: readers reject the former, the latter would break tags.
"""

from __future__ import annotations

import itertools
import json
from bisect import bisect_left
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    WriterProperties,
    write_deltalake,
)

from mainspring.core.errors import Conflict, NotFound, StorageFull
from mainspring.core.ids import check_id
from mainspring.core.locks import FileLocks, Locks, MemoryLocks
from mainspring.core.time import from_datetime
from mainspring.data.adapters import deltaerase as erasing
from mainspring.data.adapters import deltakeys as keys
from mainspring.data.adapters.deltadisk import LOG, version_of
from mainspring.data.adapters.deltaerrors import Stream, delta_errors
from mainspring.data.adapters.deltaplaces import FOLLOWED, FolderPlace, Place
from mainspring.data.adapters.deltareads import DeltaReads, added_files, arrow_schema, file_names
from mainspring.data.arrow import Where, check_types, expect_columns
from mainspring.data.model import SEQUENCE, Erased
from mainspring.data.ports import NO_MARKS

_CONFIGURATION = {
    "delta.enableDeletionVectors": "false",
    "delta.enableExpiredLogCleanup": "false",
    # Checkpoints name files that were removed, for so long; `vacuum` here reads the entries instead.
    "delta.deletedFileRetentionDuration": "interval 1 hours",
}
_HOOKS = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)
_ATTEMPTS = 20
_MANY_FILES = 64
# Sizes to which small files are merged, in turn: a row is written twice more, however small the batches are.
_MERGED_BYTES = (1 << 20, 64 << 20)
_SPANS = 32  # maximum number of value ranges in a merge predicate
_NEW = "_is_new"  # in the source of a merge: true for a row to insert, false for a change


class DeltaLake(DeltaReads):
    """`LakeTables` in a folder or an object store, one Delta table per subfolder.

    One writer per table at a time; where locks do not reach, Delta's own commit protocol keeps concurrent writers
    consistent.

    Args:
        place: A folder, or another `Place`.
        locks: Mutual exclusion of writers; by default file locks in the folder, valid between processes of one machine.

    Raises:
        Invalid: delta-rs cannot address the folder's name.
    """

    def __init__(self, place: Path | Place, locks: Locks | None = None) -> None:
        if isinstance(place, Path):
            place = FolderPlace(place)
            locks = FileLocks(place.folder / ".locks") if locks is None else locks
        super().__init__(place)
        self.locks: Locks = MemoryLocks() if locks is None else locks
        # Table and its identity -> version -> what `_replaced` needs of its commit.
        self._commits: dict[Hashable, dict[int, tuple[int, tuple[str, ...]]]] = {}

    def append(
        self,
        table: str,
        rows: Iterable[pa.RecordBatch],
        schema: pa.Schema,
        *,
        key: str,
        marks: Mapping[str, int] = NO_MARKS,
    ) -> int | None:
        if isinstance(rows, Sequence):
            self.place.ask_for_room(table, sum(batch.nbytes for batch in rows))

        def write(at: DeltaTable | None) -> None:
            merge = at is not None and self._content(table, at).schema != schema
            self._write(
                table, at, rows, schema, key, mode="append", schema_mode="merge" if merge else None, marks=marks
            )

        return self._commit(table, schema, key, write)

    def replace(self, table: str, rows: Iterable[pa.RecordBatch], schema: pa.Schema, *, key: str) -> int | None:
        def write(at: DeltaTable | None) -> None:
            mode, schema_mode = ("append", None) if at is None else ("overwrite", "overwrite")
            self._write(table, at, rows, schema, key, mode=mode, schema_mode=schema_mode)

        return self._commit(table, None, key, write)

    def rewrite(
        self,
        table: str,
        rows: pa.Table,
        changes: pa.Table,
        on: str,
        *,
        key: str,
        marks: Mapping[str, int] = NO_MARKS,
    ) -> int | None:
        self.place.ask_for_room(table, rows.nbytes)

        def write(at: DeltaTable | None) -> None:
            if at is None:
                raise NotFound(f"There is no table {table!r} to change.")
            source = pa.concat_tables(
                [
                    changes.append_column(_NEW, pc.is_valid(pa.nulls(len(changes)))),  # all false
                    rows.append_column(_NEW, pc.is_null(pa.nulls(len(rows)))),  # all true
                ],
                promote_options="default",
            )
            changed = [name for name in changes.column_names if name != on]
            with delta_errors(self._address(table)):
                at.merge(
                    source.to_reader(),
                    predicate=f'kept."{on}" = arrived."{on}" AND NOT arrived."{_NEW}" AND ({_spans(on, changes[on])})',
                    source_alias="arrived",
                    target_alias="kept",
                    merge_schema=not set(rows.column_names) <= set(arrow_schema(at).names),
                    commit_properties=self._properties(table, at, key, marks),
                    post_commithook_properties=_HOOKS,
                    writer_properties=_encodings(rows.schema),
                ).when_matched_update(
                    {f'"{name}"': f'coalesce(arrived."{name}", kept."{name}")' for name in changed}
                ).when_not_matched_insert(
                    {f'"{name}"': f'arrived."{name}"' for name in rows.column_names}, predicate=f'arrived."{_NEW}"'
                ).execute()

        return self._commit(table, rows.schema, key, write)

    def fold(
        self,
        table: str,
        column: str,
        since: int,
        until: int,
        change: Callable[[pa.Table], pa.Table | None],
        *,
        key: str,
    ) -> int | None:
        import pyarrow.dataset as ds  # it imports pandas, where that is installed

        changed: pa.Table | None = None

        def write(at: DeltaTable | None) -> None:
            nonlocal changed
            if at is None:
                raise NotFound(f"There is no table {table!r}.", fix=f"the lake has {self.tables()}.")
            scan = self.scan(table, int(at.version()))
            at_column, schema = pc.field(column), arrow_schema(at)
            least, end = (pa.scalar(each, schema.field(column).type) for each in (since, until))
            files = ds.dataset(list(scan.files or ()), schema=schema, format="parquet")
            changed = change(files.to_table(filter=(at_column >= least) & (at_column < end)))
            if changed is not None:
                predicate = f'"{column}" >= {erasing.instant(since)} AND "{column}" < {erasing.instant(until)}'
                rows = changed.select(schema.names).cast(schema)
                self._write(
                    table, at, rows.to_batches(), schema, key, mode="overwrite", schema_mode=None, predicate=predicate
                )

        version = self._commit(table, None, key, write)
        return None if changed is None else version

    def restore(self, table: str, version: int | None) -> int | None:
        address = self._address(table)
        with self.place.errors(table), self.locks.hold(table, wait_s=600.0):
            self.scan(table, version)  # raises NotFound
            at = self._open(table)
            assert at is not None
            before = int(at.version())
            with delta_errors(address):
                then = None if version is None else self._at(table, version)
                changed = keys.changed(lambda name: self.place.read(table, name), at, then)
                if not changed and (not at.file_uris() if then is None else _same(at, then)):
                    return None
                self._thread.__dict__.pop("opened", None)
                properties = CommitProperties(app_transactions=[*changed, keys.restored_at(at.version() + 1)])
                if version is None:
                    nothing = pa.RecordBatchReader.from_batches(arrow_schema(at), [])
                    write_deltalake(
                        at, nothing, mode="overwrite", commit_properties=properties, post_commithook_properties=_HOOKS
                    )
                else:
                    at.restore(version, commit_properties=properties, post_commithook_properties=_HOOKS)
            self.place.sync(table, before)
            return self.version(table)

    def expire(self, table: str, column: str, before: int) -> int:
        with self.place.errors(check_id(table, "table")), self.locks.hold(table, wait_s=600.0):
            at = self._open(table)
            if at is None:
                raise NotFound(f"There is no table {table!r}.", fix=f"the lake has {self.tables()}.")
            files = added_files(at, flatten=True).to_pylist()
            smallest = [file.get(f"min.{column}") for file in files]
            if all(least is not None and from_datetime(least) >= before for least in smallest):
                return 0
            version = int(at.version())
            with delta_errors(self._address(table)):
                done = at.delete(f'"{column}" < {erasing.instant(before)}', post_commithook_properties=_HOOKS)
            self.place.sync(table, version)
            return int(done["num_deleted_rows"] or 0)

    def erase(self, table: str, where: Where, *, dry_run: bool = False) -> Erased:
        expect_columns(where)
        with self.place.errors(check_id(table, "table")), self.locks.hold(table, wait_s=600.0):
            at = self._required(table)
            found = self._matching(table, at, where)
            if found and not dry_run:
                if found.rows:
                    before = int(at.version())
                    with delta_errors(self._address(table)):
                        at.delete(
                            erasing.predicate(where, arrow_schema(at)),
                            post_commithook_properties=_HOOKS,
                            writer_properties=_encodings(arrow_schema(at)),
                        )
                    self._thread.__dict__.pop("opened", None)
                    self.place.sync(table, before)
                self._forget_past(table)
            return found

    def forget(self, table: str) -> None:
        with self.place.errors(check_id(table, "table")), self.locks.hold(table, wait_s=600.0):
            self._required(table)
            self._forget_past(table)

    def _required(self, table: str) -> DeltaTable:
        at = self._open(table)
        if at is None:
            raise NotFound(f"There is no table {table!r}.", fix=f"the lake has {self.tables()}.")
        return at

    def _matching(self, table: str, at: DeltaTable, where: Where) -> Erased:
        """Count the rows of the newest version that match, and the files of older ones and of the log with some."""
        used = set(self._content(table, at).names)
        rows = past = 0
        # An unused file that cannot be read was left by a killed writer, and may hold anything.
        for name, path in self.place.fetch(table, self.place.lying(table)).items():
            there = erasing.rows_in(path, where)
            if name in used:
                rows += there or 0
            else:
                past += there != 0
        past += sum(erasing.bounds_in(name, self.place.read(table, name), where) for name in self.place.log(table))
        return Erased(rows, past)

    def _forget_past(self, table: str) -> None:
        """Remove what only versions before the newest need: bounds of files from the log, then the files.

        In this order: as long as a file is there, a repetition finds what an interrupted erasure left. A version with a
        checkpoint is made first: by it, processes that hold older ones get along without the checkpoints before it.
        """
        at = self._at(table)
        before, used = int(at.version()), set(file_names(at))
        with delta_errors(self._address(table)):
            at.create_write_transaction([], "append", at.schema(), [], post_commithook_properties=_HOOKS)
            at = self._at(table)
            at.create_checkpoint()
        self._thread.__dict__.pop("opened", None)
        self.place.sync(table, before)
        for name in self.place.log(table):
            if name.endswith(".json"):
                entry = self.place.read(table, name)
                if (without := erasing.without_values(entry, used)) != entry:
                    self.place.write(table, name, without)
        newest = int(at.version())
        self.place.remove(
            table, [name for name in self.place.log(table) if "checkpoint." in name and version_of(name) < newest]
        )
        self.place.remove(table, [name for name in self.place.lying(table) if name not in used])

    def shorten(self, table: str, entries: int, *, replaced_before: int, keep: Collection[int] = ()) -> int:
        with self.locks.hold(check_id(table, "table"), wait_s=600.0):
            newest = self.version(table)
            if newest is None:
                return 0
            names = self.place.log(table)
            written = sorted(version_of(name) for name in names if name.endswith(".json"))
            # `vacuum` needs the entries that list files replaced since then.
            late = bisect_left(
                written, replaced_before // 1_000, key=lambda each: _written_ms(self._actions(table, each))
            )
            needed = min([newest - entries, *written[late : late + 1]])
            checkpoints = [version_of(name) for name in names if "checkpoint" in name]
            whole = max((each for each in checkpoints if each <= needed), default=-1)
            # Readers of later versions start from that checkpoint, and those of a kept one from the one before it.
            needed_too = {
                number
                for version in keep
                for number in range(max((each for each in checkpoints if each <= version), default=0), version + 1)
            }
            doomed = [name for name in names if 0 <= version_of(name) < whole and version_of(name) not in needed_too]
            for version in keep:
                if version < whole:
                    self.place.write(table, f"{LOG}/{version:020d}{FOLLOWED}", b"")
            self.place.remove(table, doomed)
        return len(doomed)

    def recover(self, table: str) -> bool:
        with self.locks.hold(check_id(table, "table"), wait_s=600.0):
            return self.place.recover(table)

    def vacuum(
        self, table: str, keep: Sequence[int], *, dry_run: bool = False, replaced_before: int | None = None
    ) -> int:
        if replaced_before is not None:  # the log is read before writers wait
            self._replaced(table, replaced_before // 1_000)
        with self.locks.hold(check_id(table, "table")):
            self.place.sync(table, None)  # make the newest version durable before removing the files that it replaced
            lying = self.place.lying(table)
            there = set(lying)
            kept = {*self._needed(table, None, there)}
            for version in set(keep):
                kept.update(self._needed(table, version, there))
            if replaced_before is not None:
                kept.update(self._replaced(table, replaced_before // 1_000))
            # Every other file is garbage: of versions that are not kept, of killed writers, change data. The lock
            # excludes writers.
            doomed = [name for name in lying if name not in kept]
            if not dry_run:
                self.place.remove(table, doomed)
        return len(doomed)

    def _replaced(self, table: str, since_ms: int) -> set[str]:
        """Return the names of files that commits have removed from the table since a time."""
        of = table, self.place.identity(table)
        known, late = self._commits.get(of, {}), {}
        for version in range(self.version(table) or 0, -1, -1):
            try:
                written_ms, names = known.get(version) or self._commit_of(table, version)
            except FileNotFoundError:
                break
            if written_ms < since_ms:
                break
            late[version] = written_ms, names
        self._commits[of] = late
        return {name for _, names in late.values() for name in names}

    def _commit_of(self, table: str, version: int) -> tuple[int, tuple[str, ...]]:
        """Return when a commit was written, UTC epoch milliseconds, and the names of the files that it removed."""
        actions = self._actions(table, version)
        removed = (Path(unquote(action["remove"]["path"])).name for action in actions if "remove" in action)
        return _written_ms(actions), tuple(removed)

    def _actions(self, table: str, version: int) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.place.read(table, f"{LOG}/{version:020d}.json").splitlines()]

    def _write(
        self,
        table: str,
        at: DeltaTable | None,
        rows: Iterable[pa.RecordBatch],
        schema: pa.Schema,
        key: str,
        *,
        mode: Any,
        schema_mode: Any,
        predicate: str | None = None,
        marks: Mapping[str, int] = NO_MARKS,
    ) -> None:
        stream = Stream(rows)
        options = None if at is not None or self.place.options is None else dict(self.place.options)
        with delta_errors(self._address(table), stream):
            write_deltalake(
                self._address(table) if at is None else at,
                pa.RecordBatchReader.from_batches(schema, stream),
                mode=mode,
                schema_mode=schema_mode,
                predicate=predicate,
                configuration=_CONFIGURATION if at is None else None,
                commit_properties=self._properties(table, at, key, marks),
                post_commithook_properties=_HOOKS,
                storage_options=options,
                writer_properties=_encodings(schema),
            )

    def _commit(
        self, table: str, schema: pa.Schema | None, key: str, write: Callable[[DeltaTable | None], None]
    ) -> int | None:
        with self.place.errors(check_id(table, "table")), self.locks.hold(table, wait_s=600.0):
            at = self._open(table)
            if at is not None and keys.written(key, self._stored(table, at)):
                self.place.sync(table, None)  # its writer may have died before syncing
                return None
            if at is not None and schema is not None:
                check_types(table, self._content(table, at).schema, schema)
            before = -1 if at is None else int(at.version())
            try:
                write(at)
            except BaseException as error:
                self._thread.__dict__.pop("opened", None)
                if isinstance(error, Conflict) and self.has(table, key):
                    return None
                raise
            self.place.sync(table, before)
            version = self.version(table)
            with suppress(StorageFull, Conflict):  # the rows are stored; the next write retries
                self._compact(table)
            return version

    def _properties(self, table: str, at: DeltaTable | None, key: str, marks: Mapping[str, int]) -> CommitProperties:
        stored: Callable[[str], int | None] = (lambda _: None) if at is None else self._stored(table, at)
        return CommitProperties(app_transactions=keys.write(key, marks, stored), max_commit_retries=_ATTEMPTS)

    def _compact(self, table: str) -> None:
        """Merge small files when there are many: a separate version with the same rows."""
        at = self._open(table)
        if at is not None and len(self._content(table, at).names) >= _MANY_FILES:
            sizes = added_files(at)["size_bytes"].to_pylist()
            for least, merged in itertools.pairwise((0, *_MERGED_BYTES)):
                # Of files larger than half, no two fit into one.
                if sum(size is not None and least < 2 * size <= merged for size in sizes) < _MANY_FILES:
                    continue
                before = int(at.version())
                with delta_errors(self._address(table)):
                    at.optimize.compact(
                        target_size=merged,
                        post_commithook_properties=_HOOKS,
                        writer_properties=_encodings(arrow_schema(at)),
                    )
                self.place.sync(table, before)
                return


def _encodings(schema: pa.Schema) -> WriterProperties:
    """Return the column encodings: delta encoding for times and `_seq`, which halves their cost and size."""
    stepwise = ColumnProperties(dictionary_enabled=False, encoding="DELTA_BINARY_PACKED")
    names = [column.name for column in schema if pa.types.is_timestamp(column.type) or column.name == SEQUENCE]
    return WriterProperties(compression="SNAPPY", column_properties=dict.fromkeys(names, stepwise))


def _spans(name: str, values: pa.ChunkedArray[Any]) -> str:
    """Return a predicate with constant ranges that contain all `values`; without it, delta-rs reads every file of the
    table.
    """
    numbers: list[Any] = sorted(set(values.to_pylist()))
    gaps = sorted(range(1, len(numbers)), key=lambda place: numbers[place - 1] - numbers[place])[: _SPANS - 1]
    starts = [0, *sorted(gaps), len(numbers)]
    spans = [(numbers[start], numbers[end - 1]) for start, end in itertools.pairwise(starts)]
    return " OR ".join(f'kept."{name}" BETWEEN {low} AND {high}' for low, high in spans)


def _written_ms(actions: Iterable[dict[str, Any]]) -> int:
    """Return a commit's own timestamp, UTC epoch milliseconds."""
    return min((each["commitInfo"].get("timestamp", 0) for each in actions if "commitInfo" in each), default=2**63)


def _same(one: DeltaTable, other: DeltaTable) -> bool:
    return sorted(one.file_uris()) == sorted(other.file_uris()) and arrow_schema(one).equals(
        arrow_schema(other), check_metadata=True
    )
