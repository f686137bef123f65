"""Routes follow aliases, whatever crashed in between."""

from __future__ import annotations

from mainspring.delivery.routing import publish, routes_for
from mainspring.ledger.model import Log
from mainspring.registry.adapters.memory import MemoryVersions
from mainspring.registry.model import AliasMove
from mainspring.serving.adapters.memory import MemoryRoutes
from mainspring.serving.model import Arm, Endpoint, Route

DIGESTS = ["1" * 64, "2" * 64]


def registry(*models: str) -> MemoryVersions:
    versions = MemoryVersions()
    for model in models:
        for digest in DIGESTS:
            versions.register(model, digest, "r", {}, 0)
    return versions


def move(versions: MemoryVersions, model: str, old: str | None, new: str, alias: str = "champion") -> None:
    versions.set_alias(AliasMove(model, alias, old, new, "ana", "promote", 0))


def test_a_route_has_what_its_endpoint_declares() -> None:
    versions = registry("late")
    move(versions, "late", None, "2")
    endpoint = Endpoint("e", model="late@champion", deadline="80ms", max_queue_rows=7, log=Log(sync=True))
    assert routes_for([endpoint], versions) == [
        Route(
            endpoint="e",
            model="late",
            arms=(Arm("2", "2" * 64, 1.0),),
            deadline_us=80_000,
            max_queue_rows=7,
            log=Log(sync=True),
        )
    ]


def test_endpoints_without_a_version_have_no_route() -> None:
    versions = registry("late", "other")
    move(versions, "late", None, "1")
    endpoints = [
        Endpoint("z", model="late@champion"),
        Endpoint("pinned", model="late@2"),
        Endpoint("waiting", model="other@champion"),
        Endpoint("unknown", model="nothing@champion"),
        Endpoint("nine", model="late@9"),
    ]
    found = routes_for(endpoints, versions)
    assert [(route.endpoint, route.arms[0].version) for route in found] == [("pinned", "2"), ("z", "1")]


def test_publishing_heals_a_crash_between_move_and_publication() -> None:
    versions, routes = registry("late"), MemoryRoutes()
    endpoints = [Endpoint("e", model="late@champion")]
    move(versions, "late", None, "1")
    first = publish(endpoints, versions, routes)
    move(versions, "late", "1", "2")  # and then the process died
    assert routes.current()["e"].arms[0].version == "1"
    second = publish(endpoints, versions, routes)
    assert routes.current()["e"].arms[0].version == "2"
    assert second > first
    assert publish(endpoints, versions, routes) == second


def test_an_endpoint_that_is_gone_loses_its_route() -> None:
    versions, routes = registry("late"), MemoryRoutes()
    move(versions, "late", None, "1")
    publish([Endpoint("e", model="late@1"), Endpoint("f", model="late@1")], versions, routes)
    publish([Endpoint("f", model="late@1")], versions, routes)
    assert set(routes.current()) == {"f"}


def test_an_alias_that_moves_during_publication_is_published_too() -> None:
    versions = registry("late")
    move(versions, "late", None, "1")

    class Busy(MemoryRoutes):
        """While the first table is being published, somebody else promotes."""

        def publish(self, routes: object) -> int:
            if versions.get("late", "champion").version == "1":
                move(versions, "late", "1", "2")
            return super().publish(routes)  # type: ignore[arg-type]

    routes = Busy()
    publish([Endpoint("e", model="late@champion")], versions, routes)
    assert routes.current()["e"].arms[0].version == "2"
