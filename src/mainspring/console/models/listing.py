"""The table of models, as values for its template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mainspring.console.models.serving import Serving, serving
from mainspring.project import Project
from mainspring.registry.model import ModelVersion

LISTED = 100
CHAMPION = "champion"


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model. `aliases` are alias -> version."""

    name: str
    declared: bool
    description: str
    task: str
    versions: int
    marked: int  # of them, for deletion
    aliases: Mapping[str, str]
    newest: ModelVersion | None
    champion: ModelVersion | None
    serving: tuple[Serving, ...]


@dataclass(frozen=True, slots=True)
class ModelList:
    """The models whose names contain what was looked for, at most `LISTED` of `found`; `of` there are in all."""

    rows: tuple[ModelRow, ...]
    found: int
    of: int


def model_list(project: Project, words: str = "") -> ModelList:
    """Return every model, declared or registered, by name."""
    versions: dict[str, list[ModelVersion]] = {name: [] for name in project.definitions.models}
    for version in project.versions.all():
        versions.setdefault(version.model, []).append(version)
    marks: dict[str, int] = {}
    for mark in project.deletions.all():
        marks[mark.model] = marks.get(mark.model, 0) + 1
    served = serving(project)
    wanted = [name for name in sorted(versions) if words.lower() in name.lower()]
    rows = [_row(project, name, versions[name], marks.get(name, 0), served.get(name, ())) for name in wanted[:LISTED]]
    return ModelList(tuple(rows), len(wanted), len(versions))


def _row(
    project: Project, name: str, versions: Sequence[ModelVersion], marked: int, served: tuple[Serving, ...]
) -> ModelRow:
    declared = project.definitions.models.get(name)
    return ModelRow(
        name=name,
        declared=declared is not None,
        description=declared.description if declared else "",
        task=str(declared.task) if declared else "",
        versions=len(versions),
        marked=marked,
        aliases={alias: version.version for version in reversed(versions) for alias in version.aliases},
        newest=versions[0] if versions else None,
        champion=next((version for version in versions if CHAMPION in version.aliases), None),
        serving=served,
    )
