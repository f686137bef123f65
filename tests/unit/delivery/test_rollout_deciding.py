"""Decisions of a rollout: what its plan and its evidence say, whatever the clock does."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

import mainspring as ms
from mainspring.core.errors import Conflict
from mainspring.core.time import DAY, MINUTE, SECOND
from mainspring.delivery.conformance import rollout
from mainspring.delivery.rollout.deciding import LONGEST_GAP, intervened, looked
from mainspring.delivery.rollout.model import Look, Observed, Reading, RolloutState, Status
from mainspring.delivery.rollout.plan import Plan

WELL = Reading(guard="errors", safe=True, estimate=1.0, low=0.8, high=1.2, limit=1.5)
UNSURE = msgspec.structs.replace(WELL, safe=False, high=3.0)
WORSE = Reading(guard="errors", breach=True, estimate=4.0, low=2.0, high=9.0, limit=1.5, candidate=8, control=20)
PLAN = ms.Rollout("late", hold="10m", least_requests=100, longest="1d").plan


def begun(plan: Plan = PLAN) -> RolloutState:
    state = msgspec.structs.replace(rollout()[0], plan=plan)
    made, look = looked(state, Observed(champion="1"), 0)
    assert look is not None
    assert (made.status, made.share, look.decision) == (Status.RUNNING, plan.steps[0], "begin")
    return made


def go_on(state: RolloutState, seen: Observed, us: int, every: int = LONGEST_GAP) -> tuple[RolloutState, list[Look]]:
    """Look every minute for so long."""
    looks = []
    assert state.looked_at is not None
    for now in range(state.looked_at + every, state.looked_at + us + 1, every):
        state, look = looked(state, seen, now)
        looks += [look] if look else []
    return state, looks


def seen(candidate: int, *readings: Reading, control: int = 1_000, **more: Any) -> Observed:
    return Observed(champion="1", candidate=candidate, control=control, readings=readings or (WELL,), **more)


def test_a_healthy_candidate_takes_each_step_after_its_hold_and_its_requests() -> None:
    state, shares = begun(), []
    for candidate in (100, 200, 300):
        early, _ = go_on(state, seen(candidate), 9 * MINUTE)
        assert (early.step, early.status) == (state.step, Status.RUNNING)
        state, looks = go_on(early, seen(candidate), MINUTE)
        shares.append(state.share)
    assert shares == [0.25, 0.5, 0.5]
    assert state.status is Status.PROMOTING
    assert "errors 1x (0.8 to 1.2; tolerated 1.5x" in looks[-1].why


def test_no_step_without_its_own_requests() -> None:
    state, _ = go_on(begun(), seen(99), 60 * MINUTE)
    assert (state.step, state.share) == (0, 0.05)
    state, _ = go_on(state, seen(100), MINUTE)
    assert (state.step, state.share) == (1, 0.25)
    state, _ = go_on(state, seen(199), 60 * MINUTE)
    assert state.step == 1


@pytest.mark.parametrize("status", [Status.RUNNING, Status.WAITING])
def test_a_breach_ends_it_at_once_with_its_numbers(status: Status) -> None:
    state = msgspec.structs.replace(begun(), status=status)
    made, look = looked(state, seen(8, WELL, WORSE), 1)
    assert look is not None
    assert (made.status, made.share, made.ended_at) == (Status.ROLLED_BACK, 0.0, 1)
    assert made.why == look.why == "errors 4x (2 to 9; tolerated 1.5x; 8 candidate, 20 champion)"


def test_without_proof_there_is_no_success_and_the_end_says_what_was_not_proved() -> None:
    unlabelled = Reading(guard="quality brier", note="no label came")
    one_step = msgspec.structs.replace(PLAN, steps=(0.5,))
    state, _ = go_on(begun(one_step), seen(10_000, UNSURE, unlabelled), DAY)
    assert (state.status, state.share) == (Status.INCONCLUSIVE, 0.0)
    assert state.why == (
        "no decision within 1d: errors 1x (0.8 to 3; tolerated 1.5x; 0 candidate, 0 champion); "
        "quality brier: no label came"
    )


def test_an_arm_without_traffic_is_told() -> None:
    quiet, _ = go_on(begun(), Observed(champion="1"), DAY)
    assert quiet.why == "no decision within 1d: no request came"
    few, _ = go_on(begun(), seen(7), DAY)
    assert few.why == "no decision within 1d: 93 of the candidate's 100 requests of step 1 are missing"
    ratio = Reading(guard="sample ratio", breach=True, estimate=0.0, low=0.0, high=0.1)
    unreached, _ = looked(begun(), seen(0, sample_ratio=ratio), 1)
    assert unreached.status is Status.FAILED
    assert unreached.why == "no request of 1000 reached version 2: no gateway has loaded it"


def test_a_gateway_that_cannot_load_the_candidate_is_told_after_a_minute() -> None:
    unserved = Observed(champion="1", unchosen=200)
    state, _ = go_on(begun(), unserved, MINUTE - SECOND, SECOND)
    assert state.status is Status.RUNNING
    state, _ = go_on(state, unserved, SECOND, SECOND)
    assert (state.status, state.share) == (Status.FAILED, 0.0)
    assert state.why.startswith("no gateway serves version 2: 200 requests came, and each went to version 1 alone")
    assert go_on(begun(), Observed(champion="1", unchosen=20), 2 * MINUTE)[0].status is Status.RUNNING


def test_it_does_not_begin_while_a_gateway_has_not_loaded_the_candidate() -> None:
    pending = msgspec.structs.replace(rollout()[0], plan=PLAN)
    waiting = Observed(champion="1", waiting="gateway-1")
    state, look = looked(pending, waiting, 0)
    assert (state.status, state.share, look) == (Status.PENDING, 0.0, None)
    slow, looks = go_on(state, waiting, DAY - MINUTE)
    assert (slow.status, looks) == (Status.PENDING, [])
    ended, _ = go_on(slow, waiting, MINUTE)
    assert (ended.status, ended.why) == (
        Status.INCONCLUSIVE,
        "no decision within 1d: gateway-1 did not load version 2",
    )
    begun_late, _ = looked(slow, Observed(champion="1"), DAY)
    assert (begun_late.status, begun_late.share) == (Status.RUNNING, 0.05)


def test_a_gateway_that_cannot_load_the_candidate_ends_it_before_it_began() -> None:
    pending = msgspec.structs.replace(rollout()[0], plan=PLAN)
    unable = Observed(champion="1", unable="gateway-1 cannot load it: torch is not installed")
    state, _ = looked(pending, unable, 0)
    state, looks = go_on(state, unable, MINUTE - SECOND, SECOND)
    assert (state.status, looks) == (Status.PENDING, [])  # it may have been out of memory for a moment
    assert looked(state, Observed(champion="1"), MINUTE)[0].status is Status.RUNNING
    state, _ = go_on(state, unable, SECOND, SECOND)
    assert (state.status, state.share) == (Status.FAILED, 0.0)
    assert state.why == "version 2 cannot be served: gateway-1 cannot load it: torch is not installed"


def test_a_blue_green_switch_waits_for_the_champions_errors_but_not_for_long() -> None:
    plan = ms.Rollout("late", kind="blue-green", least_requests=100).plan
    pending = msgspec.structs.replace(rollout()[0], plan=plan)
    state, look = looked(pending, Observed(champion="1", reference=99), 0)
    assert (state.status, look) == (Status.PENDING, None)
    assert looked(state, Observed(champion="1", reference=100), SECOND)[0].share == 1.0
    state, _ = go_on(state, Observed(champion="1", reference=0), MINUTE)
    assert (state.status, state.share) == (Status.RUNNING, 1.0)


def test_requests_before_it_began_do_not_end_it() -> None:
    waited, _ = looked(msgspec.structs.replace(rollout()[0], plan=PLAN), Observed(waiting="gateway", champion="1"), 0)
    waited, _ = go_on(waited, Observed(waiting="gateway", champion="1"), 5 * MINUTE)
    state, _ = looked(waited, Observed(champion="1", unchosen=200), 5 * MINUTE + SECOND)
    assert go_on(state, Observed(champion="1", unchosen=200), SECOND, SECOND)[0].status is Status.RUNNING


def test_shares_that_do_not_fit_end_it() -> None:
    ratio = Reading(guard="sample ratio", breach=True, estimate=0.5, low=0.3, high=0.8, candidate=20, control=900)
    made, _ = looked(begun(), seen(20, control=900, sample_ratio=ratio), 1)
    assert made.status is Status.FAILED
    assert "20 of 920 reached version 2" in made.why


def test_a_clock_that_jumps_moves_nothing_on() -> None:
    state = begun()
    for now in (365 * DAY, 0, -5 * DAY, 3650 * DAY):
        state, _ = looked(state, seen(5_000), now)
        assert (state.step, state.status) == (0, Status.RUNNING)
    assert state.watched_us == 2 * LONGEST_GAP
    state, _ = go_on(state, seen(5_000), 10 * MINUTE)
    assert state.step == 1


def test_a_candidate_that_cannot_be_served_ends_it() -> None:
    made, _ = looked(begun(), seen(5, lost="its bundle is gone"), 1)
    assert (made.status, made.why) == (Status.FAILED, "version 2 cannot be served: its bundle is gone")


@pytest.mark.parametrize(
    ("champion", "status", "why"),
    [
        ("2", Status.DONE, "version 2 is champion: it was promoted outside of the rollout"),
        ("3", Status.STOPPED, "the endpoint now serves version 3, not version 1"),
        ("", Status.STOPPED, "the endpoint now serves nothing, not version 1"),
    ],
)
def test_a_champion_that_moves_ends_it(champion: str, status: Status, why: str) -> None:
    made, _ = looked(begun(), Observed(champion=champion), 1)
    assert (made.status, made.why) == (status, why)


def test_a_goal_decides_an_experiment_and_hopelessness_ends_it() -> None:
    plan = ms.Rollout("late", kind="ab", goals=[ms.guards.outcome("paid", effect=0.1)], hold="1m").plan
    state = begun(plan)
    better = Reading(guard="outcome paid", unit="difference", safe=True, estimate=0.2, low=0.1, high=0.3, limit=0.0)
    hopeless = msgspec.structs.replace(better, safe=False, futile=True, low=-0.02, high=0.04, estimate=0.01)
    unsure = msgspec.structs.replace(better, safe=False, low=-0.3)
    assert go_on(state, seen(500, goals=(better,)), MINUTE)[0].status is Status.WAITING
    assert go_on(state, seen(500, goals=(unsure,)), MINUTE)[0].status is Status.RUNNING
    ended, _ = go_on(state, seen(500, goals=(hopeless,)), MINUTE)
    assert ended.status is Status.INCONCLUSIVE
    assert ended.why.startswith("no improvement that matters: outcome paid 0.01 (-0.02 to 0.04; tolerated 0;")


def test_a_bandit_stays_above_its_floor() -> None:
    plan = ms.Rollout("late", kind="bandit", goals=[ms.guards.quality("brier")], floor=0.2).plan
    state = begun(plan)
    for share, wanted in ((0.76, 0.76), (0.99, 0.8), (0.79, 0.8), (0.0, 0.2), (0.22, 0.2), (0.5, 0.5)):
        state, _ = looked(state, seen(5, share=share), 1)
        assert state.share == wanted


def test_a_person_ends_what_lives_and_nothing_else() -> None:
    stopped, look = intervened(begun(), "stop", "ben", "lunch", 7)
    assert (stopped.status, stopped.share, stopped.ended_at) == (Status.STOPPED, 0.0, 7)
    assert (look.actor, look.why, look.decision) == ("ben", "lunch", "stop")
    with pytest.raises(Conflict, match="has ended: stopped"):
        intervened(stopped, "promote", "ben", "", 8)
    with pytest.raises(Conflict, match="has not begun"):
        intervened(rollout()[0], "promote", "ben", "", 8)
    promoting, _ = intervened(begun(), "promote", "ben", "", 8)
    assert (promoting.status, promoting.share) == (Status.PROMOTING, 0.05)
    assert looked(promoting, seen(9, WORSE), 9)[0].status is Status.PROMOTING


def test_looks_without_a_decision_thin_out_and_none_is_stored_without_requests() -> None:
    state = msgspec.structs.replace(begun(), plan=ms.Rollout("late", least_requests=10**9).plan)
    _, quiet = go_on(state, Observed(champion="1"), 5 * MINUTE, SECOND)
    _, busy = go_on(state, seen(5), 60 * MINUTE, SECOND)
    assert quiet == []
    assert 100 < len(busy) < 700
    assert [look.number for look in busy] == list(range(2 + state.looks - 1, 2 + state.looks - 1 + len(busy)))
