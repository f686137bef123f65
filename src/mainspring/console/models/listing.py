"""View models of the table of models, the endpoints that serve them, and the states of versions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mainspring.delivery.routing import CHAMPION
from mainspring.project import Project
from mainspring.registry.model import Deletion, ModelVersion

LISTED = 100
Choose = Callable[[Iterable[str]], list[str]]
# State -> the stylesheet's class, and the text for people.
STATES: Mapping[str, tuple[str, str]] = {
    "live": ("live", "Live"),
    CHAMPION: ("fresh", "Champion"),
    "removing": ("alert", "Being removed"),
    "marked": ("drifted", "Marked for deletion"),
    "registered": ("plain", "Registered"),
}


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
    """Models whose names contain the search text: at most `LISTED` of `found` matches; `of` models exist."""

    rows: tuple[ModelRow, ...]
    found: int
    of: int


@dataclass(frozen=True, slots=True)
class Serving:
    """One endpoint of a model. `versions` maps each version to its share of requests; empty if none is live."""

    endpoint: str
    reference: str  # the alias or number that it is declared to serve; empty if it is only routed
    versions: dict[str, float]


def serving(project: Project, seen: Choose = list) -> dict[str, tuple[Serving, ...]]:
    """Return the endpoints of each model, declared or routed, by name.

    Args:
        seen: Returns those of some endpoints that the caller may see.
    """
    declared, routes = project.definitions.endpoints, project.routes.current()
    found: dict[str, list[Serving]] = {}
    for name in seen(sorted({*declared, *routes})):
        route, endpoint = routes.get(name), declared.get(name)
        model = route.model if route else endpoint.model_name if endpoint else ""
        weights: dict[str, float] = {}
        for arm in route.arms if route else ():
            weights[arm.version] = weights.get(arm.version, 0.0) + arm.weight
        reference = endpoint.reference if endpoint and endpoint.model_name == model else ""
        found.setdefault(model, []).append(Serving(name, reference, weights))
    return {model: tuple(of_model) for model, of_model in found.items()}


def shares(of: tuple[Serving, ...], version: str) -> dict[str, float]:
    """Return endpoint -> the share of its requests that a version answers, for endpoints with any."""
    return {each.endpoint: each.versions[version] for each in of if each.versions.get(version)}


def model_list(project: Project, words: str = "", seen: Choose = list, seen_endpoints: Choose = list) -> ModelList:
    """Return every model, declared or registered, by name.

    Args:
        seen: Returns those of some models that the caller may see, as `seen_endpoints` does of endpoints.
    """
    versions: dict[str, list[ModelVersion]] = {name: [] for name in project.definitions.models}
    for version in project.versions.all():
        versions.setdefault(version.model, []).append(version)
    marks: dict[str, int] = {}
    for mark in project.deletions.all():
        marks[mark.model] = marks.get(mark.model, 0) + 1
    served = serving(project, seen_endpoints)
    known = seen(sorted(versions))
    wanted = [name for name in known if words.lower() in name.lower()]
    rows = [_row(project, name, versions[name], marks.get(name, 0), served.get(name, ())) for name in wanted[:LISTED]]
    return ModelList(tuple(rows), len(wanted), len(known))


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


def state_of(version: ModelVersion, mark: Deletion | None, serves: Mapping[str, float]) -> str:
    """Return the state, a key of `STATES`. A deletion mark takes precedence over an alias: a marked version cannot go
    live.
    """
    if serves:
        return "live"
    if mark is not None:
        return "removing" if mark.claimed else "marked"
    return CHAMPION if CHAMPION in version.aliases else "registered"
