"""Paths and what they name."""

from __future__ import annotations

import pytest

from mainspring.serving.http.body import accepted
from mainspring.serving.http.routes import ROUTES, split_path


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_is_found_by_its_path(route) -> None:
    path = route.path.format(model="m", version="7", region="r")
    assert split_path(path) == (route.path, "m" * ("{model}" in route.path), "7" * ("{version}" in route.path))


@pytest.mark.parametrize("path", ["/", "", "/v2/models", "/v2/models/m/versions", "/v3/models/m", "//v2"])
def test_other_paths_are_no_route(path: str) -> None:
    template, _, _ = split_path(path)
    assert template not in {route.path for route in ROUTES}


def test_long_paths_are_not_remembered() -> None:
    path = "/v2/models/" + "m" * 10_000
    assert split_path(path) == ("/v2/models/{model}", "m" * 10_000, "")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("", None),
        ("identity", None),
        ("br", None),
        ("gzip", "gzip"),
        ("GZIP;q=0.5, deflate", "gzip"),
        ("deflate", "deflate"),
        ("gzip;q=0, deflate", "deflate"),
        ("gzip; q=0.0", None),
        ("*", "gzip"),
        ("*;q=0", None),
        ("gzip;q=0, *", "deflate"),
    ],
)
def test_how_a_caller_wants_to_be_answered(header: str | None, expected: str | None) -> None:
    assert accepted(header) == expected
