"""`backup` and `restore`: what a project cannot compute again from its lake, in one encrypted file.

The catalog, runs and versions, and bundles, and which versions the lake's tables had. Keys of the state folder stay
out: a backup with the keys that open it would protect nothing, and `keys/erased` and `keys/spent` must not become
older.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from mainspring.core.errors import Conflict, Corrupt, Invalid, NotFound
from mainspring.core.files import disk_errors, make_folder
from mainspring.core.ids import new_id
from mainspring.core.locks import MemoryLocks
from mainspring.core.settings import Url
from mainspring.core.sqlite_file import SqliteFile
from mainspring.operations.auditing import audit
from mainspring.operations.backup import archive
from mainspring.operations.findings import Finding
from mainspring.operations.migrate.sql import move_tables, opened, others
from mainspring.operations.subjects.erasing import erase_again
from mainspring.project import Project
from mainspring.project.backends.base import Context, build
from mainspring.project.backends.registry import BLOBS, make_tracking_tables
from mainspring.project.catalog import open_catalog
from mainspring.project.ledger_folder import lake_digest
from mainspring.project.restoring import (
    SCRATCH,
    SCRATCH_LOCK,
    Restoring,
    end_restoring,
    read_restoring,
    write_restoring,
)
from mainspring.project.running import UP_LOCK
from mainspring.security.data_keys import SUBJECT_NAMES

_MANIFEST, _CATALOG, _TRACKING, _BLOBS = "manifest.json", "catalog.db", "tracking.db", "blobs/"
_AT_ONCE = 1 << 20
_DECISIVE = ("runs", "registered_models", "metrics")
Told = Callable[[str], None]  # gets the part that follows
Files = dict[str, bytes]  # of a bundle, by name


class Manifest(msgspec.Struct, frozen=True):
    """Content of a backup: versions of the lake's tables, digests of bundles, the lake by a digest of its address."""

    tables: dict[str, int]
    bundles: list[str]
    lake: str


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A backup that was made."""

    path: str
    id: str
    bytes: int
    bundles: int
    tables: int


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a restore.

    Attributes:
        missing: Versions of tables that the lake does not have, as `TABLE VERSION`.
        erased: Erasures that were repeated, because the backup is from before them.
        held: Subjects whose erasure was not repeated, because the backup holds them.
    """

    id: str
    made_at: int
    bundles: int
    missing: list[str]
    erased: int
    held: int


def backup(project: Project, path: Path, told: Told = lambda _: None) -> Made:
    """Write a backup. The project may be up: each database is copied as it is at one moment.

    Raises:
        Conflict: There is such a file.
        Invalid: The catalog is in memory.
        Unavailable: The key service does not answer.
    """
    _expect_kept(project)
    stored = project.data_keys.stored(archive.BACKUPS)
    project.data_keys.stored(SUBJECT_NAMES)  # by which a restore knows who was erased since
    head = archive.Head(project.settings.project, new_id(), project.wall.now(), stored)
    with _scratch(project) as scratch:
        # The catalog goes first, so that the runs and then the bundles that it names are there when they are copied.
        databases = {_CATALOG: _copy_catalog, _TRACKING: _copy_tracking}
        for name, copy in databases.items():
            told(name)
            copy(project, scratch / name)
        tables = {table: project.lake.version(table) for table in project.lake.tables()}
        blobs = _blobs_of(project)
        manifest = Manifest(
            {table: version for table, version in tables.items() if version is not None},
            sorted(blobs.all()),
            lake_digest(project.settings),
        )

        def entries() -> Iterator[tuple[str, Iterator[bytes]]]:
            yield _MANIFEST, iter([msgspec.json.encode(manifest)])
            for name in databases:
                if (scratch / name).exists():
                    yield name, _pieces(scratch / name)
            for digest in manifest.bundles:
                told(f"bundle {digest[:12]}")
                with suppress(NotFound):  # `models gc` has removed it meanwhile
                    for name, content in blobs.get(digest).items():
                        yield f"{_BLOBS}{digest}/{name}", iter([content])

        archive.write(path, head, project.data_keys.opened(stored), entries())
    audit(project, "backup.make", f"backup/{head.id}", path.name)
    return Made(
        path=str(path), id=head.id, bytes=path.stat().st_size, bundles=len(manifest.bundles),
        tables=len(manifest.tables),
    )  # fmt: skip


