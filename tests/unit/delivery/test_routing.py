"""Routes follow aliases, whatever crashed in between."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

import mainspring as ms
from mainspring.core.errors import NotFound
from mainspring.delivery.adapters.catalog import CatalogRollouts
from mainspring.delivery.conformance import rollout
from mainspring.delivery.rollout.deciding import intervened, looked
from mainspring.delivery.rollout.model import Observed, RolloutState
from mainspring.delivery.routing import publish, routes_for, version_of
from mainspring.ledger.model import Log
from mainspring.project.catalog import memory_catalog
from mainspring.registry.adapters.memory import MemoryVersions
from mainspring.registry.model import AliasMove
from mainspring.serving.adapters.catalog import CatalogRoutes
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


def begun(share: float | None = None) -> RolloutState:
    """Return a rollout of version 2 beside champion 1 in its first step."""
    state, _ = looked(rollout()[0], Observed(champion="1"), 0)
    return state if share is None else msgspec.structs.replace(state, share=share)


def test_a_route_has_what_its_endpoint_declares() -> None:
    versions = registry("late")
    move(versions, "late", None, "2")
    endpoint = Endpoint("e", model="late@champion", deadline="80ms", max_queue_rows=7, log=Log(sync=True))
    assert routes_for([endpoint], versions, gated=()) == [
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
    found = routes_for(endpoints, versions, gated=())
    assert [(route.endpoint, route.arms[0].version) for route in found] == [("pinned", "2"), ("z", "1")]


def test_publishing_heals_a_crash_between_move_and_publication() -> None:
    versions, routes = registry("late"), CatalogRoutes(memory_catalog())
    endpoints = [Endpoint("e", model="late@champion")]
    move(versions, "late", None, "1")
    first = publish(endpoints, versions, routes, gated=())
    move(versions, "late", "1", "2")  # and then the process died
    assert routes.current()["e"].arms[0].version == "1"
    second = publish(endpoints, versions, routes, gated=())
    assert routes.current()["e"].arms[0].version == "2"
    assert second > first
    assert publish(endpoints, versions, routes, gated=()) == second


def test_an_endpoint_that_is_gone_loses_its_route() -> None:
    versions, routes = registry("late"), CatalogRoutes(memory_catalog())
    move(versions, "late", None, "1")
    publish([Endpoint("e", model="late@1"), Endpoint("f", model="late@1")], versions, routes, gated=())
    publish([Endpoint("f", model="late@1")], versions, routes, gated=())
    assert set(routes.current()) == {"f"}


def test_endpoints_that_were_read_before_another_publication_are_read_again() -> None:
    versions, routes = registry("late"), CatalogRoutes(memory_catalog())
    move(versions, "late", None, "1")
    old, new = Endpoint("e", model="late@1"), Endpoint("f", model="late@1")
    reads = list[list[Endpoint]]()

    def declared() -> list[Endpoint]:
        reads.append([old] if not reads else [old, new])
        if len(reads) == 1:  # `apply` stores and publishes what a worker has just not seen
            publish([old, new], versions, routes, gated=())
        return reads[-1]

    publish(declared, versions, routes, gated=())
    assert set(routes.current()) == {"e", "f"}
    assert len(reads) == 2


def test_an_alias_that_moves_during_publication_is_published_too() -> None:
    versions = registry("late")
    move(versions, "late", None, "1")

    class Busy(CatalogRoutes):
        """While the first table is being published, somebody else promotes."""

        def publish(self, routes: Sequence[Route], *, after: int | None = None) -> int:
            if versions.get("late", "champion").version == "1":
                move(versions, "late", "1", "2")
            return super().publish(routes, after=after)

    routes = Busy(memory_catalog())
    publish([Endpoint("e", model="late@champion")], versions, routes, gated=())
    assert routes.current()["e"].arms[0].version == "2"


def test_a_publisher_that_was_suspended_brings_no_old_route_back() -> None:
    versions, catalog = registry("late"), memory_catalog()
    move(versions, "late", None, "1")
    endpoints, seen = [Endpoint("e", model="late@champion")], []

    class Suspended(CatalogRoutes):
        """Between its reading and its writing somebody else promotes, and publishes."""

        def publish(self, routes: Sequence[Route], *, after: int | None = None) -> int:
            if versions.get("late", "champion").version == "1":
                move(versions, "late", "1", "2")
                publish(endpoints, versions, CatalogRoutes(catalog), gated=())
            try:
                return super().publish(routes, after=after)
            finally:
                seen.append(self.current()["e"].arms[0].version)

    publish(endpoints, versions, Suspended(catalog), gated=())
    assert set(seen) == {"2"}


def test_a_pinned_version_serves_once_it_has_passed_its_gates() -> None:
    versions, pinned = registry("late"), Endpoint("pinned", model="late@2")
    for gated in ({"late"}, {"late", "other"}):
        assert routes_for([pinned], versions, gated=gated) == []
        with pytest.raises(NotFound, match="version 2 of 'late' has not passed its gates") as refused:
            version_of(pinned, versions, gated=gated)
        assert refused.value.fix == "run `mainspring promote late 2`, which checks them."
    assert [route.endpoint for route in routes_for([pinned], versions, gated={"other"})] == ["pinned"]
    move(versions, "late", None, "2")
    assert [route.endpoint for route in routes_for([pinned], versions, gated={"late"})] == ["pinned"]
    move(versions, "late", "2", "1")
    assert [route.endpoint for route in routes_for([pinned], versions, gated={"late"})] == ["pinned"]


def test_an_alias_that_anybody_may_set_is_no_way_around_the_gates() -> None:
    versions, other = registry("late"), Endpoint("e", model="late@canary")
    move(versions, "late", None, "2", alias="canary")
    with pytest.raises(NotFound, match="version 2 of 'late' has not passed its gates"):
        version_of(other, versions, gated={"late"})
    assert version_of(other, versions, gated=()).version == "2"
    move(versions, "late", None, "2")
    assert version_of(other, versions, gated={"late"}).version == "2"


@pytest.mark.parametrize(
    ("model", "said", "fix"),
    [
        ("late@champion", "'late' has no champion", "run `mainspring promote`."),
        ("none@champion", "'none' has no champion", "run `mainspring train` and `mainspring promote`."),
        ("late@9", "'late' has no '9'", "run `mainspring train late`, or name a version of `mainspring models list`."),
    ],
)
def test_an_endpoint_without_a_version_says_why(model: str, said: str, fix: str) -> None:
    with pytest.raises(NotFound, match=said) as told:
        version_of(Endpoint("e", model=model), registry("late"), gated={"late"})
    assert told.value.fix == fix


def test_a_rollout_gives_its_candidate_a_share_and_moves_no_alias() -> None:
    versions, endpoint = registry("late"), Endpoint("late", model="late@champion")
    move(versions, "late", None, "1")
    [before] = routes_for([endpoint], versions, gated=())
    [during] = routes_for([endpoint], versions, gated=(), rollouts=[begun()])
    assert during.arms == (Arm("1", "1" * 64, 0.95), Arm("2", "2" * 64, 0.05))
    assert (during.rollout, during.assign, during.salt) == ("r1", "request", "s")
    assert versions.get("late", "champion").version == "1"
    assert routes_for([endpoint], versions, gated=()) == [before]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_an_arm_without_a_share_is_kept_loaded_unless_it_is_a_shadows(share: float) -> None:
    versions = registry("late")
    move(versions, "late", None, "1")
    state = begun(share)
    [route] = routes_for([Endpoint("late", model="late@champion")], versions, gated=(), rollouts=[state])
    assert [(arm.version, arm.weight) for arm in route.arms] == [("1", 1 - share), ("2", share)]
    shadow = msgspec.structs.replace(begun(0.0), plan=ms.Rollout("late", kind="shadow").plan)
    [route] = routes_for([Endpoint("late", model="late@champion")], versions, gated=(), rollouts=[shadow])
    assert [(arm.version, arm.weight) for arm in route.arms] == [("1", 1.0)]


def test_a_champion_that_moved_during_a_rollout_has_every_request() -> None:
    versions = registry("late")
    move(versions, "late", None, "1")
    move(versions, "late", "1", "2")
    [route] = routes_for([Endpoint("late", model="late@champion")], versions, gated=(), rollouts=[begun()])
    assert (route.arms, route.rollout) == ((Arm("2", "2" * 64, 1.0),), "")


def test_whoever_publishes_publishes_what_the_live_rollouts_say() -> None:
    catalog = memory_catalog()
    versions, routes, store = registry("late"), CatalogRoutes(catalog), CatalogRollouts(catalog)
    endpoints = [Endpoint("late", model="late@champion")]
    move(versions, "late", None, "1")
    publish(endpoints, versions, routes, gated=(), rollouts=store.live)
    before = routes.current()["late"]
    state = store.create(*rollout())
    state = store.replace(msgspec.structs.replace(begun(), revision=state.revision))
    first = publish(endpoints, versions, routes, gated=(), rollouts=store.live)
    assert publish(endpoints, versions, routes, gated=(), rollouts=store.live) == first
    assert [arm.weight for arm in routes.current()["late"].arms] == [0.95, 0.05]
    store.replace(intervened(state, "stop", "ben", "", 1)[0])
    publish(endpoints, versions, routes, gated=(), rollouts=store.live)
    assert msgspec.structs.replace(routes.current()["late"], revision=before.revision) == before
