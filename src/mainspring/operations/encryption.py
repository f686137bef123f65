"""Encryption at rest: its keys, and their rotation, with each step in the audit log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from mainspring.core.files import make_folder, write_atomic
from mainspring.data.model import CHUNKS_PREFIX, chunks_table, source_of
from mainspring.data.sealed import fits, write_anew
from mainspring.operations.auditing import audit
from mainspring.operations.findings import Finding, well
from mainspring.project import Project
from mainspring.security.data_keys import NEVER_RENEWED

_BEGUN = "rewriting"  # folder of the state: names of tables whose older versions are to be removed
_WAIT_S = 600.0


@dataclass(frozen=True, slots=True)
class DataKeyState:
    """A data key. `behind`: it is wrapped under an older version of the master key."""

    id: str
    purpose: str
    number: int
    version: str
    behind: bool
    created_at: int  # UTC epoch microseconds


@dataclass(frozen=True, slots=True)
class EncryptionState:
    """The key service and its current version, and all data keys, which it has just unwrapped."""

    service: str
    version: str
    keys: list[DataKeyState]


@dataclass(frozen=True, slots=True)
class Rotation:
    """Result of a rotation: the current version, how many data keys were wrapped again, and purposes with a new one."""

    version: str
    wrapped: int
    renewed: list[str]


def state(project: Project) -> EncryptionState:
    """Return the state of the keys, after unwrapping each. Nothing is made.

    Raises:
        Corrupt: A data key does not open.
        Unavailable: The key service does not answer.
    """
    service = project.key_service
    version = service.version()
    project.data_keys.check()
    keys = [
        DataKeyState(
            id=key.id,
            purpose=key.purpose,
            number=key.number,
            version=key.wrapped.version,
            behind=key.wrapped.version != version,
            created_at=key.created_at,
        )
        for key in project.data_key_store.all()
    ]
    return EncryptionState(service=service.describe(), version=version, keys=keys)


def rotate(project: Project, *, former: str = "") -> Rotation:
    """Make a new version of the master key, and wrap all data keys under it; what they encrypted stays as it is.

    Where data keys are under an older version, another rotation was interrupted, or the version was made in the
    service: then none is made, and only these are wrapped again.

    Args:
        former: Address of the service that wrapped the data keys, where it was another: then those that the profile's
            service does not open are wrapped under its current version too, and no version is made.
    """
    service = project.key_service
    with project.locks.hold("encryption"):
        if not former and not any(key.wrapped.version != service.version() for key in project.data_key_store.all()):
            version = service.rotate()
            audit(project, "encryption.rotate", f"key/{version}", f"made in {service.describe()}")
        wrapped = project.data_keys.rewrap(project.key_service_at(former) if former else None)
        version = service.version()
        source = f", from {former.partition(':')[0]}" if former else ""
        audit(project, "encryption.rotate", f"key/{version}", f"{wrapped} data keys wrapped under it{source}")
    return Rotation(version=version, wrapped=wrapped, renewed=[])


def renew(project: Project) -> Rotation:
    """Make a new data key for each purpose that has one: it encrypts what is written from now on.

    Those of names stay: under another, a subject or an entity would have another HMAC.
    """
    with project.locks.hold("encryption"):
        renewed = sorted({key.purpose for key in project.data_key_store.all()} - NEVER_RENEWED)
        for purpose in renewed:
            draft = project.data_keys.draft(purpose)  # asks the service, which may be slow: before the transaction
            with project.audit.together():
                made = project.data_keys.adopt(draft)
                audit(project, "encryption.renew", f"key/{made.id}", f"number {made.number} of {purpose}")
    return Rotation(version=project.key_service.version(), wrapped=0, renewed=renewed)


def rewrite(project: Project, names: Sequence[str] = (), told: Callable[[str], None] = lambda _: None) -> list[str]:
    """Write tables anew in which columns are encrypted otherwise than in what is written now; return their names.

    What only their older versions need is removed. A collection with a personal column that the profile encrypts is
    removed, with its indexes, which are not encrypted; its table of chunks is named. Killed, it is finished by a
    repetition.

    Args:
        names: By default all tables.
        told: Called before each table.

    Raises:
        NotFound: There is no such table.
    """
    from mainspring.operations.subjects.erasing import LOCK

    begun = project.settings.state / _BEGUN
    make_folder(begun)
    in_clear = {chunks_table(each): each for each in collections_in_clear(project)}
    in_clear = {table: each for table, each in in_clear.items() if not names or table in names}
    made = [each for each in not_as_set(project, names) if each not in in_clear] + sorted(in_clear)
    left = [each.name for each in begun.iterdir() if each.name not in made and (not names or each.name in names)]
    for table in [*made, *left]:
        told(table)
        with ExitStack() as held:
            # Of an erasure or retention, of an ingestion, of the log of a view's tiles.
            for name in (LOCK, f"ingest.{source_of(table)}", table):
                held.enter_context(project.locks.hold(name, wait_s=_WAIT_S))
            write_atomic(begun / table, b"")
            if table.startswith(CHUNKS_PREFIX):
                _remove(project, table)
            else:
                if table in made:
                    write_anew(project.lake, table)
                project.lake.forget(table)
            (begun / table).unlink()
        removed = table.startswith(CHUNKS_PREFIX)
        audit(
            project, "encryption.rewrite", f"table/{table}",
            "removed, with its indexes: they had a personal column in clear" if removed else "as pii_encrypted says",
        )  # fmt: skip
    return [*made, *left]


def _remove(project: Project, table: str) -> None:
    """Remove a collection with its indexes, by its table of chunks."""
    from mainspring.operations.collections import builder

    builder(project).remove(table.removeprefix(CHUNKS_PREFIX))


def collections_in_clear(project: Project) -> list[str]:
    """Return the collections that have a personal column in clear, from before the profile encrypted it: those that
    were built, or of which there are chunks. One that is declared no more counts if its source has any such column.
    """
    if not project.settings.pii_encrypted:
        return []
    loaded = project.definitions
    built = {each.collection: each.source for each in project.builds.all()}
    if not built and not any(each.source.pii for each in loaded.collections.values()):
        return []
    from mainspring.operations.collections import personal_columns

    found = []
    for name in sorted({*loaded.collections, *built}):
        declared = loaded.collections.get(name)
        if declared is None:
            source = loaded.sources.get(built[name])
            personal = source is None or bool(source.pii)
        else:
            personal = bool(personal_columns(declared))
        if personal and (name in built or _has_rows(project, chunks_table(name))):
            found.append(name)
    return found


def _has_rows(project: Project, table: str) -> bool:
    return project.lake.version(table) is not None and project.lake.scan(table).files != ()


def not_as_set(project: Project, names: Sequence[str] = ()) -> list[str]:
    """Return those of the tables, by default of all, in which columns are encrypted otherwise than in new rows."""
    found = []
    for table in names or project.lake.tables():
        scan = project.stored_lake.scan(table)
        if not fits(scan, project.encrypted_columns(table, [] if scan.schema is None else scan.schema.names)):
            found.append(table)
    return found


def check_encryption(project: Project) -> Iterator[Finding]:
    """Check that the key service answers, that every data key opens, and that no rotation was interrupted."""
    found = state(project)
    behind = [key for key in found.keys if key.behind]
    if behind:
        yield Finding(
            check="encryption",
            ok=False,
            detail=f"{len(behind)} of {len(found.keys)} data keys are under an older master key than {found.version}",
            fix="run `mainspring encryption rotate`, which wraps them again",
        )
    else:
        yield well("encryption", f"{found.service}; all {len(found.keys)} data keys open")
    yield from _collections_in_clear(project)


def _collections_in_clear(project: Project) -> Iterator[Finding]:
    for name in collections_in_clear(project):
        yield Finding(
            check="encryption",
            ok=False,
            detail=f"collection {name} has a personal column in clear, which the profile encrypts",
            fix=f"run `mainspring encryption rewrite {chunks_table(name)}`, which removes its chunks and indexes",
        )
