"""Routes that are analysed when they are first asked."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.testclient import TestClient

from kit.console.flights import Project
from mainspring.console.app import create_app
from mainspring.console.routing import LateRoute, router_of


def test_every_route_of_the_console_is_late_and_can_be_analysed() -> None:
    routes = [each for each in create_app(Project()).router.routes if isinstance(each, APIRoute)]
    late = [each for each in routes if isinstance(each, LateRoute)]
    assert late == routes
    assert len(late) > 100
    assert all("dependant" not in vars(each) for each in late)
    for each in late:
        names = {parameter.name for parameter in each.dependant.path_params}
        assert names == set(each.param_convertors)


def test_it_answers_as_any_route() -> None:
    router = router_of(prefix="/a")

    @router.post("/{number}", status_code=201)
    def made(number: int, more: int = 1) -> int:
        return number + more

    app = FastAPI()
    app.router.routes.extend(router.routes)
    client = TestClient(app)
    assert client.post("/a/4?more=2").json() == 6
    assert client.post("/a/4").status_code == 201
    assert client.get("/a/4").status_code == 405
    [route] = router.routes
    with pytest.raises(AttributeError, match="has no attribute 'colour'"):
        _ = route.colour  # type: ignore[attr-defined]
