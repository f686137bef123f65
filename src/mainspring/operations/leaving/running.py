"""`export project`: everything of a project in a folder, in formats that other tools read."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec

from mainspring.core.errors import NotFound
from mainspring.core.time import format_instant
from mainspring.core.version import __version__
from mainspring.operations.auditing import audit
from mainspring.operations.leaving.features import write_features
from mainspring.operations.leaving.folder import FORMAT, Begun, ExportFolder, LeftOut
from mainspring.operations.leaving.logs import write_audit, write_usage
from mainspring.operations.leaving.models import write_models
from mainspring.operations.leaving.parquet import ParquetFiles, Told
from mainspring.operations.leaving.personal import Personal
from mainspring.operations.leaving.predictions import write_predictions
from mainspring.operations.leaving.readme import readme
from mainspring.operations.leaving.records import write_records
from mainspring.operations.leaving.runs import write_runs
from mainspring.operations.leaving.tables import kept, write_tables
from mainspring.project import Project
from mainspring.project.ledger_folder import lake_digest

ACTION = "project.export"
_LOCK = "export"


class ExportedProject(msgspec.Struct, frozen=True, kw_only=True):
    """A finished export.

    Attributes:
        at: Instant that it shows, by the project's clock.
        rows: Of all tables and JSON lines.
        masked: Whether values that identify a person are left out.
    """

    folder: str
    at: str
    files: int
    rows: int
    bytes: int
    masked: bool
    left_out: list[LeftOut]


def export_project(project: Project, path: Path, *, reveal: bool, told: Told) -> ExportedProject:
    """Write a project into a folder; killed, it is finished by a repetition. The project may be up.

    Tables have the versions of the export's beginning, also where it goes on later. The export is an event of the audit
    log before anything is written.

    Args:
        path: A folder that is empty or not there yet, or has an unfinished export of this project.
        reveal: Whether values that identify a person are written. Those of erased subjects never are.

    Raises:
        Conflict: The folder has something else, or another export of this project is under way.
        NotFound: A version of a table that an unfinished export began with was removed since.
        StorageFull: There is no room; a repetition goes on.
    """
    lake = lake_digest(project.settings)
    with project.own_locks.hold(_LOCK, wait_s=0):
        folder = ExportFolder(
            path, partial(_begin, project, lake, reveal=reveal), project=project.settings.project, lake=lake,
            reveal=reveal,
        )  # fmt: skip
        _expect_versions(project, folder.begun)
        audit(project, ACTION, f"project/{project.settings.project}", "revealed" if reveal else "masked")
        personal = Personal(project)
        files = ParquetFiles(project, folder, told)
        write_tables(files, personal)
        write_predictions(files, personal)
        write_features(files, personal)
        write_models(project, folder, personal, partial(told, "models"))
        write_runs(project, folder, partial(told, "mlflow"))
        write_records(project, folder, personal, partial(told, "records"))
        write_audit(project, folder, partial(told, "audit"))
        write_usage(project, folder, partial(told, "usage"))
        begun = folder.begun
        document = {
            "format": FORMAT,
            "mainspring": __version__,
            "project": begun.project,
            "at": format_instant(begun.at),
            "masked": not reveal,
            "tables": begun.tables,
        }
        folder.finish(document, readme(begun, __version__, folder.files, folder.left_out))
    return ExportedProject(
        folder=str(path),
        at=format_instant(begun.at),
        files=len(folder.files) + 2,  # and the manifest with the checksums
        rows=sum(each.rows or 0 for each in folder.files),
        bytes=sum(each.bytes for each in folder.files),
        masked=not reveal,
        left_out=folder.left_out,
    )


def _begin(project: Project, lake: str, *, reveal: bool) -> Begun:
    project.predictions.compact()
    versions = {table: project.lake.version(table) for table in project.lake.tables() if kept(table)}
    return Begun(
        project=project.settings.project,
        lake=lake,
        at=project.clock.now(),
        reveal=reveal,
        tables={table: version for table, version in versions.items() if version is not None},
    )


def _expect_versions(project: Project, begun: Begun) -> None:
    """Raise if a version that an export began with was removed since, as an erasure does."""
    gone = [table for table, version in begun.tables.items() if not project.lake.readable(table, [version])]
    if gone:
        raise NotFound(
            f"The export began with versions of {', '.join(gone)} that were removed since.",
            fix="delete the folder, and begin anew.",
        )
