"""A rollout behind real gateway processes, under load: controllers, workers and gateways are killed at every point.

Each request meets a state that the plan has reached, each answered one is in the log, and the rollout ends as if nobody
had been killed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import pytest

import mainspring as ms
from death.conftest import Nursery, there
from integration.test_rollout_routes import until_all_follow
from kit.depth import deep, examples
from kit.fleet import BODY, COLUMNS, INFER, Fleet
from kit.load import Load
from kit.rollouts import BAD, BIASES, ENDPOINT, GOOD, MODEL, Skewed, begun, made, opened
from kit.serving import expected
from kit.waiting import wait_until
from mainspring.core.time import HOUR
from mainspring.delivery.rollout.model import LIVE, Look, RolloutState
from mainspring.operations.promote import publish_routes
from mainspring.operations.rollout import interventions
from mainspring.operations.rollout.carrying_out import controller
from mainspring.project import Project

EVERYTHING = 1_000_000
SHORT = ms.Rollout(ENDPOINT, steps=(0.5,), hold="0s", least_requests=20, guards=[ms.guards.errors(at_most=0.9)])
POINTS = ["begin", "decided", "stored", "published", "recorded"]  # of a controller's look that decides
# Of a worker.
CALLS = [
    f"{when}-{call}"
    for call in ("rollouts.replace", "routes.publish", "audit.append", "versions.set_alias")
    for when in ("before", "after")
]
# Who is suspended where while a rollout is stopped, and dies where when it goes on.
SUSPENDED = [
    ("before-routes.publish", "after-routes.publish"),
    ("", "recorded"),
    ("decided", ""),
    ("promoting", ""),
][: examples(gate=2, deep=4)]


@dataclass
class Watched:
    """A fleet under load, whose routing table is read all the time."""

    fleet: Fleet
    load: Load
    project: Project
    routings: list[tuple[str, float]] = field(default_factory=list)  # rollout, share of the version that is not "1"
    steady: list[tuple[float, float, str]] = field(default_factory=list)  # from, until, rollout of all requests
    stop: threading.Event = field(default_factory=threading.Event)

    def read(self) -> None:
        while not self.stop.wait(examples(gate=0.01, deep=0.002)):
            route = self.project.routes.current()[ENDPOINT]
            seen = route.rollout, sum(arm.weight for arm in route.arms if arm.version != "1")
            if self.routings[-1:] != [seen]:
                self.routings.append(seen)

    def until_all_follow(self) -> None:
        until_all_follow(self.fleet, self.project.routes.revision())

    @contextmanager
    def steadily(self) -> Iterator[None]:
        """Note that all requests inside the block are to follow the routes of now, which all processes follow."""
        self.until_all_follow()
        began, rollout = time.monotonic(), self.project.routes.current()[ENDPOINT].rollout
        yield
        self.load.until_answered(20)
        self.steady.append((began, time.monotonic(), rollout))


@contextmanager
def watched(root: Path, clock: str = "system") -> Iterator[Watched]:
    fleet = Fleet(root, workers=2, settings={"clock": clock})
    with (root / "mainspring.toml").open("a") as settings:
        settings.write(f'[profiles.local]\nclock = "{clock}"\n')
    made(root).close()
    answers = {version: expected(COLUMNS, bias) for version, bias in BIASES.items()}

    def right(document: dict) -> bool:
        wanted = answers[document["model_version"]]
        return all(abs(a - b) < 1e-5 for a, b in zip(document["outputs"][0]["data"], wanted, strict=True))

    with fleet.up():
        load = Load(fleet.connect, INFER, fleet.key, lambda _: BODY, right=right, threads=3, pause_s=0.03)
        seen = Watched(fleet, load, opened(root))
        reading = threading.Thread(target=seen.read)
        reading.start()
        try:
            with load:
                load.until_answered(100)
                yield seen
        finally:
            seen.stop.set()
            reading.join()


def check(seen: Watched, *states: RolloutState, dated: bool = True) -> None:
    """Compare all that was observed with the states that the rollouts have reached, in their order.

    Args:
        dated: Whether clocks told the time.
    """
    project, root = seen.project, seen.fleet.root
    assert not (root / "errors").exists(), (root / "errors").read_text()
    looks = {state.id: project.rollouts.looks(state.id) for state in states}
    for state in states:
        check_record(project, state, looks[state.id])
    # The routing table, at every moment: champion, the shares of the first rollout, and so on.
    reached = [("", 0.0)]
    for state in states:
        reached += [(state.id, look.share) for look in looks[state.id] if look.status in LIVE]
        reached.append(("", float(state.status == "done")))
    left = iter(reached)
    assert all((id, pytest.approx(share)) in left for id, share in seen.routings), (seen.routings, reached)
    # The log: every answer once, by the version that answered it, at a share that was decided before.
    project.predictions.compact()
    logged = {each.id: each for each in project.predictions.recent(ENDPOINT, EVERYTHING)}
    for answer in seen.load.answered:
        now = [rollout for began, until, rollout in seen.steady if began <= answer.at - answer.took_s < until]
        for id in answer.document["parameters"]["prediction_ids"]:
            assert logged[id].version == answer.document["model_version"]
            assert all(logged[id].rollout == rollout for rollout in now), (logged[id], now)
    decided = {state.id: {round(look.share, 6): look.at for look in reversed(looks[state.id])} for state in states}
    candidates = {state.id: state.candidate for state in states}
    for each in logged.values():
        if each.rollout:
            share = each.weight if each.version == candidates[each.rollout] else 1 - each.weight
            assert decided[each.rollout][round(share, 6)] <= each.at or not dated, each
        else:
            assert each.version == "1" or states[-1].status == "done"
    assert seen.load.refused == []


def check_record(project: Project, state: RolloutState, looks: list[Look]) -> None:
    """Each decision is there once, in the looks and in the audit log; the alias moved at most once."""
    assert [look.number for look in looks] == list(range(1, len(looks) + 1))
    decisions = [look.decision for look in looks if look.decision != "continue"]
    good = ["start", "begin", *["step"] * (len(state.plan.steps) - 1), "promote", "done"]
    if state.status == "done":
        assert decisions == good
    else:
        assert decisions[:-1] == good[: len(decisions) - 1]
        assert looks[-1].status == state.status
    events = [event for event in project.audit.read(1_000) if event.detail.startswith(state.id)]
    assert sorted(event.detail.split(": ")[1] for event in events) == sorted(decisions)
    moves = [move for move in project.versions.moves(MODEL, "champion") if state.id in move.reason]
    assert len(moves) == (state.status == "done")


def carried_out(
    seen: Watched, nursery: Nursery, *slots: Sequence[str], role: str = "controller", gateways: Sequence[str] = ()
) -> RolloutState:
    """Let each slot have one process after another, each killed at the slot's next point, then one that nobody kills.

    Args:
        gateways: Processes of the gateway to kill too, one after each two deaths, while nobody carries the rollout out.
    """
    running: dict[int, int] = {}
    left, others, deaths = [iter(points) for points in slots], iter(gateways), 0
    while seen.project.rollouts.live():
        for slot, points in enumerate(left):
            if slot not in running or not there(running[slot]):
                running[slot] = nursery.fork(seen.fleet.root, next(points, ""), role)
                deaths += 1
        wait_until(
            lambda: not seen.project.rollouts.live() or not all(map(there, running.values())), "a death, or the end"
        )
        if deaths >= 4 and (name := next(others, "")):
            nursery.kill(*running.values())
            deaths = 2
            kill_gateway(seen, name)
    nursery.until_gone(*running.values())
    controller(seen.project).tick()  # of one that begins anew: it records what another could not
    seen.until_all_follow()
    [state] = seen.project.rollouts.find(limit=1)
    return state


def kill_gateway(seen: Watched, name: str) -> None:
    """Kill a process of the gateway; its successor answers by the newest routes from its first answer on."""
    publish_routes(seen.project)  # which one that died may have left to the next
    with seen.steadily():
        seen.fleet.until_replaced(name, seen.fleet.kill(name))
        seen.until_all_follow()


@pytest.mark.parametrize("turned", examples(gate=(0,), deep=range(len(POINTS))))
def test_two_controllers_and_the_gateways_are_killed_during_rollouts(
    turned: int, tmp_path: Path, nursery: Nursery
) -> None:
    points = [*POINTS[turned:], *POINTS[:turned]]
    with watched(tmp_path / "project") as seen:
        begun(opened(seen.fleet.root, BAD), "3")
        first = carried_out(seen, nursery, points[2:4], points[1:6:4])
        kill_gateway(seen, "gateway")
        begun(opened(seen.fleet.root, GOOD), "2")
        second = carried_out(seen, nursery, [*points, "promoting"], [*points[1:4], "done"], gateways=["gateway-1"])
        seen.load.until_answered(30)
    assert (first.status, second.status) == ("rolled back", "done"), (first.why, second.why)
    check(seen, first, second)
    assert deaths(seen) >= 7


@deep
def test_a_worker_and_the_gateways_are_killed_around_each_call_that_changes_something(
    tmp_path: Path, nursery: Nursery
) -> None:
    with watched(tmp_path / "project") as seen:
        begun(opened(seen.fleet.root, BAD), "3")
        first = carried_out(seen, nursery, CALLS[:-2], role="worker", gateways=["gateway"])
        begun(opened(seen.fleet.root, SHORT), "2")
        second = carried_out(seen, nursery, CALLS, role="worker", gateways=["gateway-1"])
    assert (first.status, second.status) == ("rolled back", "done"), (first.why, second.why)
    check(seen, first, second)
    assert deaths(seen) >= 10


def deaths(seen: Watched) -> int:
    return len((seen.fleet.root / "deaths").read_text().splitlines())


def stopped(seen: Watched) -> RolloutState:
    """Stop the rollout as its command does; return it when every process of the gateway has followed."""
    state = interventions.end(seen.project, ENDPOINT, "stop", reason="lunch")
    seen.until_all_follow()
    return state


def test_a_stop_waits_for_no_controller_and_what_was_suspended_changes_nothing(
    tmp_path: Path, nursery: Nursery
) -> None:
    with watched(tmp_path / "project", clock="replay") as seen:
        root, states = seen.fleet.root, []
        hours = cycle((3, 0, -5, 1, 0))
        for suspended, point in SUSPENDED:
            for clock in (seen.project.clock, Skewed(root / "skew")):
                clock.set(time.time_ns() // 1000 + next(hours) * HOUR)  # what the controller or the gateways see
            begun(opened(root, SHORT), "2")
            victim = nursery.fork(root, point, suspended=suspended)
            nursery.until_stopped(victim) if suspended else nursery.until_gone(victim)
            states.append(stopped(seen))
            with seen.steadily():
                if suspended:
                    nursery.wake(victim)
                    nursery.until_gone(victim)
        digest = states[-1].candidate_digest
        begun(opened(root, GOOD), "2")
        nursery.until_gone(nursery.fork(root, "recorded"))
        seen.until_all_follow()
        seen.project.blobs.delete(digest)
        seen.fleet.until_replaced("gateway-1", seen.fleet.kill("gateway-1"))  # it cannot load the candidate
        seen.load.until_answered(20)
        nursery.until_gone(nursery.fork(root))
        with seen.steadily():
            [lost] = seen.project.rollouts.find(limit=1)
    assert {state.status for state in states} == {"stopped"}
    assert lost.status == "failed"
    assert "cannot be served" in lost.why
    check(seen, *states, lost, dated=False)
