"""Controllers of rollouts that are killed: run by test_rollout_kill.py, not a test itself.

`rollout_victim.py FOLDER` begins two rollouts, of a bad version and of a good one, and carries each out in copies of
its project: each time in a child that kills itself (SIGKILL) at the next point between two effects, then in one that
nobody kills. It prints a line of JSON each time: the point, the routing after the kill, and how all ended.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mainspring.core.ids import new_id
from mainspring.delivery.rollout.model import RolloutState
from mainspring.ledger.model import Failure, Prediction
from mainspring.operations.models.adding import add_function
from mainspring.operations.promote import publish_routes
from mainspring.operations.rollout.carrying_out import controller
from mainspring.operations.rollout.interventions import start
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings
from mainspring.registry.adapters import mlflow_tracking, mlflow_versions  # once, for all children
from mainspring.registry.model import TensorSpec

SERVICE = """\
import mainspring as ms

ms.Endpoint("fraud", model="fraud@champion")
ms.Rollout("fraud", steps=(0.5,), hold="0s", least_requests=50, guards=[ms.guards.errors(at_most=0.05)])
"""
TOML = 'name = "shop"\nmodules = ["shop.service"]\n\n[profiles.local]\n'
SHARE = 0.5
IMPORTED = (mlflow_tracking, mlflow_versions)


def opened(folder: Path) -> Project:
    return open_project(load_settings(folder, environment={}))


def made(folder: Path, *, bad: bool) -> None:
    """Make a project with a rollout that has begun, and the log of its requests."""
    package = folder / "shop"
    package.mkdir(parents=True)
    (folder / "mainspring.toml").write_text(TOML)
    for name, content in (("__init__", ""), ("service", SERVICE)):
        (package / f"{name}.py").write_text(content)
    for number in (1, 2):
        (package / f"v{number}.py").write_text(f"def score(x):\n    return x * {number}\n")
        add_function(
            opened(folder),
            "fraud",
            f"shop.v{number}:score",
            inputs=[TensorSpec("x", "FP32", (-1, 1))],
            outputs=[TensorSpec("p", "FP32", (-1, 1))],
            alias="champion" if number == 1 else None,
        )
    project = opened(folder)
    publish_routes(project)
    state = start(project, "fraud", "2")
    assert isinstance(state, RolloutState)
    controller(project).tick()
    log(project, state, bad=bad)
    project.close()


def log(project: Project, state: RolloutState, *, bad: bool) -> None:
    predictions, failures = [], []
    at = project.clock.now()
    for number in range(600):
        mine = number % 2 == 0
        arm: dict[str, Any] = {
            "endpoint": "fraud", "model": "fraud", "version": "2" if mine else "1", "digest": "d", "at": at,
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


def carry_out(project: Project, at: Callable[[str], None] = lambda _: None) -> None:
    carrying = controller(project, at=at)
    while project.rollouts.live():
        carrying.tick()


def arms(project: Project) -> dict[str, float]:
    return {arm.version: arm.weight for arm in project.routes.current()["fraud"].arms}


def ended(project: Project) -> dict[str, Any]:
    controller(project).tick()  # of one that begins anew: it records what another could not
    publish_routes(project)
    [state] = project.rollouts.find()
    looks = project.rollouts.looks(state.id)
    audit = [event.detail.split(": ")[1] for event in project.audit.read(100) if event.action.startswith("rollout")]
    return {
        "status": state.status,
        "numbers": [look.number for look in looks],
        "decisions": [look.decision for look in looks if look.decision != "continue"],
        "audited": sorted(set(audit)),
        "champion": project.versions.get("fraud", "champion").version,
        "moves": len(project.versions.moves("fraud", "champion")),
        "requests": [state.evidence.candidate, state.evidence.control],
        "arms": arms(project),
    }


def apart(do: Callable[[], Any]) -> int:
    """Do it in a child; return the signal that killed it, or 0."""
    child = os.fork()
    if child == 0:
        try:
            do()
        except BaseException as error:
            print(json.dumps({"failed": repr(error)}), flush=True)
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def main(root: Path) -> None:
    for case, first in (("bad", 0), ("good", 5)):  # until the promotion both pass the same points
        before = root / case
        apart(lambda: made(before, bad=case == "bad"))  # noqa: B023
        killed, number = True, first
        while killed:
            folder = root / f"{case}-{number}"
            shutil.copytree(before, folder)
            left = iter(range(number))

            def dying(point: str) -> None:
                if next(left, None) is None:  # noqa: B023
                    (folder / "point").write_text(point)  # noqa: B023
                    os.kill(os.getpid(), signal.SIGKILL)

            killed = apart(lambda: carry_out(opened(folder), dying)) == signal.SIGKILL  # noqa: B023
            point = (folder / "point").read_text() if killed else ""

            def told(folder: Path = folder, point: str = point, case: str = case) -> None:
                project = opened(folder)
                between = arms(project)
                carry_out(project)
                print(json.dumps({"case": case, "point": point, "between": between, **ended(project)}), flush=True)

            apart(told)
            number += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
