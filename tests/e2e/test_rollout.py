"""A bad version in a running system is rolled back by itself: soon, having met few requests, with none lost."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kit.depot import Depot, Up, opened
from kit.waiting import wait_until

WITHIN_S = 30
TOML = """\
name = "shop"
modules = ["shop.service"]

[profiles.local]
"""
SERVICE = """\
import mainspring as ms

ms.Endpoint("fraud", model="fraud@champion", deadline="30s")
ms.Rollout("fraud", steps=(0.05, 0.5), hold="10m", guards=[ms.guards.errors(), ms.guards.score()])
"""
GOOD = """\
import numpy as np


def score(x):
    return 1 / (1 + np.exp(-x))
"""
RAISES = """\
import numpy as np


def score(x):
    if (x > 0).any():
        raise ValueError("no weight for positive amounts")
    return np.exp(x)
"""
SHADOW = SERVICE.partition("ms.Rollout")[0] + (
    'ms.Rollout("fraud", kind="shadow", hold="3s", least_requests=100, guards=[ms.guards.errors(), ms.guards.score()])'
)
GOLDEN = '{"inputs": {"x": [[-1.5], [-0.5]]}}'  # rows on which its author tried it
BAD = {"errors": RAISES, "wrong scores": GOOD.replace("1 / (1 + np.exp(-x))", "np.full_like(x, 0.5)")}


@dataclass
class Load:
    """Requests to an endpoint, one after another in each of two threads, and what became of each."""

    port: int
    key: str
    answers: list[tuple[float, int, str]] = field(default_factory=list)  # when, status, version
    lost: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, seed: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        number = seed
        while not self.stop.is_set():
            number = (number * 48271) % 2147483647
            value = 6.0 * number / 2147483647 - 3.0
            body = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [value]}]}
            try:
                connection.request(
                    "POST", "/v2/models/fraud/infer", json.dumps(body), {"Authorization": f"Bearer {self.key}"}
                )
                reply = connection.getresponse()
                document = json.loads(reply.read())
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.lost.append(repr(error))
                connection.close()
                continue
            self.answers.append((time.monotonic(), reply.status, str(document.get("model_version", ""))))
            self.stop.wait(0.002)
        connection.close()

    @contextmanager
    def going(self) -> Iterator[None]:
        threads = [threading.Thread(target=self.run, args=(seed,)) for seed in (11, 1_000_003)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stop.set()
            for thread in threads:
                thread.join()


def shop(root: Path, candidate: str, service: str = SERVICE) -> Depot:
    """Return a project with a good champion and another version, which was tried on two rows."""
    package = root / "shop"
    package.mkdir(parents=True)
    (root / "mainspring.toml").write_text(TOML)
    for name, content in (("__init__", ""), ("service", service), ("good", GOOD), ("other", candidate)):
        (package / f"{name}.py").write_text(content)
    depot = Depot(root)
    tensors = ("--input", "x:FP32:-1,1", "--output", "p:FP32:-1,1")
    depot.json("models", "function", "fraud", "shop.good:score", *tensors, "--alias", "champion")
    (root / "golden.json").write_text(GOLDEN)
    depot.json("models", "function", "fraud", "shop.other:score", *tensors, "--golden", "golden.json")
    depot.json("apply")
    return depot


def rolled_back(up: Up) -> Any:
    document = up.depot.json("rollout", "status", "fraud")
    assert document["status"] in ("pending", "running", "rolled back"), document
    return document if document["status"] == "rolled back" else None


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_version_is_rolled_back_within_half_a_minute(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    depot = shop(tmp_path / "shop", BAD[fault])
    key = depot.json("keys", "create", "load", "--scope", "predict")["key"]
    with depot.up() as up:
        up.until_serving()
        load = Load(depot.gateway, key)
        with load.going():
            wait_until(lambda: len(load.answers) >= 300, "the champion's answers")
            assert {(status, version) for _, status, version in load.answers} == {(200, "1")}
            began = time.monotonic()
            depot.json("rollout", "start", "fraud", "--reason", "a faster table")
            wait_until(lambda: rolled_back(up) is not None, "the rollback")
            ended = time.monotonic()
            whole = len(load.answers)
            wait_until(lambda: len(load.answers) >= 2 * whole, "as many answers again")
        document = rolled_back(up)
        project = opened(depot)
        [state] = project.rollouts.find()
        route = project.routes.current()["fraud"]
        events = [event for event in project.audit.read(50) if event.action.startswith("rollout")]
        project.close()

    assert load.lost == []
    errors = [at for at, status, _ in load.answers if status != 200]
    met = [at for at, status, version in load.answers if status != 200 or version == "2"]
    first = errors[0] if errors else met[0]
    assert bool(errors) == (fault == "errors")
    assert met[-1] - first < WITHIN_S
    assert len(met) <= 0.05 * len(load.answers)
    assert [(arm.version, arm.weight) for arm in route.arms] == [("1", 1.0)]
    assert state.why.startswith("errors" if fault == "errors" else "score")
    assert {event.action for event in events} == {"rollout.roll-back", "rollout.begin", "rollout.start"}
    assert state.why in events[0].detail
    assert {version for _, _, version in load.answers[-100:]} == {"1"}
    with capsys.disabled():
        print(f"\n{fault}: started 0.0 s", end="")
        for name, at in (("met first", met[0]), ("first bad answer", first), ("met last", met[-1]), ("known", ended)):
            print(f", {name} {at - began:.1f} s", end="")
        share = 100 * len(met) / len(load.answers)
        print(f"; {len(met)} of {len(load.answers)} requests ({share:.1f} %) met it; {document['why']}")


def of_project(module: str, root: Path) -> list[int]:
    """Return the processes that run a module for a project."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if module in words and str(root) in words:
            found.append(int(place.name))
    return found


def test_a_shadow_that_is_killed_goes_on_and_the_caller_never_meets_it(tmp_path: Path) -> None:
    depot = shop(tmp_path / "shop", GOOD.replace("-x)", "-1.01 * x)"), SHADOW)
    key = depot.json("keys", "create", "load", "--scope", "predict")["key"]

    def status() -> Any:
        return depot.json("rollout", "status", "fraud")

    with depot.up(real=True) as up:
        up.until_serving()
        load = Load(depot.gateway, key)
        with load.going():
            wait_until(lambda: len(load.answers) >= 300, "the champion's answers")
            depot.json("rollout", "start", "fraud")
            wait_until(lambda: status()["requests"] > 0, "the first pairs")
            [process] = of_project("mainspring.processes.shadow", depot.root)
            os.kill(process, signal.SIGKILL)
            before = status()["requests"]
            wait_until(lambda: status()["requests"] > before, "more pairs")
            wait_until(lambda: status()["status"] == "waiting", "the proof that it is good")
            assert of_project("mainspring.processes.shadow", depot.root) != [process]
        document = status()
        depot.json("rollout", "stop", "fraud")
        wait_until(lambda: not of_project("mainspring.processes.shadow", depot.root), "the end of the shadow")

    assert load.lost == []
    assert {(status, version) for _, status, version in load.answers} == {(200, "1")}
    [errors, score] = document["readings"]
    assert errors["note"].startswith("0 of ")
    assert 0 < score["estimate"] < score["high"] < score["limit"]
