"""Endpoints that serve each version of a model."""

from __future__ import annotations

from dataclasses import dataclass

from mainspring.project import Project


@dataclass(frozen=True, slots=True)
class Serving:
    """One endpoint of a model. `versions` says what share of its requests each answers; empty while nothing does."""

    endpoint: str
    reference: str  # what it is declared to serve, an alias or a number; empty where it is only routed
    versions: dict[str, float]


def serving(project: Project) -> dict[str, tuple[Serving, ...]]:
    """Return the endpoints of each model, declared or routed, by name."""
    declared, routes = project.definitions.endpoints, project.routes.current()
    found: dict[str, list[Serving]] = {}
    for name in sorted({*declared, *routes}):
        route, endpoint = routes.get(name), declared.get(name)
        model = route.model if route else endpoint.model_name if endpoint else ""
        weights: dict[str, float] = {}
        for arm in route.arms if route else ():
            weights[arm.version] = weights.get(arm.version, 0.0) + arm.weight
        reference = endpoint.reference if endpoint and endpoint.model_name == model else ""
        found.setdefault(model, []).append(Serving(name, reference, weights))
    return {model: tuple(of_model) for model, of_model in found.items()}


def shares(of: tuple[Serving, ...], version: str) -> dict[str, float]:
    """Return endpoint -> the share of its requests that a version answers, where it answers any."""
    return {each.endpoint: each.versions[version] for each in of if each.versions.get(version)}