def restore(project: Project, path: Path, told: Told = lambda _: None) -> Restored:
    """Restore a backup into a project whose catalog is empty, after reading all of it.

    Who was erased since is erased again, by the state folder's `keys/erased`. Killed, it is finished by a repetition.

    Raises:
        Conflict: The project is up, there is something that would be replaced, or another restore is unfinished.
        Corrupt: The file was changed or cut; nothing was restored.
        Invalid: It is of another project, or the catalog is in memory.
    """
    _expect_kept(project)
    head = archive.read_head(path)
    if head.project != project.settings.project:
        raise Invalid(f"{path} is a backup of project {head.project!r}.", fix="restore it there.")
    with project.own_locks.hold(UP_LOCK, wait_s=0), _scratch(project) as scratch:
        state, mark = project.settings.state, read_restoring(project.settings.state)
        if mark is not None and (mark.id, mark.profile) != (head.id, project.settings.profile):
            raise Conflict(f"Another restore comes first: {mark.what}.", fix=f"{mark.fix}.")
        told("the file")
        blobs, differing = _blobs_of(project), list[str]()
        there = {*blobs.all()}

        def compare(digest: str, files: Files) -> None:
            if digest in there and blobs.get(digest) != files:
                differing.append(digest)

        manifest = _read(project, path, head, scratch, compare)
        _migrate(project, scratch)
        if mark is None:
            _expect_room(project, manifest, scratch, differing)
        if mark is None or not mark.copied:
            mark = Restoring(str(path.absolute()), head.id, project.settings.profile, copied=False)
            write_restoring(state, mark)
            _restore_all(project, path, head, manifest, scratch, told)
            told("keys")
            project.data_keys.readopt()
            write_restoring(state, msgspec.structs.replace(mark, copied=True))
        told("erasures")
        erased, held = erase_again(project)
        audit(project, "backup.restore", f"backup/{head.id}", path.name)
        end_restoring(state)
    missing = [
        f"{table} {version}"
        for table, version in manifest.tables.items()
        if project.lake.version(table) is None or not project.lake.readable(table, [version])
    ]
    return Restored(
        id=head.id, made_at=head.made_at, bundles=len(manifest.bundles), missing=missing, erased=len(erased), held=held
    )


def _expect_kept(project: Project) -> None:
    if project.settings.catalog.scheme == "memory":
        raise Invalid("The catalog is in memory, and ends with its process.", fix="name a catalog in the profile.")


def check_restore(project: Project) -> Iterator[Finding]:
    """Check that no restore was interrupted, and that no killed backup left databases in clear."""
    mark, scratch = read_restoring(project.settings.state), project.settings.state / SCRATCH
    if mark is not None:
        yield Finding(check="restore", ok=False, detail=mark.what, fix=mark.fix)
    if scratch.exists():
        with suppress(Conflict), project.own_locks.hold(SCRATCH_LOCK, wait_s=0):
            yield Finding(
                check="restore", ok=False, detail=f"a killed backup or restore left databases in clear in {scratch}",
                fix="delete it; the next command that writes does so too",
            )  # fmt: skip


