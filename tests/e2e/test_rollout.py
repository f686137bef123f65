"""A bad version in a running system is rolled back by itself: soon, having met few requests, with none lost."""

from __future__ import annotations

import os
import signal
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kit.depot import opened
from kit.depth import deep, examples
from kit.functions import GOOD, Load, processes_of, shop
from kit.waiting import wait_until
from mainspring.delivery.rollout.model import RolloutState, Status
from mainspring.ledger.model import Prediction
from mainspring.operations.rollout import interventions
from mainspring.operations.rollout.carrying_out import controller
from mainspring.operations.rollout.reports import report
from mainspring.processes.shadow import ShadowProcesses
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings

WITHIN_S = 30
FIRST = examples(gate=0.2, deep=0.05)  # share of the first step: the smaller it is, the more requests it takes
ROLLOUT = f"""\
ms.Rollout("fraud", steps=({FIRST}, 0.5), hold="10m", guards=[ms.guards.errors(), ms.guards.score()])
ms.Endpoint("switched", model="fraud@champion", deadline="30s")
ms.Rollout("switched", kind="blue-green", guards=[ms.guards.errors()])
"""
PICKY = """\
import os
from pathlib import Path

import numpy as np

taken = Path({taken!r})
try:
    with taken.open("x") as file:
        file.write(str(os.getppid()))
except FileExistsError:
    if taken.read_text() != str(os.getppid()):
        raise ImportError("no library of that version") from None
except OSError:
    pass  # tried in confinement before it was registered


def score(x):
    return 1 / (1 + np.exp(-x))
"""  # the first gateway that loads it can
RAISES = """\
import numpy as np


def score(x):
    if (x > 0).any():
        raise ValueError("no weight for positive amounts")
    return np.exp(x)
"""
USUAL = {"MAINSPRING_SHADOW_NICE": "0"}  # a busy machine would leave a shadow of the lowest priority no time
FREE = {"MAINSPRING_ISOLATION": "off"}  # functions reach the process that they are called by
SHADOW = (
    'ms.Rollout("fraud", kind="shadow", hold="3s", least_requests=100, guards=[ms.guards.errors(), ms.guards.score()])'
)
BAD_SHADOWS = {  # what it does on a positive amount -> why its rollout failed
    "hangs": ("while (x > 0).any(): pass", "was ended because it gave no answer within 2s"),
    "crashes": ("(x > 0).any() and os.kill(os.getppid(), signal.SIGSEGV)", "ended with SIGSEGV"),
}


@dataclass(frozen=True)
class Fault:
    """A bad version, and the endpoint whose rollout meets it."""

    module: str
    endpoint: str
    guard: str
    met: float  # share of the endpoint's requests that may meet it


FAULTS = {
    "2": Fault(RAISES, "fraud", "errors", FIRST),
    "3": Fault(GOOD.replace("1 / (1 + np.exp(-x))", "np.full_like(x, 0.5)"), "fraud", "score", FIRST),
    "4": Fault(RAISES, "switched", "errors", 1.0),
}


