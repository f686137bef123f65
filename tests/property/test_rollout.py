"""Rollouts under any order of events: clocks that jump, controllers that die between two effects, two of them at once.

The routing is always one that the plan allows, the candidate never has more than its step's share, and the stored looks
explain every state.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kit.auditing import audit_log
from kit.depth import examples
from mainspring.core.errors import Conflict, NotFound
from mainspring.core.time import DAY, MINUTE, ManualClock
from mainspring.delivery.adapters.catalog import CatalogRollouts
from mainspring.delivery.conformance import rollout
from mainspring.delivery.model import Promotion
from mainspring.delivery.rollout.controller import Controller
from mainspring.delivery.rollout.deciding import LONGEST_GAP, intervened
from mainspring.delivery.rollout.model import Counts, Evidence, Observed, Reading, RolloutState, Status
from mainspring.delivery.rollout.plan import Plan
from mainspring.delivery.routing import publish, routes_for
from mainspring.project.catalog import memory_catalog
from mainspring.registry.adapters.memory import MemoryVersions
from mainspring.registry.model import AliasMove
from mainspring.serving.adapters.catalog import CatalogRoutes
from mainspring.serving.model import Endpoint

POINTS = ("begin", "decided", "stored", "published", "recorded", "promoting", "promoted", "done")
ENDPOINTS = [Endpoint("late", model="late@champion")]
PLAN = Plan(endpoint="late", hold_us=2 * MINUTE, least_requests=20, longest_us=2 * 60 * MINUTE)


class Killed(BaseException):
    """The process ends here."""


class World:
    """What a controller sees, in memory: requests come, guards are breached, bundles are lost when the test says so."""

    def __init__(self) -> None:
        catalog = memory_catalog()
        self.store, self.routes, self.audit = CatalogRollouts(catalog), CatalogRoutes(catalog), audit_log(catalog)
        self.versions, self.clock = MemoryVersions(), ManualClock(DAY)
        for digest in ("1" * 64, "2" * 64, "3" * 64):
            self.versions.register("late", digest, "r", {}, 0)
        self.move("1")
        self.requests, self.harmed, self.there, self.gates = 0, False, True, True

    @property
    def alias(self) -> str:
        try:
            return self.versions.get("late", "champion").version
        except NotFound:
            return ""

    def move(self, version: str) -> None:
        self.versions.set_alias(
            AliasMove("late", "champion", self.alias or None, version, "ana", "promote", self.clock.now())
        )

    def champion(self, state: RolloutState) -> str:
        assert state.endpoint == "late"
        return self.alias

    def check(self, state: RolloutState) -> None:
        if not self.there:
            raise NotFound(f"The bundle {state.candidate_digest} is gone.")

    def observe(self, state: RolloutState) -> Evidence:
        return msgspec.structs.replace(state.evidence, requests=(Counts(0.05, self.requests, 9 * self.requests),))

    def judge(self, state: RolloutState, evidence: Evidence) -> Observed:
        assert state.live
        reading = Reading(
            guard="errors", breach=self.harmed, safe=not self.harmed, estimate=9.0 if self.harmed else 1.0
        )
        return Observed(candidate=evidence.candidate, control=evidence.control, readings=(reading,))

    def promote(self, state: RolloutState) -> Promotion:
        before = self.alias
        if self.gates and before != state.candidate:
            self.move(state.candidate)
        self.publish()
        return Promotion(
            model="late", version=state.candidate, previous=before, promoted=self.gates or before == "2", results=()
        )

    def publish(self) -> None:
        publish(ENDPOINTS, self.versions, self.routes, gated=(), rollouts=self.store.live)

    def controller(self, at: Callable[[str], None] = lambda _: None) -> Controller:
        return Controller(self.store, self, self.audit, self.clock, at=at)


class Rollouts(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.world.publish()
        self.number = 0
        self.candidates_at: dict[tuple[str, int], int] = {}
        self.stale: list[float] = [0.0]  # shares that a table may still have: of states since the last publication

    def _published(self) -> None:
        self.stale = [self._share()]

    def _share(self) -> float:
        [route] = routes_for(ENDPOINTS, self.world.versions, gated=(), rollouts=self.world.store.live())
        return sum(arm.weight for arm in route.arms if arm.version == "2")

    @rule()
    def start(self) -> None:
        if self.world.alias == "2":
            self.world.move("1")
        self.number += 1
        state, look = rollout(f"r{self.number}", at=self.world.clock.now())
        champion = self.world.alias
        state = msgspec.structs.replace(state, plan=PLAN, champion=champion, champion_digest=champion * 64)
        there = self.world.store.live()
        try:
            self.world.store.create(state, look)
        except Conflict:
            assert there
        else:
            assert not there
            self.world.requests, self.world.harmed, self.world.there, self.world.gates = 0, False, True, True

    @rule(number=st.integers(1, 60))
    def requests_come(self, number: int) -> None:
        self.world.requests += number

    @rule(us=st.sampled_from([1, MINUTE, 3 * MINUTE, 400 * DAY, -400 * DAY, -MINUTE]))
    def time_passes_or_the_clock_jumps(self, us: int) -> None:
        self.world.clock.set(max(0, self.world.clock.now() + us))

    @rule(which=st.sampled_from(["harmed", "there", "gates"]))
    def something_goes_wrong(self, which: str) -> None:
        setattr(self.world, which, which == "harmed")

    @rule(dies_at=st.sampled_from([None, *POINTS]), other_at=st.sampled_from([None, None, *POINTS]))
    def a_controller_looks(self, dies_at: str | None, other_at: str | None) -> None:
        """And dies at a point, or another one looks in between."""

        def at(point: str) -> None:
            self.stale.append(self._share())
            if point == other_at:
                self.world.controller().tick()
            if point == dies_at:
                raise Killed

        self.stale.append(self._share())
        with suppress(Killed):
            self.world.controller(at).tick()
        self.stale.append(self._share())  # also of what the other one has published

    @rule(minutes=st.integers(2, 6))
    def a_controller_goes_on(self, minutes: int) -> None:
        controller = self.world.controller()
        for _ in range(minutes):
            self.world.clock.advance(LONGEST_GAP)
            self.world.requests += 5
            controller.tick()
            self.stale.append(self._share())

    @precondition(lambda self: self.world.store.live())
    @rule(action=st.sampled_from(["stop", "roll back", "promote"]))
    def a_person_intervenes(self, action: str) -> None:
        [state] = self.world.store.live()
        if action == "promote" and state.status is Status.PENDING:
            return
        made, look = intervened(state, action, "ben", "", self.world.clock.now())
        self.world.store.replace(made, [look])
        self.stale.append(self._share())

    @rule()
    def somebody_promotes_another_version(self) -> None:
        if self.world.alias != "3":
            self.world.move("3")
        self.stale.append(self._share())

    @rule()
    def anybody_publishes(self) -> None:
        self.world.publish()
        self._published()

    @invariant()
    def the_routing_is_one_that_a_plan_allows(self) -> None:
        route = self.world.routes.current()["late"]
        mine = sum(arm.weight for arm in route.arms if arm.version == "2")
        assert mine in {0.0, 1.0, *PLAN.steps}
        assert sum(arm.weight for arm in route.arms) == 1.0
        assert mine in (*self.stale, self._share())
        if mine == 1.0:  # it is, or was until the alias moved on, the champion
            assert any(move.new == "2" for move in self.world.versions.moves("late"))

    @invariant()
    def no_candidate_has_more_than_its_steps_share_and_looks_explain_every_state(self) -> None:
        for state in self.world.store.find():
            looks = self.world.store.looks(state.id)
            assert [look.number for look in looks] == list(range(1, state.looks + 1))
            last = looks[-1]
            assert (last.status, last.step, last.share) == (state.status, state.step, state.share)
            assert state.share <= PLAN.allowed(state.step)
            assert state.live or (state.ended_at is not None and (state.share == 0.0 or state.status is Status.DONE))
            for before, after in pairwise(looks):
                assert before.status in (Status.PENDING, Status.RUNNING, Status.WAITING, Status.PROMOTING)
                assert after.step - before.step == (after.decision == "step")
                if after.status is not before.status:
                    assert after.decision != "continue"
                    assert after.why or after.actor == "ben"
            steps = [look.candidate for look in looks if look.decision in ("begin", "step")]
            assert all(later - earlier >= PLAN.least_requests for earlier, later in pairwise(steps))
            assert state.watched_us >= state.step * PLAN.hold_us

    def teardown(self) -> None:
        """Every decision reaches the audit log and the routes once a controller lives."""
        self.world.publish()
        self.world.controller().tick()
        self.world.publish()
        assert (
            self.world.routes.current()["late"].arms
            == routes_for(ENDPOINTS, self.world.versions, gated=(), rollouts=self.world.store.live())[0].arms
        )
        told = [event.detail for event in self.world.audit.read(1_000)]
        for state in self.world.store.find():
            for look in self.world.store.looks(state.id):
                if look.decision != "continue":
                    assert any(detail.startswith(f"{state.id}: {look.decision}") for detail in told)


TestRollouts = Rollouts.TestCase
TestRollouts.settings = settings(max_examples=examples(gate=15, deep=400), stateful_step_count=30, deadline=None)