def _read(
    project: Project, path: Path, head: archive.Head, databases: Path | None, bundle: Callable[[str, Files], None]
) -> Manifest:
    """Read all of a backup, and return its manifest.

    Args:
        databases: Folder that gets the databases.
        bundle: Called with the digest and the files of each bundle.
    """
    found: Manifest | None = None
    digest, files = "", Files()
    for name, content in archive.read(path, head, project.data_keys.opened(head.key)):
        of, _, file = name.removeprefix(_BLOBS).partition("/") if name.startswith(_BLOBS) else ("", "", "")
        if of != digest:
            if digest:
                bundle(digest, files)
            digest, files = of, Files()
        if of:
            files[file] = b"".join(content)
        elif name == _MANIFEST:
            found = msgspec.json.decode(b"".join(content), type=Manifest)
        elif databases is not None and name in (_CATALOG, _TRACKING):
            with disk_errors(databases / name), (databases / name).open("wb") as to:
                to.writelines(content)
        else:
            for _ in content:
                pass
    if digest:
        bundle(digest, files)
    if found is None:
        raise Corrupt(f"{path} has no manifest.", fix="name another backup.")
    return found


def _migrate(project: Project, scratch: Path) -> None:
    """Migrate the databases of a backup to this version.

    Raises:
        Conflict: A newer version made it.
    """
    with closing(_catalog_in(scratch, project)) as stored:
        _ = stored.engine
    if (scratch / _TRACKING).exists():
        make_tracking_tables(_sqlite(scratch / _TRACKING))


def _catalog_in(scratch: Path, project: Project) -> Project:
    """Return a project whose catalog is that of a backup."""
    return Project(replace(project.settings, catalog=_sqlite(scratch / _CATALOG)))


def _expect_room(project: Project, manifest: Manifest, scratch: Path, differing: Sequence[str]) -> None:
    """Raise if a restore would have to replace something. A lake may be there, and equal bundles and runs.

    Args:
        scratch: Folder with the databases of the backup.
        differing: Digests of bundles that are there with other files.

    Raises:
        Conflict: It would.
    """
    settings = project.settings
    found = [f"the bundle {each[:12]} in {settings.blobs.shown} has other files" for each in differing]
    with project.engine.connect() as connection:
        names = [each for each in sa.inspect(connection).get_table_names() if each != "alembic_version"]
        if used := _used(connection, names):
            found.append(f"the catalog {settings.catalog.shown} has rows, in {used[0]}")
    if settings.tracking.scheme == "memory" and (scratch / _TRACKING).exists():
        found.append("the profile keeps runs and versions in memory, where they end with the process")
    if settings.blobs.scheme == "memory" and manifest.bundles:
        found.append("the profile keeps bundles in memory, where they end with the process")
    if used := _other_runs(project, scratch / _TRACKING):
        found.append(f"{settings.tracking.shown} has other runs and versions, in {', '.join(used)}")
    if found:
        raise Conflict(
            f"Nothing was restored: {'; '.join(found)}.", fix="move it away, or name another place in the profile."
        )


def _other_runs(project: Project, stored: Path) -> list[str]:
    """Return the tables in which there are runs or versions, unless they equal those of the backup."""
    at = project.settings.tracking
    if at.scheme == "memory" or (at.scheme == "sqlite" and not at.path.exists()):
        return []
    with opened(at) as target:
        with target.connect() as connection:
            used = _used(connection, [each for each in _DECISIVE if sa.inspect(connection).has_table(each)])
        if not used or not stored.exists():
            return used
        make_tracking_tables(at)
        with opened(_sqlite(stored)) as source:
            return others(source, target, decisive=_DECISIVE)


def _used(connection: sa.Connection, tables: Sequence[str]) -> list[str]:
    """Return the tables that have rows."""
    some = {each: sa.select(sa.literal(1)).select_from(sa.table(each)).limit(1) for each in tables}
    return [each for each, query in some.items() if connection.execute(query).first() is not None]


