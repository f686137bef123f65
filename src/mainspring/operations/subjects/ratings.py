"""Ratings of answers in the state folder: those that wait to be ingested, and those that could not be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mainspring.core.errors import Invalid, NotFound
from mainspring.llm.answers.rating import FOLDER, Rating, kept
from mainspring.operations.subjects.naming import Subject
from mainspring.operations.subjects.remains import patterns_of
from mainspring.project import Project


def find(project: Project, subjects: Sequence[Subject]) -> list[tuple[Path, Rating]]:
    """Return the ratings of answers to subjects, those whose reason has a key value that is long enough to tell, and
    those of answers that are in the log no more, of which nobody can say whose they were."""
    return [(path, rating) for path, rating, gone in _concerned(project, subjects) if gone is not None]


def of_subject(project: Project, subject: Subject) -> Iterator[Rating]:
    """Yield the ratings that are known to be about a subject."""
    return (rating for _, rating, gone in _concerned(project, [subject]) if gone is False)


def erase(project: Project, subjects: Sequence[Subject]) -> None:
    """Delete what `find` returns. Do so before the predictions are erased, which tell whose answers they are."""
    for path, _ in find(project, subjects):
        path.unlink(missing_ok=True)


def _concerned(project: Project, subjects: Sequence[Subject]) -> Iterator[tuple[Path, Rating, bool | None]]:
    """Yield each rating, with whether its answer is gone; `None` for one of somebody else."""
    found = list(kept(project.settings.state / FOLDER))
    if not found:
        return
    answers = {each.id for subject in subjects for each in project.predictions.of_subject(subject.keys)}
    patterns = patterns_of(subjects)
    for path, rating in found:
        if rating.answer in answers or any(pattern.search(rating.reason.encode()) for pattern in patterns):
            yield path, rating, False
        else:
            yield path, rating, True if _is_gone(project, rating) else None


def _is_gone(project: Project, rating: Rating) -> bool:
    try:
        project.predictions.find(rating.answer)
    except (Invalid, NotFound):
        return True
    return False
