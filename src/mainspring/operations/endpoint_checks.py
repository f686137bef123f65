"""Checks of endpoints: each serves a version, and the features that the version reads exist."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from mainspring.core.errors import MainspringError, NotFound, Unavailable
from mainspring.delivery.routing import version_of
from mainspring.features import definitions
from mainspring.features.layout import slot
from mainspring.features.model import FeatureView, views_of
from mainspring.operations.findings import Finding, well
from mainspring.operations.promote import gated
from mainspring.project import Project
from mainspring.registry.bundles import FEATURES
from mainspring.serving.model import Endpoint
from mainspring.serving.plane import slots

_CHECK = "endpoints"


def problem_of(project: Project, endpoint: Endpoint) -> str:
    """Return the reason why an endpoint has no route, with the fix; empty if it has one."""
    if endpoint.name in project.routes.current():
        return ""
    try:
        version = version_of(endpoint, project.versions, gated=gated(project))
    except NotFound as error:
        return str(error)
    return (
        f"The route to version {version.version} is not published. Fix: run `mainspring up`, whose worker publishes it."
    )


def check_endpoints(project: Project) -> Iterator[Finding]:
    """Yield the findings. An endpoint whose model has no version serves nothing, which is not a problem."""
    answers = slots.numbers(slots.folder(project.settings.state))
    served = b"\n".join(answers.values()).decode(errors="replace")
    findings = [
        finding
        for _, endpoint in sorted(project.definitions.endpoints.items())
        for finding in _of_endpoint(project, endpoint, served if answers else None)
    ]
    yield from findings
    if all(finding.ok for finding in findings):
        count = len(project.definitions.endpoints) - len(findings)
        yield well(_CHECK, f"serving a version whose features are materialised: {count}")


def waiting_for_features(project: Project) -> Iterator[Finding]:
    """Yield the endpoints that are served at once without features: a view that their model is declared with was never
    materialised, as after an upgrade that stores its states in another form. The worker computes them.
    """
    if project.settings.online.scheme == "memory":  # each process has its own
        return
    try:
        routes = project.routes.current()
        for endpoint in [each for each in project.definitions.endpoints.values() if each.name in routes]:
            model = project.definitions.models.get(endpoint.model_name)
            views = [] if model is None else views_of(model.features)
            if missing := sorted(view.name for view in views if _never_materialised(project, view)):
                names = ", ".join(missing)
                detail = f"endpoint {endpoint.name} answers without {names} until the worker has computed their values"
                yield Finding(check=_CHECK, ok=False, detail=detail, fix=_materialise(missing))
    except Unavailable:  # such as a locked catalog: what runs waits for it
        return


def _materialise(views: Collection[str]) -> str:
    return f"run `mainspring materialize {' '.join(views)}`"


def _of_endpoint(project: Project, endpoint: Endpoint, served: str | None) -> Iterator[Finding]:
    problem = problem_of(project, endpoint)
    if problem:
        detail, _, fix = problem.partition(" Fix: ")
        ill = bool(project.versions.all(endpoint.model_name))
        yield Finding(check=_CHECK, ok=not ill, detail=detail, fix=fix)
        return
    route = project.routes.current()[endpoint.name]
    if served is not None and f'mainspring_served_version{{endpoint="{endpoint.name}"' not in served:
        yield Finding(
            check=_CHECK,
            ok=False,
            detail=f"endpoint {endpoint.name} has a route, but no gateway serves it",
            fix=f"read {project.settings.state / 'logs' / 'gateway.log'}",
        )
    missing = []
    for arm in route.arms:
        try:
            missing += [view.name for view in _views(project, arm.digest) if _never_materialised(project, view)]
        except MainspringError:  # reported by the check of models
            continue
    if missing:
        unknown = sorted(set(missing) - project.definitions.views.keys())
        fix = _materialise(sorted(set(missing)))
        if unknown:
            fix = (
                f"declare {', '.join(unknown)} and the source in the project, ingest, and run `mainspring materialize`"
            )
        yield Finding(
            check=_CHECK,
            ok=False,
            detail=f"endpoint {endpoint.name} reads {', '.join(sorted(set(missing)))}, which were never "
            "materialised: all their features are missing",
            fix=fix,
        )


def _views(project: Project, digest: str) -> list[FeatureView]:
    content = project.bundles.load(digest).files.get(FEATURES)
    return [] if content is None else views_of(definitions.load(content)[0])


def _never_materialised(project: Project, view: FeatureView) -> bool:
    return project.online.position(slot(view)) is None
