"""Everything that is held about a subject, as one archive: for access and portability."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any

import msgspec

from mainspring.core.files import disk_errors
from mainspring.core.time import format_instant
from mainspring.data import duck
from mainspring.data.model import CHUNKS_PREFIX, DERIVED_PREFIXES, RECORD_PREFIX
from mainspring.ledger.model import PREDICTIONS
from mainspring.operations.auditing import audit
from mainspring.operations.features.entity_values import entity_values
from mainspring.operations.subjects import ratings
from mainspring.operations.subjects.naming import Subject
from mainspring.operations.subjects.tables import conditions, sql
from mainspring.project import Project
from mainspring.registry.processes import local_user
from mainspring.security.model import AuditFilter

ACTION = "subject.export"
_MOST_EVENTS = 100_000


@dataclass(frozen=True, slots=True)
class Exported:
    """One file of an archive: JSON lines, and how many there are."""

    file: str
    rows: int
    sha256: str


def export(project: Project, subject: Subject, path: Path) -> list[Exported]:
    """Write what is held about a subject as a ZIP archive of JSON lines with `manifest.json`; return its files.

    The newest version of every table is read, the values of features now, predictions with their personal values, and
    events of the audit log about the subject. The read is an event itself, before anything is written.
    """
    audit(project, ACTION, f"subject/{subject.entity.name}", path.name, subject=subject.name)
    parts = {f"tables/{table}.jsonl": rows for table, rows in _tables(project, subject)}
    parts["features.jsonl"] = _features(project, subject)
    parts[f"{PREDICTIONS}.jsonl"] = _predictions(project, subject)
    parts["ratings.jsonl"] = map(msgspec.to_builtins, ratings.of_subject(project, subject))
    parts["audit.jsonl"] = _events(project, subject)
    with disk_errors(path), _private(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        made = [each for name, rows in parts.items() if (each := _written(archive, name, rows)).rows]
        manifest = {
            "project": project.settings.project,
            "entity": subject.entity.name,
            "keys": dict(subject.keys),
            "exported_at": format_instant(project.wall.now()),
            "exported_by": local_user(),
            "files": [msgspec.to_builtins(each) for each in made],
        }
        archive.writestr("manifest.json", msgspec.json.format(msgspec.json.encode(manifest), indent=2))
    return made


def _private(path: Path) -> IO[bytes]:
    """Open a new file that only this user can read; who has opened an older one there reads nothing of it."""
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w+b")


def _written(archive: zipfile.ZipFile, name: str, rows: Iterable[Any]) -> Exported:
    rows, digest, count = iter(rows), hashlib.sha256(), 0
    first = next(rows, None)
    if first is None:
        return Exported(name, 0, "")
    with archive.open(name, "w", force_zip64=True) as file:
        for row in chain([first], rows):
            count += 1
            line = msgspec.json.encode(row, enc_hook=str) + b"\n"
            digest.update(line)
            file.write(line)
    return Exported(name, count, digest.hexdigest())


def _tables(project: Project, subject: Subject) -> Iterator[tuple[str, Iterator[dict[str, Any]]]]:
    for table in project.lake.tables():
        wheres = [] if table.startswith((*DERIVED_PREFIXES, CHUNKS_PREFIX)) else conditions(project, table, [subject])
        if wheres:
            yield table, _rows(project, table, wheres)


def _rows(project: Project, table: str, wheres: list[Any]) -> Iterator[dict[str, Any]]:
    schema = project.lake.describe(table).schema
    names = [name for name in schema.names if not name.startswith(RECORD_PREFIX)]
    for where in wheres:
        for batch in duck.batches(project.lake.scan(table), names, sql(where, schema)):
            yield from batch.to_pylist()


def _features(project: Project, subject: Subject) -> Iterator[dict[str, Any]]:
    now = project.clock.now()
    for view in project.definitions.views.values():
        if view.entity == subject.entity:
            found = entity_values(view, subject.keys, project.online, project.lake.scan, now, shown=view.source.pii)
            values = {each.feature: each.online for each in found.values if each.online is not None}
            if values:
                yield {"view": view.name, "at": format_instant(now), "values": values}


def _predictions(project: Project, subject: Subject) -> Iterator[dict[str, Any]]:
    for each in project.predictions.of_subject(subject.keys):
        explained = [msgspec.json.decode(kept.document) for kept in project.predictions.explanations(each.id)]
        yield {**msgspec.to_builtins(each), "at": format_instant(each.at), "explanations": explained}


def _events(project: Project, subject: Subject) -> Iterator[dict[str, Any]]:
    for entry in project.audit.search(AuditFilter(subject=subject.name), limit=_MOST_EVENTS):
        yield {"number": entry.number, **msgspec.to_builtins(entry.event), "at": format_instant(entry.event.at)}