def test_bad_versions_are_rolled_back_within_half_a_minute(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    depot = shop(tmp_path / "shop", ROLLOUT, *(each.module for each in FAULTS.values()))
    key = depot.json("keys", "create", "load", "--scope", "predict")["key"]
    with depot.up() as up, closing(opened(depot)) as project:
        up.until_serving()
        for version in examples(gate=("3", "4"), deep=tuple(FAULTS)):
            fault = FAULTS[version]
            load = Load(depot.gateway, key, fault.endpoint)
            with load.going():
                load.until_answered(100)
                assert {(status, version) for _, status, version in load.answers} == {(200, "1")}
                began = time.monotonic()
                interventions.start(project, fault.endpoint, version, reason="a faster table")
                wait_until(lambda: not project.rollouts.live(), "the rollback")
                ended = time.monotonic()
                load.until_answered(300)
            [state] = project.rollouts.find(endpoints=[fault.endpoint], limit=1)
            route = project.routes.current()[fault.endpoint]
            events = [event for event in project.audit.read(50) if state.id in event.detail]

            assert (state.status, load.lost) == (Status.ROLLED_BACK, [])
            errors = [at for at, status, _ in load.answers if status != 200]
            met = [at for at, status, answered in load.answers if status != 200 or answered == version]
            first = errors[0] if errors else met[0]
            assert bool(errors) == (fault.guard == "errors")
            assert met[-1] - first < WITHIN_S
            assert len(met) <= fault.met * len(load.answers)
            assert [(arm.version, arm.weight) for arm in route.arms] == [("1", 1.0)]
            assert state.why.startswith(fault.guard)
            assert {event.action for event in events} == {"rollout.roll-back", "rollout.begin", "rollout.start"}
            assert state.why in events[0].detail
            assert {answered for _, _, answered in load.answers[-100:]} == {"1"}
            with capsys.disabled():
                print(f"\n{state.plan.kind}, {fault.guard}: started 0.0 s", end="")
                times = (("met first", met[0]), ("first bad answer", first), ("met last", met[-1]), ("known", ended))
                print("".join(f", {name} {at - began:.1f} s" for name, at in times), end="")
                share = 100 * len(met) / len(load.answers)
                print(f"; {len(met)} of {len(load.answers)} requests ({share:.1f} %) met it; {state.why}")
        assert depot.json("rollout", "status", "switched")["status"] == "rolled back"


def test_a_version_that_one_gateway_cannot_load_is_not_begun_and_the_gateway_is_named(tmp_path: Path) -> None:
    depot = shop(tmp_path / "shop", ROLLOUT, PICKY.format(taken=str(tmp_path / "taken")))
    key = depot.json("keys", "create", "load", "--scope", "predict")["key"]
    workers = {"MAINSPRING_GATEWAY_WORKERS": "2"}
    with depot.up(environment=workers | FREE) as up, closing(opened(depot)) as project:
        up.until_serving()
        load = Load(depot.gateway, key)
        with load.going():
            interventions.start(project, "fraud")

            def told() -> Any:
                [state] = project.rollouts.live()
                return [each for each in report(project, state).gateways if each.trouble]

            [other] = wait_until(told, "the gateway that cannot load it")
            [able] = {"gateway", "gateway-1"} - {other.process}
            load.until_answered(200)
        shown = " ".join(depot.run("rollout", "status", "fraud").stdout.split())
        [state] = project.rollouts.live()
        assert (state.status, state.share) == (Status.PENDING, 0.0)
        assert "no library of that version" in other.trouble
        assert f"{able} serves version 1, 2 by revision" in shown
        assert f"{other.process} serves version 1 by revision {other.revision} of the routes. {other.trouble}" in shown
        assert f"It begins once every gateway process has loaded version 2: {other.process} has not." in shown
        interventions.end(project, "fraud", "stop")
    assert load.lost == []
    assert {(status, version) for _, status, version in load.answers} == {(200, "1")}


def logged(project: Project, number: int) -> None:
    """Log predictions of the champion, of positive amounts."""
    made: dict[str, Any] = {
        "endpoint": "fraud",
        "model": "fraud",
        "version": "1",
        "digest": "d",
        "at": project.clock.now(),
    }
    project.prediction_log.append(
        [
            Prediction(
                id=f"p{each}", keys={}, request={}, features={"x": [1.0 + each]}, statuses={},  # type: ignore[dict-item]
                outputs={"p": [0.9]}, latency_us=1, principal="p", **made,
            )
            for each in range(number)
        ]
    )  # fmt: skip
    project.predictions.compact()


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("fault", examples(gate=["crashes"], deep=list(BAD_SHADOWS)))
def test_a_shadow_that_hangs_or_crashes_ends_and_says_why(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in FREE.items():
        monkeypatch.setenv(name, value)
    does, why = BAD_SHADOWS[fault]
    candidate = f"import os\nimport signal\n\n\ndef score(x):\n    {does}\n    return x\n"
    depot = shop(tmp_path / "shop", SHADOW, candidate)
    settings = load_settings(depot.root, environment=USUAL)
    with closing(open_project(settings)) as project:
        interventions.start(project, "fraud")
        controller(project).tick()
        logged(project, 5)
        processes = ShadowProcesses(project, hangs_s=2)

        def ended() -> bool:
            processes.keep()
            return not project.rollouts.live()

        wait_until(ended, "the end of the shadow")
        processes.keep()
        [state] = project.rollouts.find()
        assert not processes_of("mainspring.processes.shadow", depot.root)
    assert (state.status, state.evidence.candidate) == (Status.FAILED, 0)
    assert state.why == f"version 2 answers no predictions: 3 times its process {why}"


@deep
def test_a_candidate_that_crashes_is_rolled_back_by_its_errors(tmp_path: Path) -> None:
    candidate = "import os\n\n\ndef score(x):\n    (x > 0).any() and os.abort()\n    return x\n"
    depot = shop(tmp_path / "shop", SHADOW.replace("least_requests=100", "least_requests=20"), candidate)
    with closing(open_project(load_settings(depot.root, environment=USUAL))) as project:
        interventions.start(project, "fraud")
        controller(project).tick()
        logged(project, 20)
        processes = ShadowProcesses(project)

        def ended() -> bool:
            processes.keep()
            controller(project).tick()
            return not project.rollouts.live()

        wait_until(ended, "the end of the shadow")
        processes.keep()
        [state] = project.rollouts.find()
    assert (state.status, state.evidence.candidate) == (Status.ROLLED_BACK, 20)
    assert "errors" in state.why


def test_a_shadow_that_is_killed_goes_on_and_the_caller_never_meets_it(tmp_path: Path) -> None:
    depot = shop(tmp_path / "shop", SHADOW, GOOD.replace("-x)", "-1.01 * x)"))
    key = depot.json("keys", "create", "load", "--scope", "predict")["key"]
    with depot.up(environment=USUAL) as up, closing(opened(depot)) as project:

        def state() -> RolloutState:
            [found] = project.rollouts.find()
            return found

        up.until_serving()
        load = Load(depot.gateway, key, pause_s=0.02)  # 100 pairs are enough
        with load.going():
            load.until_answered(300)
            interventions.start(project, "fraud")
            wait_until(lambda: state().evidence.candidate, "the first pairs")
            [process] = processes_of("mainspring.processes.shadow", depot.root)
            os.kill(process, signal.SIGKILL)
            before = state().evidence.candidate
            wait_until(lambda: state().evidence.candidate > before, "more pairs")
            wait_until(lambda: state().status is Status.WAITING, "the proof that it is good")
            assert processes_of("mainspring.processes.shadow", depot.root) != [process]
        document = depot.json("rollout", "status", "fraud")
        interventions.end(project, "fraud", "stop")
        wait_until(lambda: not processes_of("mainspring.processes.shadow", depot.root), "the end of the shadow")

    assert load.lost == []
    assert {(status, version) for _, status, version in load.answers} == {(200, "1")}
    [errors, score] = document["readings"]
    assert errors["note"].startswith("0 of ")
    assert 0 < score["estimate"] < score["high"] < score["limit"]
