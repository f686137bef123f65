"""Conformance suite of routing tables. Derive a test class and give it a fixture `routes`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

from mainspring.core.errors import Conflict, Invalid
from mainspring.serving.model import Arm, Route, Shed
from mainspring.serving.ports import Routes


def route(endpoint: str, *versions: str) -> Route:
    """Return a route with an arm a version, of equal weights."""
    arms = tuple(Arm(version, version * 64) for version in versions)
    return Route(endpoint=endpoint, model="late-arrival", arms=arms, deadline_us=50_000, max_queue_rows=64)


class RoutesConformance:
    """An empty routing table. `same` is another view of it, as another process would open."""

    def test_nothing_is_published_at_first(self, routes: Routes) -> None:
        assert routes.revision() == 0
        assert routes.current() == {}

    def test_a_table_is_replaced_whole(self, routes: Routes) -> None:
        routes.publish([route("a", "1"), route("b", "1")])
        routes.publish([route("b", "2"), route("c", "1", "2")])
        table = routes.current()
        assert sorted(table) == ["b", "c"]
        assert [arm.version for arm in table["c"].arms] == ["1", "2"]
        assert {each.revision for each in table.values()} == {routes.revision()}

    def test_an_equal_table_keeps_its_revision(self, routes: Routes) -> None:
        first = routes.publish([route("a", "1"), route("b", "1")])
        assert routes.publish([route("b", "1"), route("a", "1")]) == first
        assert routes.publish(list(routes.current().values())) == first
        assert routes.publish([route("a", "1"), route("b", "2")]) == first + 1

    def test_publishing_nothing_is_a_change_too(self, routes: Routes) -> None:
        assert routes.publish([]) == 1
        routes.publish([route("a", "1")])
        assert routes.publish([]) == 3
        assert routes.current() == {}

    @pytest.mark.parametrize("wrong", [[route("a")], [route("a", "1"), route("a", "2")]])
    def test_a_table_that_cannot_be_served_is_refused_whole(self, routes: Routes, wrong: list[Route]) -> None:
        routes.publish([route("a", "1")])
        with pytest.raises(Invalid, match="'a'"):
            routes.publish(wrong)
        assert [arm.version for arm in routes.current()["a"].arms] == ["1"]

    def test_a_rollout_is_kept_and_its_weights_are_shares(self, routes: Routes) -> None:
        arms = (Arm("1", "1" * 64, 0.9), Arm("2", "2" * 64, 0.1))
        wanted = msgspec.structs.replace(route("a"), arms=arms, rollout="r1", assign="request", salt="grain")
        routes.publish([wanted])
        assert routes.current()["a"] == msgspec.structs.replace(wanted, revision=1)
        assert routes.publish([msgspec.structs.replace(wanted, salt="other")]) == 2

    def test_a_shed_is_kept_and_is_a_share(self, routes: Routes) -> None:
        wanted = msgspec.structs.replace(route("a", "1"), shed=Shed(share=0.25, until=7, salt="incident"))
        assert [routes.publish([route("a", "1")]), routes.publish([wanted])] == [1, 2]
        assert routes.current()["a"] == msgspec.structs.replace(wanted, revision=2)
        for share in (0.0, 1.5):
            with pytest.raises(Invalid):
                routes.publish([msgspec.structs.replace(wanted, shed=Shed(share=share, until=7))])
        assert routes.publish([route("a", "1")]) == 3

    @pytest.mark.parametrize(
        "changes",
        [
            {"arms": (Arm("1", "1" * 64, 0.9), Arm("2", "2" * 64, 0.2))},
            {"arms": (Arm("1", "1" * 64, 0.5), Arm("1", "2" * 64, 0.5))},
            {"assign": "coin"},
            {"rollout": "no id/"},
            {"arms": (Arm("1", "1" * 64, 1.5), Arm("2", "2" * 64, -0.5))},
        ],
        ids=["no shares", "one version twice", "no unit", "no id", "a negative weight"],
    )
    def test_a_rollout_that_cannot_be_assigned_is_refused(self, routes: Routes, changes: dict[str, Any]) -> None:
        arms = (Arm("1", "1" * 64, 0.5), Arm("2", "2" * 64, 0.5))
        wrong = msgspec.structs.replace(route("a"), **{"arms": arms, "rollout": "r1", **changes})
        with pytest.raises(Invalid):
            routes.publish([wrong])
        assert routes.revision() == 0

    def test_what_follows_from_an_older_table_is_not_published(self, routes: Routes) -> None:
        first = routes.publish([route("a", "1")], after=0)
        routes.publish([route("a", "2")], after=first)
        with pytest.raises(Conflict, match="revision 2, not 1"):
            routes.publish([route("a", "1")], after=first)
        assert [arm.version for arm in routes.current()["a"].arms] == ["2"]

    def test_another_view_sees_it(self, routes: Routes, same: Callable[[], Routes]) -> None:
        revision = routes.publish([route("a", "1")])
        other = same()
        assert (other.revision(), other.current()) == (revision, routes.current())

    def test_publishers_at_once_each_get_a_revision_of_their_own(self, same: Callable[[], Routes]) -> None:
        with ThreadPoolExecutor(4) as threads:
            revisions = list(threads.map(lambda number: same().publish([route("a", f"{number}")]), range(12)))
        assert sorted(revisions) == list(range(1, 13))
