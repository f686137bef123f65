"""Explanation of an offline read: its steps and their SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mainspring.operations.features.choosing import Chosen, choose
from mainspring.operations.features.reading import pinned

if TYPE_CHECKING:
    from mainspring.features.offline.plan import Step
    from mainspring.project import Project


def explain(project: Project, what: Chosen | Sequence[Chosen], *, analyze: bool = False) -> list[Step]:
    """Return the steps of the offline read of `what`: a model, a view, or a list of views and features.

    Args:
        analyze: Whether to ask DuckDB for its plans, which runs the statements on a sample.

    Raises:
        NotFound: There is no such model or view, or a source has no data yet.
    """
    from mainspring.features.offline.plan import explain as plan

    choice = choose(project.definitions, what)
    fields = {} if choice.model is None else choice.model.observations.source.columns
    declared = {name: dtype for name, dtype in choice.fields.items() if dtype is not None}
    return plan(choice.groups, pinned(project), {**fields, **declared, **choice.keys}, analyze=analyze)
