"""`restore`: a backup is read as a whole, copied, compared with what was copied, and the erased are erased again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path, PurePosixPath

import msgspec
import sqlalchemy as sa

from mainspring.core.errors import Conflict, Corrupt, Invalid, NotFound
from mainspring.core.files import disk_errors, write_many
from mainspring.core.ids import check_id
from mainspring.core.time import format_instant
from mainspring.operations.auditing import audit
from mainspring.operations.backup.databases import (
    CATALOG,
    COPIES,
    TRACKING,
    fill_catalog,
    fill_tracking,
    migrate,
    other_runs,
    scratch,
    used,
)
from mainspring.operations.backup.making import (
    BUNDLES,
    FILES,
    FOLDERS,
    LAKE,
    LEDGER,
    STATES,
    STREAMS,
    Told,
    expect_kept,
    parts_of,
    place_of,
    stored_blobs,
)
from mainspring.operations.backup.repository import Entry, Point, Repository, Section, made_at, open_repository
from mainspring.operations.backup.tables import Counts, TableCopies
from mainspring.operations.findings import Finding
from mainspring.operations.subjects.erasing import erase_again
from mainspring.project import Project
from mainspring.project.restoring import (
    SCRATCH,
    SCRATCH_LOCK,
    Restoring,
    end_restoring,
    read_restoring,
    write_restoring,
)
from mainspring.project.running import UP_LOCK

_AT_ONCE = 4  # bundles
_BUNDLES_BYTES = 64 << 20  # of bundles that are written at once, unless one is larger
Files = dict[str, bytes]  # of a bundle, by name


class Equality(msgspec.Struct, frozen=True):
    """Comparison of what was restored, read again, with the backup."""

    what: str
    equal: int
    of: int


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a restore.

    Attributes:
        made_at: UTC epoch microseconds, of the backup.
        equality: Comparison, before erasures were repeated.
        kept: Tables and files that are there with another content, and are left as they are.
        missing: Versions of tables that the lake does not have, as `TABLE VERSION`.
        erased: Erasures that were repeated, because the backup is from before them.
        held: Subjects whose erasure was not repeated, because the backup holds them.
        left: What the backup has not, and where it comes from.
    """

    id: str
    made_at: int
    equality: list[Equality]
    kept: list[str]
    missing: list[str]
    erased: int
    held: int
    left: list[str]

    @property
    def differences(self) -> list[str]:
        """Differences from the backup. That repeated erasures leave no earlier versions of tables is none."""
        unequal = [f"{each.of - each.equal:,} of {each.of:,} {each.what}" for each in self.equality
                   if each.equal != each.of]  # fmt: skip
        return [*unequal, *self.kept, *([] if self.erased else self.missing)]


def restore(project: Project, address: str, *, at: int | None = None, told: Told = lambda _: None) -> Restored:
    """Restore a backup into a project whose catalog is empty. Nothing is replaced.

    All of it is read before anything is in its place. Data files of the lake's tables are written as they are read,
    which makes no table: its log comes later, and if one is damaged, they are removed again.

    Who was erased since is erased again, by the state folder's `keys/erased`. Killed, it is finished by a repetition.

    Args:
        at: The newest backup that was made by then is restored, UTC epoch microseconds; by default the newest.

    Raises:
        Conflict: The project is up, there is something that would be replaced, or another restore is unfinished.
        Corrupt: The backup is damaged, or of another key; nothing was restored.
        Invalid: It is of another project, or the catalog is in memory.
        NotFound: There is no such backup.
    """
    expect_kept(project)
    repository, state = open_repository(project, address), project.settings.state
    with project.own_locks.hold(UP_LOCK, wait_s=0), scratch(project) as folder:
        mark = read_restoring(state)
        point = _chosen(repository, at, mark)
        if mark is not None and (mark.id, mark.profile) != (point.id, project.settings.profile):
            raise Conflict(f"Another restore comes first: {mark.what}.", fix=f"{mark.fix}.")
        copying = _Copying(project, repository, point, folder, told)
        told("the backup")
        copying.read()
        if mark is None:
            copying.expect_room()
        if mark is None or not mark.copied:
            found = mark
            copying.tables.expect_room()
            mark = Restoring(_lasting(address), point.id, project.settings.profile, copied=False)
            write_restoring(state, mark)
            try:
                copying.tables.write_data()
            except (Corrupt, Invalid):
                if found is None:
                    copying.tables.remove_data()
                    end_restoring(state)
                raise
            counts = copying.copy()
            told("keys")
            project.data_keys.readopt()
            mark = msgspec.structs.replace(mark, copied=True, equal=counts, kept=copying.kept)
            write_restoring(state, mark)
        told("erasures")
        erased, held = erase_again(project)
        audit(project, "backup.restore", f"backup/{point.id}", repository.shown)
        end_restoring(state)
    return Restored(
        id=point.id, made_at=point.made_at, equality=[Equality(what, *each) for what, each in mark.equal.items()],
        kept=mark.kept, missing=_missing(project, point), erased=len(erased), held=held, left=point.left,
    )  # fmt: skip


