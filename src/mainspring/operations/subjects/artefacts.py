"""Files of runs that have key values of subjects: Mainspring's own tables lose rows, a person decides on the rest."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mainspring.core.errors import Invalid, NotFound
from mainspring.core.schema import DType
from mainspring.core.time import parse_instant
from mainspring.ledger.model import key_text
from mainspring.operations.subjects.naming import Subject
from mainspring.operations.subjects.remains import has, patterns_of
from mainspring.project import Project
from mainspring.registry.model import RunRecord
from mainspring.registry.runs import PURPOSE

KEEP, DELETE = "keep", "delete"
_OWN = {"label_issues.csv": "label issues", "near_duplicates.csv": "near duplicates", "influence.csv": "influence"}
_GROUP = "group"  # column of a table of influences: SOURCE.COLUMN=VALUE
_MOST_RUNS = 1_000_000


@dataclass(frozen=True, slots=True)
class Artefact:
    """A file of a run that has something of subjects.

    Attributes:
        rows: Rows about them, in a table that Mainspring wrote; they are removed.
        quoted: Whether it has their key values apart from these rows.
    """

    run: str
    name: str
    rows: int = 0
    quoted: bool = False

    @property
    def path(self) -> str:
        return f"{self.run}/{self.name}"


def find(project: Project, subjects: Sequence[Subject]) -> tuple[list[Artefact], list[str]]:
    """Return the files that have something of subjects, and the ids of runs whose parameters or tags do."""
    patterns = patterns_of(subjects)
    found, told = [], []
    for run in _runs(project):
        texts = "\n".join([*run.params.values(), *run.tags.values()]).encode()
        if any(each.search(texts) for each in patterns):
            told.append(run.id)
        for name in project.tracking.artefacts(run.id):
            with suppress(NotFound):  # deleted meanwhile
                artefact = _looked_at(project, run, name, subjects, patterns)
                if artefact.rows or artefact.quoted:
                    found.append(artefact)
    return found, told


def erase(project: Project, subjects: Sequence[Subject], found: Sequence[Artefact], decision: str) -> None:
    """Remove rows about subjects; delete the files that have their key values otherwise if that is the decision."""
    tracking = project.tracking
    for each in found:
        with suppress(NotFound):
            if each.quoted and decision == DELETE:
                tracking.delete_artefact(each.run, each.name)
            elif each.rows:
                tracking.log_artefact(
                    each.run, each.name, _without(tracking.artefact(each.run, each.name), subjects)[0]
                )


def _runs(project: Project) -> list[RunRecord]:
    url = project.settings.tracking
    if url.scheme == "sqlite" and not Path(url.path).exists():
        return []
    return [*project.tracking.search(limit=_MOST_RUNS), *project.tracking.deleted()]


def _looked_at(
    project: Project, run: RunRecord, name: str, subjects: Sequence[Subject], patterns: Sequence[re.Pattern[bytes]]
) -> Artefact:
    if name in _OWN and run.tags.get(PURPOSE) == _OWN[name]:
        with suppress(ValueError, IndexError, csv.Error):  # no table of ours: another client gave it this name
            left, rows = _without(project.tracking.artefact(run.id, name), subjects)
            return Artefact(run.id, name, rows, any(each.search(left) for each in patterns))
    try:
        with project.tracking.artefact_file(run.id, name) as path:
            return Artefact(run.id, name, quoted=has(path, patterns))
    except Invalid:  # a name that another client gave
        return Artefact(run.id, name, quoted=True)


def _without(content: bytes, subjects: Sequence[Subject]) -> tuple[bytes, int]:
    """Return a table, CSV, without the rows about subjects, and their number."""
    header, *rows = list(csv.reader(io.StringIO(content.decode(), newline=""))) or [[]]
    about = [check for subject in subjects for check in _checks(header, subject)]
    left = [row for row in rows if not any(check(row) for check in about)]
    text = io.StringIO()
    csv.writer(text).writerows([header, *left])
    return text.getvalue().encode(), len(rows) - len(left)


def _checks(header: Sequence[str], subject: Subject) -> Iterator[Callable[[Sequence[str]], bool]]:
    """Yield checks whether a row is about the subject: by columns of its keys, or as a group of rows."""

    def has_keys(row: Sequence[str], places: Sequence[int]) -> bool:
        return all(_is(subject, name, row[place]) for name, place in zip(subject.keys, places, strict=True))

    def is_group(row: Sequence[str], place: int) -> bool:
        column, _, value = row[place].partition("=")
        name = column.partition(".")[2]
        return [*subject.keys] == [name] and _is(subject, name, value)

    for prefix in ("", "of_"):
        names = [prefix + name for name in subject.keys]
        if all(name in header for name in names):
            yield partial(has_keys, places=[header.index(name) for name in names])
    if _GROUP in header:
        yield partial(is_group, place=header.index(_GROUP))


def _is(subject: Subject, name: str, cell: str) -> bool:
    value = subject.keys[name]
    if subject.entity.keys[name] is DType.Timestamp:
        with suppress(Invalid, ValueError):
            return parse_instant(cell) == value
    return not {cell, cell.removeprefix("'")}.isdisjoint({str(value), key_text(value)})
