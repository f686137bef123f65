"""`backup`: a point in time of what a project cannot compute again, in an encrypted repository.

Keys of the state folder stay out: a backup with the keys that open it would protect nothing, and `keys/erased` and
`keys/spent` must not become older.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import msgspec

from mainspring.core.errors import Conflict, Corrupt, Invalid, NotFound
from mainspring.core.ids import new_id
from mainspring.data.model import DERIVED_PREFIXES, TableListing, source_of
from mainspring.data.ports import TableFiles
from mainspring.operations.auditing import audit
from mainspring.operations.backup.databases import COPIES, copy_sqlite, scratch
from mainspring.operations.backup.expiring import Removed, expire
from mainspring.operations.backup.repository import PIECE_BYTES, Point, Repository, Section, folder_of, point_name
from mainspring.operations.backup.stores import open_objects
from mainspring.operations.backup.writing import SectionWriter, Writing, make_repository
from mainspring.project import Project
from mainspring.project.backends.base import Context, build
from mainspring.project.backends.data import table_files
from mainspring.project.backends.registry import BLOBS
from mainspring.project.ledger_folder import lake_digest, ledger_folder, log_copies
from mainspring.security.data_keys import SUBJECT_NAMES

LOCK = "backup.repository"
LAKE, FILES = "lake/", "files/"  # beginnings of sections' names
LEDGER, BUNDLES, STATES, STREAMS = "ledger", "bundles", "states", "streams.db"
FOLDERS = ("artefacts", "edge/repository", "llm-usage", "prices", "ratings")  # of the state folder
_DATABASE_BYTES = 512 << 10  # of a piece: a change of few rows changes few
_PART_BYTES = 1 << 20
_ATTEMPTS = 5
_WAIT_S = 600.0
_STAGED = "#"  # in names of files that object_store has not finished
Told = Callable[[str], None]  # gets the part that follows


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A backup that was made.

    Attributes:
        made_at: UTC epoch microseconds.
        bytes: Of the project's files and databases.
        new_pieces: Pieces that no earlier backup had.
        new_bytes: Of them, as stored.
        removed: Of backups that had expired; `None` if none were to.
        left: What is not in the backup, and where it comes from after a restore.
    """

    repository: str
    id: str
    made_at: int
    tables: int
    bundles: int
    files: int
    bytes: int
    new_pieces: int
    new_bytes: int
    removed: Removed | None
    left: list[str]


def backup(project: Project, address: str, *, keep_us: int | None = None, told: Told = lambda _: None) -> Made:
    """Make a backup in a repository, which is made if it is missing. The project may be up.

    Killed, it has written pieces that the next does not write again.

    Args:
        keep_us: Age from which earlier backups are removed, microseconds; by default none is.

    Raises:
        Conflict: Another backup runs, or tables are rewritten all the time.
        Corrupt: The repository is of another key.
        Invalid: The catalog is in memory, the repository is another project's, or it would lie in the state folder.
        StorageFull: No space.
        Unavailable: The key service or the object store does not answer.
    """
    expect_kept(project)
    if "://" not in address and Path(address).resolve().is_relative_to(project.settings.state.resolve()):
        raise Invalid(f"{address} is in the state folder, and would be lost with it.", fix="name another folder.")
    project.data_keys.stored(SUBJECT_NAMES)  # by which a restore knows who was erased since
    store = open_objects(address)
    with ExitStack() as held:
        folder = held.enter_context(scratch(project))
        held.enter_context(project.locks.hold(LOCK, wait_s=0))
        held.enter_context(store.alone())
        repository, key = make_repository(project, store)
        made_at, id_ = project.wall.now(), new_id()
        with Writing(repository, key) as writing:
            making = _Making(project, writing, folder, told, _newest(repository))
            sections = [*making.sections()]
        point = Point(
            project=project.settings.project, id=id_, made_at=made_at, lake=lake_digest(project.settings),
            sections=sections, left=left_out(project),
        )  # fmt: skip
        repository.seal(key, point_name(point), msgspec.json.encode(point))
        audit(project, "backup.make", f"backup/{id_}", store.shown)
        removed = None
        if keep_us is not None:
            told("old backups")
            removed = expire(repository, made_at - keep_us)
    bundles = point.section(BUNDLES)
    return Made(
        repository=store.shown, id=id_, made_at=made_at, tables=len(point.within(LAKE)),
        bundles=0 if bundles is None else len({folder_of(each.name) for each in repository.entries(bundles)}),
        files=sum(each.files for each in sections), bytes=sum(each.bytes for each in sections),
        new_pieces=writing.written, new_bytes=writing.bytes, removed=removed, left=point.left,
    )  # fmt: skip


