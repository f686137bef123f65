"""Measures by name, and words that their checks share."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized

from mainspring.core.errors import NotFound
from mainspring.core.time import DAY
from mainspring.delivery import routing
from mainspring.governance.evidence import Measure, State
from mainspring.operations.doctor import examine
from mainspring.project import Project
from mainspring.registry.model import ModelVersion
from mainspring.training.gate_kinds import Gate

YEAR = 365 * DAY
Outcome = tuple[State, str]
Check = Callable[[Project], Outcome]


class Measures(dict[str, tuple[Measure, Check]]):
    """Measures by name, with their checks."""

    def measure(self, name: str, what: str, *, off_by: str = "", test: str = "") -> Callable[[Check], Check]:
        """Return the decorator that adds a check of what a measure does."""

        def add(check: Check) -> Check:
            self[name] = Measure(name, what, off_by, test), check
            return check

        return add


def gates_of(project: Project, model: str) -> Sequence[Gate]:
    """Return the gates of a model; none if it is not declared."""
    declared = project.definitions.models.get(model)
    return () if declared is None else declared.gates


def served_models(project: Project) -> list[str]:
    """Return the names of the models that endpoints serve."""
    return sorted({endpoint.model_name for endpoint in project.definitions.endpoints.values()})


def champions(project: Project) -> list[ModelVersion]:
    """Return the champions of the models that endpoints serve."""
    found = []
    for model in served_models(project):
        try:
            found.append(project.versions.get(model, routing.CHAMPION))
        except NotFound:
            continue
    return found


def failing(project: Project, check: str) -> str:
    """Return what a check of `doctor` found to be wrong; empty if nothing is."""
    return next((finding.detail for finding in examine(project, check) if not finding.ok), "")


def count(found: Sized, one: str) -> str:
    return f"{len(found)} {one}{'s' * (len(found) != 1)}"


def days(duration: int) -> str:
    return count(range(duration // DAY), "day")


def listed(names: list[str]) -> str:
    return ", ".join(names)