def check_restore(project: Project) -> Iterator[Finding]:
    """Check that no restore was interrupted, and that no killed backup left databases in clear."""
    mark, folder = read_restoring(project.settings.state), project.settings.state / SCRATCH
    if mark is not None:
        yield Finding(check="restore", ok=False, detail=mark.what, fix=mark.fix)
    if folder.exists():
        with suppress(Conflict), project.own_locks.hold(SCRATCH_LOCK, wait_s=0):
            yield Finding(
                check="restore", ok=False, detail=f"a killed backup or restore left databases in clear in {folder}",
                fix="delete it; the next command that writes does so too",
            )  # fmt: skip


def _lasting(address: str) -> str:
    return address if "://" in address else str(Path(address).resolve())


def _chosen(repository: Repository, at: int | None, mark: Restoring | None) -> Point:
    names = repository.points()
    if at is None and mark is not None:
        names = [each for each in names if each.endswith(f"-{mark.id}")] or names
    before = [each for each in names if at is None or made_at(each) <= at]
    if not before:
        since = f"the first was made at {format_instant(made_at(names[0]))}" if names else "there is none"
        raise NotFound(
            f"{repository.shown} has no backup of then: {since}.",
            fix=f"choose of `mainspring backup list {repository.shown}`.",
        )
    return repository.point(before[-1])


def _missing(project: Project, point: Point) -> list[str]:
    found = []
    for table, section in point.within(LAKE).items():
        version = section.version
        lost = version is None or project.lake.version(table) is None
        if lost or not project.lake.readable(table, [version or 0]):
            found.append(f"{table} {version}")
    return found


