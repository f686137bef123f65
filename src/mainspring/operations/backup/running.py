"""`backup` and `restore`: what a project cannot compute again from its lake, in one encrypted file.

The catalog, runs and versions, and bundles, and which versions the lake's tables had. Keys of the state folder stay
out: a backup with the keys that open it would protect nothing, and `keys/erased` and `keys/spent` must not become
older.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from mainspring.core.errors import Conflict, Corrupt, Invalid
from mainspring.core.files import make_folder
from mainspring.core.ids import new_id
from mainspring.core.locks import MemoryLocks
from mainspring.core.settings import Url
from mainspring.operations.auditing import audit
from mainspring.operations.backup import archive
from mainspring.operations.endpoint_checks import Finding
from mainspring.operations.migrate.sql import move_tables, opened
from mainspring.operations.subjects.erasing import erase_again
from mainspring.project import Project, backends
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
Told = Callable[[str], None]  # gets the part that follows


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
    if project.settings.catalog.scheme == "memory":
        raise Invalid("The catalog is in memory, and ends with its process.", fix="name a catalog in the profile.")
    stored = project.data_keys.stored(archive.BACKUPS)
    project.data_keys.stored(SUBJECT_NAMES)  # by which a restore knows who was erased since
    head = archive.Head(project.settings.project, new_id(), project.wall.now(), stored)
    with _scratch(project) as scratch:
        databases = {_TRACKING: _copy_tracking, _CATALOG: _copy_catalog}
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
        Conflict: The project is up, the catalog has rows, or another restore is unfinished.
        Corrupt: The file was changed or cut; nothing was restored.
        Invalid: It is of another project.
    """
    head = archive.read_head(path)
    if head.project != project.settings.project:
        raise Invalid(f"{path} is a backup of project {head.project!r}.", fix="restore it there.")
    with project.own_locks.hold(UP_LOCK, wait_s=0), _scratch(project) as scratch:
        state, mark = project.settings.state, read_restoring(project.settings.state)
        if mark is not None and mark.id != head.id:
            raise Conflict(f"Another backup is not restored yet: {mark.what}.", fix=f"{mark.fix}.")
        told("the file")
        manifest = _verified(project, path, head)
        if mark is None:
            _expect_empty(project)
        if mark is None or not mark.copied:
            mark = Restoring(str(path.absolute()), head.id, copied=False)
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


def _verified(project: Project, path: Path, head: archive.Head) -> Manifest:
    """Read all of a backup, and return its manifest."""
    found: Manifest | None = None
    for name, content in archive.read(path, head, project.data_keys.opened(head.key)):
        if name == _MANIFEST:
            found = msgspec.json.decode(b"".join(content), type=Manifest)
        else:
            for _ in content:
                pass
    if found is None:
        raise Corrupt(f"{path} has no manifest.", fix="name another backup.")
    return found


def _expect_empty(project: Project) -> None:
    with project.engine.connect() as connection:
        for name in sa.inspect(connection).get_table_names():
            some = sa.select(sa.literal(1)).select_from(sa.table(name, schema=None)).limit(1)
            if name != "alembic_version" and connection.execute(some).first() is not None:
                raise Conflict(
                    f"The catalog {project.settings.catalog.shown} has rows, in {name}: nothing was restored.",
                    fix="move it away, or name an empty one in the profile.",
                )


def _restore_all(
    project: Project, path: Path, head: archive.Head, manifest: Manifest, scratch: Path, told: Told
) -> None:
    blobs, bundle = _blobs_of(project), _Bundle("", {})
    there = {*blobs.all()}
    for name, content in archive.read(path, head, project.data_keys.opened(head.key)):
        if name.startswith(_BLOBS):
            digest, _, file = name.removeprefix(_BLOBS).partition("/")
            if digest != bundle.digest:
                bundle.put(blobs, there)
                bundle = _Bundle(digest, {})
                told(f"bundle {digest[:12]}")
            bundle.files[file] = b"".join(content)
        elif name in (_CATALOG, _TRACKING):
            with (scratch / name).open("wb") as to:
                to.writelines(content)
        else:
            for _ in content:
                pass
    bundle.put(blobs, there)
    if (scratch / _TRACKING).exists():
        told(_TRACKING)
        _fill_tracking(project, scratch / _TRACKING)
    told(_CATALOG)
    here = lake_digest(project.settings)

    def as_here(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "lake": here} if row.get("lake") == manifest.lake else row

    with closing(Project(replace(project.settings, catalog=_sqlite(scratch / _CATALOG)))) as stored:
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


class _Bundle(msgspec.Struct):
    """Files of a bundle that is being read."""

    digest: str
    files: dict[str, bytes]

    def put(self, blobs: Any, there: set[str]) -> None:
        if self.files and self.digest not in there:
            blobs.put(self.digest, self.files)


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
        backends.make_tracking_tables(_sqlite(to))
        with opened(at) as source, opened(_sqlite(to)) as target:
            snapshot = source.execution_options(isolation_level="REPEATABLE READ")
            move_tables(snapshot, target, "the runs and versions", decisive=_DECISIVE, step=_quiet)


def _fill_tracking(project: Project, stored: Path) -> None:
    at = project.settings.tracking
    for url in (_sqlite(stored), at):
        backends.make_tracking_tables(url)
    with opened(_sqlite(stored)) as source, opened(at) as target:
        move_tables(source, target, "the runs and versions", decisive=_DECISIVE, step=_quiet)


_DECISIVE = ("runs", "registered_models", "metrics")


def _copy_sqlite(path: Path, to: Path) -> None:
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(to)) as target:
        source.backup(target)


def _blobs_of(project: Project) -> Any:
    """Return the bundles as they are stored, encrypted or not."""
    return backends.build("blobs", backends.BLOBS, backends.Context(project.settings.blobs, project))


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
