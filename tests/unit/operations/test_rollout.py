"""Rollouts of a project in memory, from start to end: routes, aliases, audit, and what people do meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

import mainspring as ms
from kit import documents
from kit.console.flights import Project, declared, definitions, populated
from kit.serving import bundle
from mainspring.core.errors import Conflict, Invalid, NotFound
from mainspring.core.time import HOUR, MINUTE, SECOND, ManualClock
from mainspring.delivery.model import Promotion
from mainspring.delivery.rollout.deciding import intervened
from mainspring.delivery.rollout.model import RolloutState, Status
from mainspring.ledger.model import Failure, Prediction
from mainspring.operations import promote as promoting
from mainspring.operations.apply import apply
from mainspring.operations.models import waiving
from mainspring.operations.rollout import interventions
from mainspring.operations.rollout.carrying_out import controller
from mainspring.operations.rollout.in_code import Rollouts
from mainspring.operations.rollout.reports import listed, report
from mainspring.registry.bundles import seal
from mainspring.registry.processes import local_user
from mainspring.serving.model import Endpoint, Route

NAME = "late-arrival"  # of the model and its endpoint; version 2 is champion


def project(rollout: ms.Rollout | None = None, gates: Sequence[Any] = (), pinned: bool = False) -> Project:
    made, known = populated(), definitions()
    models = {NAME: replace(known.models[NAME], gates=tuple(gates))}
    endpoints = {NAME: Endpoint(NAME, model=f"{NAME}@2" if pinned else f"{NAME}@champion")}
    rollouts = {} if rollout is None else {NAME: rollout}
    sources = dict(known.sources)
    changed = made.having(definitions=declared(sources=sources, models=models, endpoints=endpoints, rollouts=rollouts))
    promoting.publish_routes(changed)
    return changed


def begun(project: Project, candidate: str = "1") -> RolloutState:
    made = interventions.start(project, NAME, candidate, reason="the new feed")
    assert isinstance(made, RolloutState)
    return made


def tick(project: Project, us: int = SECOND) -> RolloutState:
    for clock in (project.wall, project.clock):
        assert isinstance(clock, ManualClock)
        clock.advance(us)
    controller(project).tick()
    [state] = project.rollouts.find(limit=1)
    return state


def traffic(
    project: Project, requests: int, *, share: float, errors: float = 0.0, seed: int = 0, only: str = ""
) -> None:
    """Log requests of the live rollout; the candidate's fail with the probability `errors`.

    Args:
        only: Version that answers all of them, against its share.
    """
    random, [state] = np.random.default_rng(seed), project.rollouts.live()
    for number in range(requests):
        mine = bool(random.random() < share) if not only else only == state.candidate
        arm: dict[str, Any] = {
            "endpoint": NAME,
            "model": NAME,
            "version": state.candidate if mine else state.champion,
            "digest": "d",
            "at": project.clock.now(),
            "rollout": state.id,
            "weight": share if mine else 1 - share,
            "unit": number + 1,
            "latency_us": int(random.gamma(20, 100)),
        }
        if mine and random.random() < errors:
            project.predictions.fail([Failure(id=f"x{seed}-{number}", kind="ModelFailed", status=500, **arm)])  # type: ignore[attr-defined]
            continue
        made = Prediction(
            id=f"r{seed}-{number}", keys={}, request={}, features={}, statuses={}, principal="p",
            outputs={"probability": float(random.beta(2, 5))}, **arm,
        )  # fmt: skip
        project.predictions.append([made])  # type: ignore[attr-defined]
    project.predictions.compact()


def route(project: Project) -> Route:
    return project.routes.current()[NAME]


def arms(project: Project) -> dict[str, float]:
    return {arm.version: arm.weight for arm in route(project).arms}


def champion(project: Project) -> str:
    return project.versions.get(NAME, "champion").version


def audited(project: Project) -> list[str]:
    return [event.action for event in project.audit.read(100) if event.action.startswith("rollout")][::-1]


def test_a_rollout_begins_with_the_first_look_and_a_stop_restores_the_routes() -> None:
    here = project()
    before = route(here)
    state = begun(here)
    assert (state.status, arms(here)) == (Status.PENDING, {"2": 1.0, "1": 0.0})  # to be loaded
    tick(here)
    assert arms(here) == pytest.approx({"2": 0.95, "1": 0.05})
    stopped = interventions.end(here, NAME, "stop", reason="lunch")
    assert (stopped.status, stopped.why) == (Status.STOPPED, "lunch")
    assert replace_revision(route(here)) == replace_revision(before)
    assert champion(here) == "2"
    assert audited(here) == ["rollout.start", "rollout.begin", "rollout.stop"]
    [told, *_] = here.audit.read(1)
    assert told.resource == f"endpoint/{NAME}"
    assert "stop: lunch (0 requests of version 1, 0 of version 2)" in told.detail


GREEDY = ms.Rollout(NAME, steps=(0.5,), hold="0s", least_requests=50, guards=[ms.guards.errors(at_most=0.9)])


def test_a_clock_that_was_hours_ahead_when_it_began_hides_no_failure() -> None:
    here = project(
        ms.Rollout(NAME, steps=(0.5,), hold="0s", least_requests=50, guards=[ms.guards.errors(at_most=0.05)])
    )
    begun(here)
    tick(here, 3 * HOUR)
    tick(here, -3 * HOUR)
    traffic(here, 600, share=0.5, errors=1.0)
    state = tick(here)
    assert state.status is Status.ROLLED_BACK, state.why


@pytest.mark.parametrize("point", ["promoting", "promoted"])
def test_a_stop_amid_the_promotion_restores_the_champion_and_the_controller_moves_it_no_more(point: str) -> None:
    here = project(GREEDY)
    before, moves_before = route(here), [(move.old, move.new) for move in here.versions.moves(NAME, "champion")]
    begun(here)
    tick(here)
    traffic(here, 400, share=0.5)

    def stop(now: str) -> None:
        if now == point:
            interventions.end(here, NAME, "stop", reason="lunch")

    controller(here, at=stop).tick()
    [state] = here.rollouts.find()
    assert (state.status, state.why) == (Status.STOPPED, "lunch")
    assert champion(here) == "2"
    assert replace_revision(route(here)) == replace_revision(before)
    moves = [(move.old, move.new) for move in here.versions.moves(NAME, "champion")]
    assert (moves[:2] if point == "promoted" else moves) == (
        [("1", "2"), ("2", "1")] if point == "promoted" else moves_before
    )


def replace_revision(route: Route) -> dict[str, Any]:
    return {name: getattr(route, name) for name in route.__struct_fields__ if name != "revision"}


def test_a_bad_candidate_is_rolled_back_by_its_numbers() -> None:
    here = project()
    begun(here)
    tick(here)
    traffic(here, 300, share=0.05, errors=0.8)
    state = tick(here)
    assert state.status is Status.ROLLED_BACK
    assert state.why.startswith("errors")
    assert arms(here) == {"2": 1.0}
    assert champion(here) == "2"
    [told, *_] = here.audit.read(1)
    assert (told.actor, told.action) == ("rollout controller", "rollout.roll-back")
    assert "300 requests" not in told.detail
    shown = report(here, state)
    assert [reading.guard for reading in shown.readings if reading.breach] == ["errors"]
    documents.check(["rollout", "status"], json.loads(msgspec.json.encode(shown)))
    documents.check(["rollout", "list"], json.loads(msgspec.json.encode(listed(here, NAME, 5))))
    assert [line.split(" ", 2)[1] for line in shown.decisions] == ["start", "begin", "roll"]


QUICK = {"steps": (0.5,), "hold": "1m", "least_requests": 50, "guards": [ms.guards.errors(at_most=0.05)]}


def test_a_good_candidate_is_promoted_and_taken_back_as_it_was() -> None:
    here = project(ms.Rollout(NAME, **QUICK))
    begun(here)
    tick(here)
    traffic(here, 600, share=0.5)
    assert tick(here).status is Status.RUNNING  # not held long enough
    state = tick(here, MINUTE)
    assert state.status is Status.DONE
    assert (champion(here), arms(here)) == ("1", {"1": 1.0})
    assert here.versions.moves(NAME, "champion")[0].reason.startswith(f"promote: rollout {state.id}")
    assert audited(here) == ["rollout.start", "rollout.begin", "rollout.promote", "rollout.done"]
    assert report(here, state).share == 1.0
    taken = interventions.roll_back(here, NAME, reason="complaints")
    assert (champion(here), arms(here)) == ("2", {"2": 1.0})
    shown = report(here, taken)
    assert (shown.status, shown.why, shown.share) == ("rolled back", "complaints", 0.0)
    assert shown.decisions[-1].endswith(f"roll back by {local_user()}: complaints")
    assert shown.readings, "the numbers that decided are still shown"
    assert audited(here)[-1] == "rollout.roll-back"
    with pytest.raises(NotFound, match="no rollout to take back"):
        interventions.roll_back(here, NAME)


def test_a_promotion_is_undone_to_what_is_not_approved_only_in_an_emergency() -> None:
    here = project(ms.Rollout(NAME, **QUICK))
    begun(here)
    tick(here)
    traffic(here, 600, share=0.5)
    assert tick(here, MINUTE).status is Status.DONE
    strict = here.having(settings=replace(here.settings, approvals=1))
    with pytest.raises(Conflict, match="Version 2 of late-arrival has not the approvals that it needs") as refused:
        interventions.roll_back(strict, NAME, reason="fire")
    assert "--emergency" in str(refused.value)
    with pytest.raises(Invalid, match="needs a reason"):
        Rollouts(strict).rollback(NAME, emergency=True)
    assert champion(here) == "1"
    assert Rollouts(strict).rollback(NAME, reason="fire", emergency=True).status == "rolled back"
    assert champion(here) == "2"
    assert [each.detail for each in here.audit.read(100) if each.action == "rollback.emergency"] == ["fire"]


def test_a_report_says_if_the_champion_has_moved_since() -> None:
    here = project(ms.Rollout(NAME, **QUICK))
    begun(here)
    tick(here)
    traffic(here, 600, share=0.5)
    state = tick(here, MINUTE)
    promoting.rollback(here, NAME)
    shown = report(here, state)
    assert (shown.status, shown.share) == ("done", 0.0)
    assert "version 2 serves" in shown.note
    with pytest.raises(Conflict, match="it has moved since"):
        interventions.roll_back(here, NAME)


def test_a_report_says_what_a_live_rollout_waits_for() -> None:
    here = project(ms.Rollout(NAME, steps=(0.2, 0.5), hold="1m", least_requests=50, guards=[ms.guards.errors()]))
    state = begun(here)
    assert report(here, state).waits_for == ("the first look of a worker",)
    state = tick(here)
    assert report(here, state).waits_for == ("1m more", "50 more requests of version 1")
    traffic(here, 300, share=0.2)
    state = tick(here, MINUTE)
    assert state.step == 1
    traffic(here, 200, share=0.5)
    state = tick(here, MINUTE)
    assert report(here, state).waits_for == ("evidence on errors",)


def test_one_that_waits_is_promoted_by_a_person() -> None:
    here = project(ms.Rollout(NAME, **QUICK, on_success="wait"))
    begun(here)
    tick(here)
    traffic(here, 600, share=0.5)
    assert tick(here, MINUTE).status is Status.WAITING
    assert champion(here) == "2"
    assert "no worker" in report(here, here.rollouts.live()[0]).note.lower()
    promoted = interventions.promote(here, NAME, reason="looks good")
    assert isinstance(promoted, RolloutState)
    assert (promoted.status, champion(here)) == (Status.DONE, "1")


@pytest.mark.parametrize("answer", [{"score": 0.5}, {"probability": "who knows"}, {"probability": [0.5]}])
def test_a_fallback_that_does_not_fit_is_refused_before_anything_moves(answer: dict[str, Any]) -> None:
    here, runs = project(ms.Rollout(NAME, **QUICK)), bundle()
    made = seal(runs.manifest, runs.files, here.signing_key)
    here.bundles.save(made)
    version = here.versions.register(NAME, made.digest, "run", {}, 1).version

    def answering(answer: dict[str, Any], model: str = f"{NAME}@champion") -> Project:
        endpoint = Endpoint(NAME, model=model, unusual=ms.Unusual("fallback", answer=answer))
        return here.having(definitions=replace(here.definitions, endpoints={NAME: endpoint}))

    def steps(answer: dict[str, Any]) -> list[Callable[[], Any]]:
        follows, pinned = answering(answer), answering(answer, f"{NAME}@{version}")
        return [
            lambda: apply(pinned, dry_run=True),
            lambda: interventions.start(follows, NAME, version),
            lambda: promoting.promote(follows, NAME, version),
        ]

    for step in steps(answer):
        with pytest.raises(Invalid, match="cannot serve the endpoint"):
            step()
    assert (champion(here), here.rollouts.find()) == ("2", [])
    for step in steps({"probability": 0.5}):
        step()
    assert champion(here) == version


def test_the_gates_decide_before_the_first_request_and_again_at_the_end() -> None:
    here = project(gates=[ms.at_least("auc", 0.735)])
    refused = interventions.start(here, NAME, "1")
    assert isinstance(refused, Promotion)
    assert [result.passed for result in refused.results] == [False]
    assert here.rollouts.find() == []
    waived = here.having(definitions=project(ms.Rollout(NAME, **QUICK)).definitions)
    begun(waived)
    tick(waived)
    traffic(waived, 600, share=0.5)
    again = waived.having(definitions=here.definitions)
    state = tick(again, MINUTE)
    assert state.status is Status.FAILED
    assert "version 1 was not promoted: auc at least 0.735" in state.why
    assert champion(here) == "2"


def test_a_waiver_that_lets_a_candidate_begin_is_in_its_first_look_and_in_the_audit_log() -> None:
    here = project(GREEDY, gates=[ms.gates.at_least("auc", 0.99)])
    assert isinstance(interventions.start(here, NAME, "1"), Promotion)
    waiving.waive(here, f"{NAME}:1", "auc", reason="the old one is down", until="1d")
    state = begun(here)
    [look] = here.rollouts.looks(state.id)
    [event] = [each for each in here.audit.read(100) if each.action == "rollout.start"]
    for told in (look.why, event.detail):
        assert "although auc at least 0.99 against limit" in told
        assert told.count("the old one is down") == 1


def test_a_bundle_that_disappears_ends_it() -> None:
    here = project()
    state = begun(here)
    assert tick(here).status is Status.RUNNING
    here.blobs.delete(state.candidate_digest)
    ended = tick(here, MINUTE)
    assert ended.status is Status.FAILED
    assert ended.why.startswith("version 1 cannot be served: ")
    assert arms(here) == {"2": 1.0}


def test_a_label_that_never_comes_ends_it_by_its_plan() -> None:
    guards = [ms.guards.errors(at_most=0.05), ms.guards.quality("brier", within="1m")]
    here = project(ms.Rollout(NAME, **{**QUICK, "guards": guards}, longest="10m"))
    begun(here)
    tick(here)
    traffic(here, 600, share=0.5)
    for _ in range(9):
        assert tick(here, MINUTE).status is Status.RUNNING
    state = tick(here, MINUTE)
    assert state.status is Status.INCONCLUSIVE
    assert state.why == "no decision within 10m: quality brier: no label came"
    assert arms(here) == {"2": 1.0}
    [unlabelled] = [each for each in report(here, state).readings if each.guard == "no label"]
    assert unlabelled.candidate + unlabelled.control == 600


def test_an_arm_without_traffic_ends_it_by_its_plan() -> None:
    here = project(ms.Rollout(NAME, **QUICK, longest="3m"))
    begun(here)
    tick(here)
    for _ in range(2):
        tick(here, MINUTE)
    state = tick(here, MINUTE)
    assert (state.status, state.why) == (Status.INCONCLUSIVE, "no decision within 3m: no request came")
    here = project(ms.Rollout(NAME, **QUICK, longest="3m"))
    begun(here)
    tick(here)
    traffic(here, 400, share=0.5, only="2")
    state = tick(here)
    assert state.status is Status.FAILED
    assert state.why == "no request of 400 reached version 1: no gateway has loaded it"


def test_a_rollback_of_the_model_ends_its_rollout() -> None:
    here = project()
    begun(here, "1")
    tick(here)
    done = promoting.rollback(here, NAME)
    assert (done.version, champion(here)) == ("1", "1")
    [state] = here.rollouts.find()
    assert state.status is Status.ROLLED_BACK
    assert arms(here) == {"1": 1.0}


def test_a_promotion_of_another_version_ends_it() -> None:
    here = project()
    begun(here, "1")
    tick(here)
    promoting.promote(here, NAME, "1")
    assert tick(here).status is Status.DONE
    assert champion(here) == "1"


def test_a_stop_whose_process_died_before_the_audit_is_recorded_by_the_controller() -> None:
    here = project()
    begun(here)
    carrying = controller(here)
    carrying.tick()
    [state] = here.rollouts.live()
    stopped, look = intervened(state, "stop", "ben", "lunch", here.wall.now())
    here.rollouts.replace(stopped, [look])
    assert "rollout.stop" not in audited(here)
    for clock in (here.wall, here.clock):
        assert isinstance(clock, ManualClock)
        clock.advance(2 * MINUTE)
    carrying.tick()
    carrying.tick()
    assert audited(here).count("rollout.stop") == 1


def test_code_does_what_commands_do() -> None:
    here = project(gates=[ms.at_least("auc", 0.7)])
    rollouts = Rollouts(here)
    with pytest.raises(NotFound, match="has had no rollout"):
        rollouts.status(NAME)
    assert rollouts.start(NAME, "1", reason="the new feed").status == "pending"
    tick(here)
    assert rollouts.status(NAME).share == 0.05
    assert rollouts.stop(NAME).status == "stopped"
    assert [each.status for each in rollouts.list()] == ["stopped"]
    strict = Rollouts(project(gates=[ms.at_least("auc", 0.735)]))
    with pytest.raises(Conflict, match="did not pass its gates: auc at least"):
        strict.start(NAME, "1")


def test_what_cannot_be_started_is_refused_with_a_fix() -> None:
    here = project()
    with pytest.raises(Invalid, match="Version 2 of 'late-arrival' is champion already"):
        interventions.start(here, NAME)
    with pytest.raises(NotFound, match="late-arrival:9"):
        interventions.start(here, NAME, "9")
    with pytest.raises(NotFound, match="has no live rollout"):
        interventions.end(here, NAME, "stop")
    with pytest.raises(NotFound, match="no rollout to take back"):
        interventions.roll_back(here, NAME)
    begun(here)
    with pytest.raises(Conflict, match="has a live rollout already: version 1, pending"):
        interventions.start(here, NAME, "1")
    with pytest.raises(Invalid, match="which no promotion moves"):
        interventions.start(project(pinned=True), NAME, "1")
    assert [each.status for each in listed(here, NAME, 5)] == ["pending"]