def expect_kept(project: Project) -> None:
    """Raise if the catalog ends with its process.

    Raises:
        Invalid: It does.
    """
    if project.settings.catalog.scheme == "memory":
        raise Invalid("The catalog is in memory, and ends with its process.", fix="name a catalog in the profile.")


def stored_blobs(project: Project) -> Any:
    """Return the bundles as they are stored, encrypted or not."""
    return build("blobs", BLOBS, Context(project.settings.blobs, project))


def left_out(project: Project) -> list[str]:
    """Return what a backup has not, and where it comes from after a restore."""
    settings = project.settings
    found = ["keys of the state folder and master keys: copy them apart"]
    if settings.online.scheme != "memory":
        found.append(f"online states in {settings.online.shown}: computed again by `mainspring materialize`")
    if settings.vectors.scheme not in ("memory", "file") or (settings.state / "vectors").exists():
        found.append("indexes of vectors and words: made again from the lake by the first search")
    if settings.streams.scheme not in ("memory", "sqlite"):
        found.append(f"messages of streams in {settings.streams.shown}: that server has them")
    if (settings.state / "checkpoints").exists() or settings.checkpoints is not None:
        found.append("checkpoints of trainings: a training that they were of begins again")
    parts = ("lake", "tracking", "blobs", "ledger", "streams")
    in_memory = [each for each in parts if getattr(settings, each).scheme == "memory"]
    return [*found, *(f"`{each}`: it is in memory, and ends with its process" for each in in_memory)]


def _newest(repository: Repository) -> dict[str, Section]:
    """Return the sections of the newest backup that can be read; a damaged one spares no reading."""
    for name in reversed(repository.points()):
        with suppress(Corrupt):
            return {each.name: each for each in repository.point(name).sections}
    return {}