class _Copying:
    """Copy of a backup into a project.

    Attributes:
        kept: What was there with another content.
    """

    def __init__(self, project: Project, repository: Repository, point: Point, folder: Path, told: Told) -> None:
        self._project = project
        self._repository = repository
        self._point = point
        self._folder = folder
        self._told = told
        self._differing: list[str] = []  # digests of bundles
        self._kept: list[str] = []
        self.tables = TableCopies(project, repository, point.within(LAKE), told)

    @property
    def kept(self) -> list[str]:
        return [*self.tables.kept, *self._kept]

    def read(self) -> None:
        """Read the backup but data files of tables, and copy its databases into the folder, migrated to this version.

        Raises:
            Corrupt: It is damaged.
            Conflict: A newer version made it.
        """
        in_memory = self._project.settings.lake.scheme == "memory"  # then nothing is restored, and it is told
        for section in self._point.sections:
            entries = self._repository.entries(section)
            for entry in entries:
                _inside(entry.name)
            if section.name in COPIES:
                for entry in entries:
                    to = self._folder / section.name
                    with disk_errors(to), to.open("wb") as file:
                        file.writelines(self._repository.parts(entry))
            else:
                if section.name.startswith(LAKE) and not in_memory:
                    entries = self.tables.logs(entries)
                needed = {piece: None for entry in entries for piece in entry.pieces}
                for _, found in self._repository.sizes(needed):
                    if isinstance(found, Corrupt):
                        raise found
            if section.name == BUNDLES:
                self._compare_bundles(section)
        if not (self._folder / CATALOG).exists():
            raise Corrupt(f"The backup {self._point.id} has no catalog.", fix="name another backup with `--at`.")
        migrate(self._project, self._folder)
        for section in self._point.sections:  # a newer version has other sections, and was refused
            _expect_known(section.name)

    def _compare_bundles(self, section: Section) -> None:
        blobs = stored_blobs(self._project)
        there = {*blobs.all()}
        for digest, files in self._bundles(section) if there else ():
            if digest in there and blobs.get(digest) != files:
                self._differing.append(digest)

    def expect_room(self) -> None:
        """Raise if something would have to be replaced. A lake may be there, and equal bundles and runs.

        Raises:
            Conflict: It would.
        """
        settings, stored = self._project.settings, self._folder / TRACKING
        found = [f"the bundle {each[:12]} in {settings.blobs.shown} has other files" for each in self._differing]
        with self._project.engine.connect() as connection:
            names = [each for each in sa.inspect(connection).get_table_names() if each != "alembic_version"]
            if rows := used(connection, names):
                found.append(f"the catalog {settings.catalog.shown} has rows, in {rows[0]}")
        bundles = self._point.section(BUNDLES)
        in_memory = {
            "tracking": ("runs and versions", stored.exists()),
            "blobs": ("bundles", bundles is not None and bundles.files > 0),
            "lake": ("the lake", bool(self._point.within(LAKE))),
        }
        for name, (what, has) in in_memory.items():
            if has and getattr(settings, name).scheme == "memory":
                found.append(f"the profile keeps {what} in memory, where they end with the process")
        if runs := other_runs(self._project, stored):
            found.append(f"{settings.tracking.shown} has other runs and versions, in {', '.join(runs)}")
        if found:
            raise Conflict(
                f"Nothing was restored: {'; '.join(found)}.", fix="move it away, or name another place in the profile."
            )

    def copy(self) -> Counts:
        """Restore all, and return the comparison of what is there then with the backup. The catalog is the last."""
        counts: Counts = {}
        if self._point.within(LAKE):
            counts |= self.tables.finish()
        for section in self._point.sections:
            if section.name in (LEDGER, STATES, STREAMS) or section.name.startswith(FILES):
                self._told(section.name)
                equal, total = counts.get("files", (0, 0))
                counts["files"] = equal + self._files_of(section), total + section.files
        bundles = self._point.section(BUNDLES)
        if bundles is not None and bundles.files:
            counts["bundles"] = self._put_bundles(bundles)
        if (self._folder / TRACKING).exists():
            self._told(TRACKING)
            counts["rows of runs and versions"] = fill_tracking(self._project, self._folder / TRACKING)
        self._told(CATALOG)
        counts["rows of the catalog"] = fill_catalog(self._project, self._folder, self._point.lake)
        return counts

    def _bundles(self, section: Section) -> Iterator[tuple[str, Files]]:
        digest, files = "", Files()
        for entry in self._repository.entries(section):  # by name, so those of a bundle follow each other
            of, _, name = entry.name.partition("/")
            if of != digest and files:
                yield digest, files
                files = {}
            digest, files[name] = of, b"".join(self._repository.parts(entry))
        if files:
            yield digest, files

    def _put_bundles(self, section: Section) -> tuple[int, int]:
        blobs, equal, total = stored_blobs(self._project), 0, 0
        there = {*blobs.all()}

        def put(bundle: tuple[str, Files]) -> bool:
            digest, files = bundle
            if digest not in there:
                blobs.put(digest, files)
            return dict(blobs.get(digest)) == files

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for some in _together(self._bundles(section)):
                self._told(f"bundle {some[0][0][:12]}")
                equal, total = equal + sum(pool.map(put, some)), total + len(some)
        return equal, total

    def _files_of(self, section: Section) -> int:
        """Restore the files that are missing, and return how many are equal, read again."""
        folder = place_of(self._project, section.name)
        if folder is None:
            self._kept.append(f"{section.name}: this profile has no place for it")
            return 0
        log = self._project.settings.streams.path if section.name == STREAMS else None
        if log is not None:
            _make_room(log)

        def path(entry: Entry) -> Path:
            return log or folder / _inside(entry.name)

        entries = self._repository.entries(section)
        write_many((path(each), self._repository.parts(each)) for each in entries if not path(each).exists())
        total = 0
        for entry, equal in zip(
            entries, self._repository.equal(entries, lambda each: parts_of(path(each))), strict=True
        ):
            total += equal
            if not equal:
                self._kept.append(section.name if entry.name == section.name else f"{section.name}/{entry.name}")
        return total


def _together(bundles: Iterable[tuple[str, Files]]) -> Iterator[list[tuple[str, Files]]]:
    """Yield some small bundles at a time, or a large one."""
    held, size = list[tuple[str, Files]](), 0
    for digest, files in bundles:
        held.append((digest, files))
        size += sum(map(len, files.values()))
        if size > _BUNDLES_BYTES:
            yield held
            held, size = [], 0
    if held:
        yield held


def _expect_known(section: str) -> None:
    """Raise if a section would be restored to a place that no backup has.

    Raises:
        Corrupt: It would.
    """
    if section.startswith(LAKE):
        check_id(section.removeprefix(LAKE), "table")
    elif section.startswith(FILES) and section.removeprefix(FILES) not in FOLDERS:
        raise Corrupt(f"{section[:200]!r} is not a part of a backup.", fix="name another backup with `--at`.")


def _inside(name: str) -> PurePosixPath:
    """Return the name of a file below a folder.

    Raises:
        Corrupt: It lies outside.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise Corrupt(f"{name[:200]!r} is not a file of a backup.", fix="name another backup with `--at`.")
    return path


def _make_room(path: Path) -> None:
    """Remove a log of streams without a topic, as commands make one."""
    if path.exists():
        with closing(sqlite3.connect(path)) as connection:
            if connection.execute("SELECT count(*) FROM topic").fetchone() != (0,):
                return
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
