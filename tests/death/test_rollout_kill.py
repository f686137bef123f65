"""kill -9 of a rollout's controller at every point between two effects: it ends as if nobody had been killed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import mainspring as ms
from death.conftest import Nursery
from kit.rollouts import ENDPOINT, MODEL, begun, made, opened, shares
from mainspring.core.ids import new_id
from mainspring.ledger.model import Failure, Prediction
from mainspring.operations.promote import publish_routes
from mainspring.operations.rollout.carrying_out import controller
from mainspring.project import Project

SHARE = 0.5
PLAN = ms.Rollout(ENDPOINT, steps=(SHARE,), hold="0s", least_requests=50, guards=[ms.guards.errors(at_most=0.05)])
# Those of one rollout, in their order. Until the promotion, a good one passes the same points as a bad one.
BAD_POINTS = ["begin", "decided", "stored", "published", "recorded"]
GOOD_POINTS = ["promoting", "promoted", "done", "published 2", "recorded 2"]


def before(root: Path, *, bad: bool) -> None:
    """Make a project with a rollout that has begun, and the log of its requests."""
    project = made(root)
    project.close()
    project = opened(root, PLAN)
    state = begun(project, "2")
    controller(project).tick()
    predictions, failures = [], []
    at = project.clock.now()
    for number in range(600):
        mine = number % 2 == 0
        arm: dict[str, Any] = {
            "endpoint": ENDPOINT, "model": MODEL, "version": "2" if mine else "1", "digest": "d", "at": at,
            "latency_us": 100, "rollout": state.id, "weight": SHARE, "unit": number + 1, "principal": "p",
        }  # fmt: skip
        if mine and bad:
            failures.append(Failure(id=new_id(), kind="ModelFailed", status=500, **arm))
        else:
            empty: dict[str, Any] = {name: {} for name in ("keys", "request", "features", "statuses")}
            predictions.append(Prediction(id=new_id(), outputs={"p": 0.5}, **empty, **arm))
    project.prediction_log.append(predictions)
    project.prediction_log.fail(failures)
    project.prediction_log.close()
    project.predictions.compact()
    project.close()


@pytest.mark.parametrize(("case", "points"), [("bad", BAD_POINTS), ("good", GOOD_POINTS)])
def test_a_rollout_whose_controller_is_killed_at_any_point_ends_as_it_would_have(
    case: str, points: list[str], tmp_path: Path, nursery: Nursery
) -> None:
    before(tmp_path / "before", bad=case == "bad")
    good = case == "good"
    for point in points:
        root = tmp_path / point
        shutil.copytree(tmp_path / "before", root)
        victim = nursery.fork(root, point)
        nursery.until_gone(victim)
        assert (root / "deaths").read_text() == f"{victim} {point}\n"
        project = opened(root)
        after = {"2": 1.0} if good else {"1": 1.0}
        assert shares(project) in ({"1": SHARE, "2": 1 - SHARE}, after)
        carrying = controller(project)
        while project.rollouts.live():
            carrying.tick()
        controller(project).tick()  # of one that begins anew: it records what another could not
        publish_routes(project)
        [state] = project.rollouts.find()
        assert state.status == ("done" if good else "rolled back")
        assert shares(project) == after
        assert project.versions.get(MODEL, "champion").version == ("2" if good else "1")
        assert len(project.versions.moves(MODEL, "champion")) == (2 if good else 1)
        looks = project.rollouts.looks(state.id)
        assert [look.number for look in looks] == list(range(1, len(looks) + 1))
        decisions = ["start", "begin", "promote", "done"] if good else ["start", "begin", "roll back"]
        assert [look.decision for look in looks if look.decision != "continue"] == decisions
        assert audited(project) == sorted(decisions)
        assert (state.evidence.candidate, state.evidence.control) == (300, 300)
        project.close()


def audited(project: Project) -> list[str]:
    """Return the decisions in the audit log."""
    events = project.audit.read(1_000)
    return sorted(event.detail.split(": ")[1] for event in events if event.action.startswith("rollout"))
