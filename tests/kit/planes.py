"""Every route of both planes of a project that is up, and what stands for the names in their paths."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from kit.depot import ENDPOINT, Depot, opened
from mainspring.console.app import create_app
from mainspring.llm.routes import LLM_ROUTES
from mainspring.serving.http.gateway import ROUTES

PROBES = {
    ("gateway", "GET", "/v2/health/live"),
    ("gateway", "GET", "/v2/health/ready"),
    ("control", "GET", "/health/live"),
    ("control", "GET", "/health/ready"),
}
DOOR = {("control", "GET", "/login"), ("control", "POST", "/login")}
SIGNED = ("/api/webhooks/", "/api/edge/records/")  # a host or device signs: no key is enough
Route = tuple[str, str, str]  # plane, method, path


def all_routes(depot: Depot) -> tuple[Route, ...]:
    """Return every route of both planes, with the names of parameters in their paths."""
    found = [("gateway", route.method, route.path) for route in (*ROUTES, *LLM_ROUTES)]
    project = opened(depot)
    for route in flat(create_app(project).routes):
        found += [("control", method, route.path) for method in sorted(route.methods)]
    project.engine.dispose()
    return tuple(sorted(set(found)))


def flat(routes: Any) -> Iterator[Any]:
    """Return the routes that are in routers and mounts too."""
    for route in routes:
        inner = getattr(getattr(route, "original_router", route), "routes", None)  # included, or mounted
        if getattr(route, "methods", None):
            yield route
        elif inner is not None:
            yield from flat(inner)
        else:
            raise AssertionError(f"{route!r} is neither a route nor a group of them")


def filled(path: str, other: str = "something") -> str:
    """Return a path with something for each parameter: what is there for models and versions, `other` for the rest."""
    path = path.replace("{model}", ENDPOINT).replace("{name}", ENDPOINT).replace("{version}", "1")
    return re.sub(r"\{\w+\}", other, path)
