"""Routers whose routes cost little until they are used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.routing import compile_path, get_name


class LateRoute(APIRoute):
    """A route that analyses the signature of its endpoint when it is first asked, not when it is added.

    The analysis of all routes took most of a start, and a console is asked for few of its pages.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        self._late = {"path": path, "endpoint": endpoint, **options}
        # Enough to match a request, and to list the routes.
        self.path = path
        self.endpoint = endpoint
        self.name = options.get("name") or get_name(endpoint)
        self.methods = {method.upper() for method in options.get("methods") or ("GET",)}
        self.include_in_schema = options.get("include_in_schema", True)
        self.path_regex, self.path_format, self.param_convertors = compile_path(path)

    def __getattr__(self, name: str) -> Any:
        late = self.__dict__.pop("_late", None)
        if late is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
        super().__init__(**late)
        return getattr(self, name)


def router_of(**options: Any) -> APIRouter:
    """Return a router of such routes. Options as of `APIRouter`."""
    return APIRouter(route_class=LateRoute, **options)