def _restore_all(
    project: Project, path: Path, head: archive.Head, manifest: Manifest, scratch: Path, told: Told
) -> None:
    blobs = _blobs_of(project)
    there = {*blobs.all()}

    def put(digest: str, files: Files) -> None:
        told(f"bundle {digest[:12]}")
        if digest not in there:
            blobs.put(digest, files)

    _read(project, path, head, None, put)
    if (scratch / _TRACKING).exists():
        told(_TRACKING)
        _fill_tracking(project, scratch / _TRACKING)
    told(_CATALOG)
    here = lake_digest(project.settings)

    def as_here(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "lake": here} if row.get("lake") == manifest.lake else row

    with closing(_catalog_in(scratch, project)) as stored:
        tree, copied = stored.audit.tree(), project.audit.tree()
        if tree is None or copied is None or tree.origin != copied.origin:  # else it was killed after this
            _forget(stored)
            move_tables(stored.engine, project.engine, "the catalog", decisive=(), step=_quiet, as_there=as_here)


def _forget(stored: Project) -> None:
    """Destroy in a backup's catalog the keys of who was erased since, and end their holds, which had been released."""
    erased = {*stored.subject_keys.erased_since()}
    with stored.audit.together():
        for each in stored.erasures.holds():
            if each.subject in erased:
                stored.erasures.release(each.subject)
                audit(stored, "subject.release", f"subject/{each.subject.hex()[:16]}", "erased since this backup")
    stored.subject_keys.erased([])


def _copy_catalog(project: Project, to: Path) -> None:
    engine = project.engine
    if project.settings.catalog.scheme == "sqlite":
        _copy_sqlite(project.settings.catalog.path, to)
        return
    target = open_catalog(_sqlite(to), MemoryLocks(), project.settings.project)
    try:
        snapshot = engine.execution_options(isolation_level="REPEATABLE READ")
        move_tables(snapshot, target, "the catalog", decisive=(), step=_quiet)
    finally:
        target.dispose()


def _copy_tracking(project: Project, to: Path) -> None:
    at = project.settings.tracking
    if at.scheme == "sqlite":
        if at.path.exists():
            _copy_sqlite(at.path, to)
    elif at.scheme != "memory":
        make_tracking_tables(_sqlite(to))
        with opened(at) as source, opened(_sqlite(to)) as target:
            snapshot = source.execution_options(isolation_level="REPEATABLE READ")
            move_tables(snapshot, target, "the runs and versions", decisive=_DECISIVE, step=_quiet)


def _fill_tracking(project: Project, stored: Path) -> None:
    at = project.settings.tracking
    make_tracking_tables(at)
    with opened(_sqlite(stored)) as source, opened(at) as target:
        if not _has_all_runs(source, target):
            move_tables(source, target, "the runs and versions", decisive=_DECISIVE, step=_quiet)


def _has_all_runs(source: sa.Engine, target: sa.Engine) -> bool:
    """Return whether a restore was killed after it had moved the runs; `doctor` may have closed some since."""
    runs: sa.Select[str] = sa.select(sa.column("run_uuid", sa.Text)).select_from(sa.table("runs"))
    with source.connect() as reading, target.connect() as connection:
        stored = {*reading.execute(runs).scalars()}
        return bool(stored) and stored <= {*connection.execute(runs).scalars()}


def _copy_sqlite(path: Path, to: Path) -> None:
    errors = SqliteFile(path, what="database", damaged="restore it from a backup.").errors()
    with errors, closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(to)) as target:
        source.backup(target)


def _blobs_of(project: Project) -> Any:
    """Return the bundles as they are stored, encrypted or not."""
    return build("blobs", BLOBS, Context(project.settings.blobs, project))


@contextmanager
def _scratch(project: Project) -> Iterator[Path]:
    """Context with an empty folder in the state folder; what a killed process left there is removed."""
    with project.own_locks.hold(SCRATCH_LOCK, wait_s=0):
        folder = project.settings.state / SCRATCH
        shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _sqlite(path: Path) -> Url:
    return Url(f"sqlite:///{path}")


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from iter(lambda: file.read(_AT_ONCE), b"")


def _quiet(_done: float, _total: float | None, _note: str) -> None:
    pass
