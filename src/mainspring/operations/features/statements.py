"""The read of features as one statement for a warehouse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mainspring.core.errors import Invalid
from mainspring.operations.features.choosing import Chosen, choose

if TYPE_CHECKING:
    from mainspring.features.warehouse import Tables
    from mainspring.project import Project


def warehouse_statement(project: Project, what: Chosen | Sequence[Chosen], dialect: str, tables: Tables) -> str:
    """Return the SELECT of the features that `what` names: a model, a view, or a list of views and features.

    Raises:
        NotFound: There is no such model or view.
        Invalid: There is no such dialect, it has no equal of a feature, or a table is given for a source that is not
            read.
    """
    from mainspring.core.expr.dialects import dialect as named
    from mainspring.features.warehouse import statement

    choice = choose(project.definitions, what)
    sources = sorted({view.source.name for view in choice.views})
    for source in tables.sources:
        if source not in sources:
            raise Invalid(f"{choice.title} reads no source {source!r}.", fix=f"it reads {sources}.")
    fields = {name: dtype for name, dtype in choice.fields.items() if dtype is not None}
    return statement(choice.groups, named(dialect), tables, fields={**fields, **choice.keys}, columns=choice.columns)
