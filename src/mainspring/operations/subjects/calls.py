"""Held calls of tools that quote subjects in their arguments."""

from __future__ import annotations

from collections.abc import Sequence

from mainspring.operations.subjects.naming import Subject
from mainspring.operations.subjects.remains import patterns_of
from mainspring.project import Project


def find(project: Project, subjects: Sequence[Subject]) -> list[str]:
    """Return the ids of the held calls that have the key values of subjects; of keys that are long enough to tell."""
    patterns = patterns_of(subjects)
    return [
        each.id
        for each in project.held_calls.all(since=0, waiting=False)
        if any(pattern.search(each.arguments.encode()) for pattern in patterns)
    ]


def erase(project: Project, subjects: Sequence[Subject]) -> None:
    """Remove them."""
    if found := find(project, subjects):
        project.held_calls.remove(found)
