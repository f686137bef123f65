"""Ingestion into a source of the project from a file, a function of the project, or rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mainspring.core.errors import Invalid, InvalidData, MainspringError, NotFound
from mainspring.data.model import QUARANTINE_SUFFIX, REASON, SEQUENCE, IngestReport, Source
from mainspring.data.signed_files import sign_file
from mainspring.features.functions.model import DerivedSource
from mainspring.operations.auditing import audit, begun
from mainspring.operations.features.deriving import derive_from
from mainspring.project import Project
from mainspring.project.definitions.loading import load_function, place_of
from mainspring.security.signing import SigningKey

WITHHELD = "(withheld)"
Masks = Mapping[str, Callable[[Any], str]]  # by column
_NO_MASKS: Masks = MappingProxyType({})

_LINE = re.compile(r"(a line has \d+ fields, not \d+: ).*", re.DOTALL)  # see data.readers
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def land(
    project: Project,
    source: str,
    data: Any,
    *,
    batch_id: str | None = None,
    nulls: Sequence[str] = (),
    progress: Callable[[int, int | None], None] | None = None,
) -> IngestReport:
    """Ingest `data` into the table of `source`.

    Args:
        data: A file's path, `module:function` of the project, or rows as `data.readers.open_input` takes them.
        nulls: Unquoted text that means null in CSV, in addition to an empty field.

    Raises:
        NotFound: There is no such source or file.
        Invalid: There is no such function.
        InvalidData: The data as a whole does not match the source.
        StorageFull: No space; the same call resumes.
    """
    definitions = project.definitions
    chosen = ingested_source(project, source)
    if isinstance(data, str):
        data = _rows(project, data) if _FUNCTION.fullmatch(data) else Path(data)
    with begun(project, "ingest", f"source/{source}") as done:
        report = project.ingestor.ingest(
            chosen, data, keyings=definitions.keyings(source), batch_id=batch_id, nulls=nulls, progress=progress
        )
        report = replace(report, warnings=(*report.warnings, *derived(project, source)))
        counts = f"{report.rows} ingested, {report.quarantined} quarantined, {report.already} already there"
        done(f"{counts}; version {report.version}")
    return report


def ingested_source(project: Project, source: str) -> Source:
    """Return a source into which rows can be ingested.

    Raises:
        NotFound: There is no such source.
        Invalid: It is computed from another.
    """
    chosen = project.definitions.source(source)
    if isinstance(chosen, DerivedSource):
        raise Invalid(
            f"Source {source!r} is computed from {chosen.parent.name!r}, so nothing can be ingested into it.",
            fix=f"ingest into {chosen.parent.name!r}; to compute what is missing, run `mainspring materialize`.",
        )
    return chosen


def derived(project: Project, source: str) -> tuple[str, ...]:
    """Compute the declared feature functions for new rows. One that fails is a warning: the ingestion stays."""
    from mainspring.features.functions.process import FunctionFailed

    try:
        derive_from(project, source)
    except FunctionFailed as error:
        return (f"The rows are ingested, but not all features: {error}",)
    return ()


def _rows(project: Project, reference: str) -> Any:
    """Return the rows of a function of the project; an error in it, immediate or while reading, names its line."""
    function = load_function(project.settings, reference)

    def failed(error: Exception) -> InvalidData:
        place = place_of(error, project.settings.root)
        return InvalidData(f"{reference} failed at {place}: {type(error).__name__}: {error}", fix="correct it there.")

    def told(rows: Iterable[Any]) -> Iterator[Any]:
        try:
            yield from rows
        except MainspringError:
            raise
        except Exception as error:
            raise failed(error) from error

    try:
        rows = function()
    except MainspringError:
        raise
    except Exception as error:
        raise failed(error) from error
    return told(rows) if isinstance(rows, Iterator) and not hasattr(rows, "__arrow_c_stream__") else rows


def sign(project: Project, source: str, path: Path, key_file: Path | None = None) -> tuple[Path, str]:
    """Sign a file for a source, and return the signature's path and the public key.

    Args:
        key_file: The private key, made if it is missing; by default this installation's.

    Raises:
        NotFound: There is no such source or file.
    """
    project.definitions.source(source)
    if not path.is_file():
        raise NotFound(f"There is no file {path}.", fix="check the path; it is relative to the current folder.")
    key = project.signing_key if key_file is None else SigningKey.load_or_create(key_file)
    signature = sign_file(path, source, key)
    audit(project, "data.sign", f"source/{source}", f"{path.name} by {key.public.hex()}")
    return signature, key.public.hex()


def quarantined_rows(project: Project, source: str) -> int:
    """Return the number of rows in the quarantine of a source."""
    table = f"{source}{QUARANTINE_SUFFIX}"
    return 0 if project.lake.version(table) is None else project.lake.describe(table).rows


def quarantined(
    project: Project,
    source: str,
    limit: int,
    *,
    reveal: bool = False,
    shown: Collection[str] = (),
    masks: Masks = _NO_MASKS,
) -> list[dict[str, Any]]:
    """Return rows of `source` that failed a check, newest first, each with its `_reason`.

    Values of columns with a PII mark are `WITHHELD`, and so is a line that could not be split into columns.

    Args:
        reveal: Return these values too, with an event in the audit log.
        shown: Columns with a PII mark whose values the caller has audited; with all of them a line is shown too.
        masks: What a value of a column is shown as, instead of `WITHHELD`.

    Raises:
        NotFound: There is no such source.
    """
    marked = project.definitions.source(source).pii
    personal = [] if reveal else [name for name in marked if name not in shown]
    if marked and reveal:
        audit(project, "quarantine.reveal", f"source/{source}", ", ".join(marked))
    found = _newest(project, f"{source}{QUARANTINE_SUFFIX}", limit)
    if personal:
        for row in found:
            _withhold(row, personal, masks)
            row[REASON] = _LINE.sub(rf"\1{WITHHELD}", row[REASON])
    return found


def landed(
    project: Project, source: str, limit: int, *, shown: Collection[str] = (), masks: Masks = _NO_MASKS
) -> list[dict[str, Any]]:
    """Return rows of `source` as they were ingested, the last first.

    Values of columns with a PII mark are `WITHHELD`.

    Args:
        shown: Columns with a PII mark whose values the caller has audited.
        masks: What a value of a column is shown as, instead of `WITHHELD`.

    Raises:
        NotFound: There is no such source.
    """
    declared = project.definitions.source(source)
    found = _newest(project, source, limit)
    for row in found:
        _withhold(row, [name for name in declared.pii if name not in shown], masks)
        for name in [name for name in row if name not in declared.columns]:
            del row[name]
    return found


def _newest(project: Project, table: str, limit: int) -> list[dict[str, Any]]:
    from mainspring.data import duck

    try:
        scan = project.lake.scan(table)
    except NotFound:
        return []
    with duck.session() as connection:
        duck.register(connection, "rows", scan)
        rows = connection.sql(f"SELECT * FROM rows ORDER BY {SEQUENCE} DESC LIMIT {int(limit)}").to_arrow_table()
    found: list[dict[str, Any]] = rows.to_pylist()
    return found


def _withhold(row: dict[str, Any], personal: Iterable[str], masks: Masks) -> None:
    for name in personal:
        if (value := row.get(name)) is not None:
            row[name] = masks[name](value) if name in masks else WITHHELD
