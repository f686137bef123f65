"""Derived tables of the project's feature functions, and of those that live bundles read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mainspring.data.model import Source
from mainspring.features.functions.model import DerivedSource
from mainspring.features.model import FeatureView
from mainspring.operations.features.choosing import choose

if TYPE_CHECKING:
    from mainspring.features.functions.deriving import DeriveReport
    from mainspring.project import Project


@dataclass(frozen=True, slots=True)
class FunctionCost:
    """Cost of a view's function so far.

    Attributes:
        rows: Rows it was computed for, of which it failed for `failed`; `behind` rows are not computed yet.
        seconds: Duration of its calls.
        rows_per_s: `None` before the first row.
        share: Its part of the duration of all functions of the project, from 0 to 1.
    """

    function: str
    version: str
    rows: int
    failed: int
    behind: int
    seconds: float
    rows_per_s: float | None
    share: float


Told = Callable[[str, int, int], None]  # table, rows done, total rows


def derive(project: Project, views: Iterable[FeatureView], progress: Told | None = None) -> list[DeriveReport]:
    """Compute what is missing of the derived tables that views read, each after those it is computed from.

    Raises:
        FunctionFailed: A function does; the tables before it are complete.
    """
    views = list(views)
    reports = []
    for source in derived_sources(views):
        keyings = {view.entity.name: tuple(view.entity.keys) for view in views if view.source.name == source.name}

        def told(done: int, total: int, name: str = source.name) -> None:
            if progress is not None:
                progress(name, done, total)

        reports.append(project.deriver.derive(source, keyings, told))
    return reports


def derive_from(project: Project, source: str) -> list[DeriveReport]:
    """Compute what is missing of the tables derived from a source, for all declared views.

    Views that only live bundles read follow with their materialisation.

    Raises:
        FunctionFailed: As `derive`.
    """
    views = project.definitions.views.values()
    return derive(project, [view for view in views if source in {each.name for each in _above(view)}])


def derived_sources(views: Iterable[FeatureView]) -> list[DerivedSource]:
    """Return the derived sources that views read, directly or not, each once and after its parent."""
    found: dict[str, DerivedSource] = {}
    for view in views:
        for source in reversed(_above(view)):
            if isinstance(source, DerivedSource):
                found.setdefault(source.name, source)
    return list(found.values())


def _above(view: FeatureView) -> list[Source]:
    """Return the source of a view, the source that one was computed from, and so on."""
    found = [view.source]
    while isinstance(found[-1], DerivedSource):
        found.append(found[-1].parent)
    return found


def function_costs(project: Project) -> dict[str, FunctionCost]:
    """Return view -> cost of its function, for the declared views that a function computes."""
    views = project.definitions.views.values()
    own = {view.name: view.source for view in views if isinstance(view.source, DerivedSource)}
    found = {name: project.deriver.cost(source) for name, source in own.items() if source.function.name == name}
    whole = sum(cost.seconds for cost in found.values())
    return {
        name: FunctionCost(
            str(own[name].function.code), own[name].function.digest, cost.rows, cost.failed, cost.behind,
            cost.seconds, cost.rows_per_s, cost.seconds / whole if whole else 0.0,
        )
        for name, cost in found.items()
    }  # fmt: skip


def costs_of(project: Project, name: str) -> dict[str, FunctionCost]:
    """Return view -> cost, for the views that a model or a view reads."""
    views = {view.name for view in choose(project.definitions, name).views}
    return {view: cost for view, cost in function_costs(project).items() if view in views}


def cost_in_words(cost: FunctionCost) -> str:
    """Return a cost as one line: rows, failures, rate, duration and share."""
    parts = [f"{cost.rows:,} rows computed"]
    if cost.failed:
        parts.append(f"{cost.failed:,} failed")
    if cost.behind:
        parts.append(f"{cost.behind:,} to do")
    if cost.rows_per_s is not None:
        parts.append(f"{cost.rows_per_s:,.0f} rows/s")
        parts.append(f"{cost.seconds:,.3g} s, {cost.share:.0%} of all functions")
    return ", ".join(parts)