class _Making:
    """The sections of a backup, in an order in which each has what the ones before it name."""

    def __init__(
        self, project: Project, writing: Writing, scratch: Path, told: Told, before: dict[str, Section]
    ) -> None:
        self._project = project
        self._writing = writing
        self._scratch = scratch
        self._told = told
        self._before = before

    def sections(self) -> Iterator[Section]:
        """Yield them as they are written.

        Databases go first, so that the runs, bundles and versions of tables that the catalog names are there when they
        are copied. The log of predictions goes before the lake, into which they are moved, and states of streams and
        their messages after it: a message that was landed is known by its offset.
        """
        settings = self._project.settings
        for name, copy in COPIES.items():
            self._told(name)
            copy(self._project, self._scratch / name)
            if (self._scratch / name).exists():
                yield self._database(name, [(name, self._scratch / name)])
        if settings.ledger.scheme == "file":
            self._told(LEDGER)
            yield self._ledger()
        if settings.lake.scheme != "memory":
            yield from self._lake()
        yield from self._streams()
        yield self._bundles()
        for folder in FOLDERS:
            self._told(f"{FILES}{folder}")
            yield self._folder(folder)

    def _writer(self, name: str, piece_bytes: int = PIECE_BYTES) -> SectionWriter:
        return SectionWriter(self._writing, name, self._before.get(name), piece_bytes)

    def _database(self, name: str, copies: list[tuple[str, Path]]) -> Section:
        writer = self._writer(name, _DATABASE_BYTES)
        for each, path in copies:
            writer.add(each, parts_of(path))
            path.unlink()
        return writer.done()

    def _ledger(self) -> Section:
        writer = self._writer(LEDGER)
        with log_copies(self._project.settings, self._project.own_locks) as copies:
            for name, parts in copies:
                with suppress(FileNotFoundError):
                    writer.add(name, parts)
        return writer.done()

    def _lake(self) -> Iterator[Section]:
        """Yield the tables. What is derived goes first: it may lag behind its source, and must not be ahead of it.
        Tables of a source are listed while nothing is ingested into it, and are read afterwards.
        """
        names = self._project.lake.tables()
        derived = [each for each in names if each.startswith(DERIVED_PREFIXES)]
        sources = dict.fromkeys(source_of(each) for each in names if each not in derived)
        groups = [*([each] for each in derived), *([n for n in names if source_of(n) == each] for each in sources)]
        files = table_files(self._project.stored_lake)
        for group in groups:
            with self._project.locks.hold(f"ingest.{source_of(group[0])}", wait_s=_WAIT_S):
                listings = {each: files.listed(each) for each in group}
            for table, listed in listings.items():
                self._told(f"{LAKE}{table}")
                section = self._table(files, table, listed)
                if section is not None:
                    yield section

    def _table(self, files: TableFiles, table: str, listed: TableListing | None) -> Section | None:
        for _ in range(_ATTEMPTS):
            if listed is None:  # it was removed meanwhile
                return None
            writer = self._writer(f"{LAKE}{table}")
            try:
                for name in listed.data:
                    if _STAGED not in name and not writer.keep(name):
                        writer.add(name, files.parts(table, name))
                writer.cut()
                for name in listed.log:
                    writer.add(name, files.parts(table, name))
            except FileNotFoundError:  # of versions that were just removed
                listed = files.listed(table)
                continue
            if listed.last:
                writer.add(files.pointer, [listed.last])
            rows = None
            with suppress(NotFound):
                rows = self._project.stored_lake.describe(table, listed.version).rows
            return writer.done(version=listed.version, rows=rows)
        raise Conflict(f"Old versions of the table {table} are removed all the time.", fix="run the command again.")

    def _streams(self) -> Iterator[Section]:
        settings = self._project.settings
        copies = list[tuple[str, Path]]()
        for path in sorted((settings.state / "streams").glob("*/*.db")):
            self._told(f"{STATES}/{path.parent.name}")
            copies.append((f"{path.parent.name}/{path.name}", self._scratch / f"state-{len(copies)}"))
            copy_sqlite(path, copies[-1][1])
        if copies:
            yield self._database(STATES, copies)
        if settings.streams.scheme == "sqlite" and settings.streams.path.exists():
            self._told(STREAMS)
            copy_sqlite(settings.streams.path, self._scratch / STREAMS)
            yield self._database(STREAMS, [(STREAMS, self._scratch / STREAMS)])

    def _bundles(self) -> Section:
        writer, blobs = self._writer(BUNDLES), stored_blobs(self._project)
        for digest in sorted(blobs.all()):
            if writer.keep_folder(digest):
                continue
            self._told(f"bundle {digest[:12]}")
            with suppress(NotFound):  # `models gc` has removed it meanwhile
                for name, content in blobs.get(digest).items():
                    writer.add(f"{digest}/{name}", [content])
        return writer.done()

    def _folder(self, name: str) -> Section:
        writer, folder = self._writer(f"{FILES}{name}"), self._project.settings.state / name
        for path in sorted(each for each in folder.rglob("*") if each.is_file() and not each.is_symlink()):
            with suppress(FileNotFoundError):
                found, within = path.stat(), str(path.relative_to(folder))
                mark = f"{found.st_mtime_ns} {found.st_size}"
                if not path.name.endswith(".partial") and not writer.keep(within, mark):
                    writer.add(within, parts_of(path), mark)
        return writer.done()


def place_of(project: Project, section: str) -> Path | None:
    """Return the folder into which the files of a section are restored; `None` if this profile has none."""
    settings = project.settings
    if section == LEDGER:
        return ledger_folder(settings) if settings.ledger.scheme == "file" else None
    if section == STATES:
        return settings.state / "streams"
    if section == STREAMS:
        return settings.streams.path.parent if settings.streams.scheme == "sqlite" else None
    return settings.state / section.removeprefix(FILES)


def parts_of(path: Path) -> Iterator[bytes]:
    """Yield the content of a file."""
    with path.open("rb") as file:
        yield from iter(lambda: file.read(_PART_BYTES), b"")
