"""Processes that carry out a rollout and are killed: run by test_rollout_kill.py and others, not a test itself.

`rollout_victim.py` imports once, and forks a process for each line of JSON that it reads, `{"root", "role", "points"}`,
whose number it prints. The process carries out the rollouts of the project in `root` until none is live, as a
"controller", or as a "worker" with all of its duties. When it comes to the next of its points, it sends itself the
point's signal:

- of a controller: a point of `delivery.rollout.controller`, such as "published"; "stored" once a decision is stored;
- before or after a call that changes something, such as "before-routes.publish".

The points are written to `root/deaths`, a line each, an error to `root/errors`.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from kit.rollouts import Skewed, opened
from mainspring.delivery.rollout.deciding import CONTINUE
from mainspring.operations.promote import publish_routes
from mainspring.operations.rollout.carrying_out import controller
from mainspring.processes import shadow, worker
from mainspring.project import Project

Die = Callable[[str], None]
SHADOW = shadow  # imported once, for all workers


def dying(root: Path, points: list[tuple[str, int]]) -> Die:
    """Return a function that sends this process the next signal when it is called with its point: "done", or "done 2"
    the second time."""
    left, passed = iter(points), Counter[str]()
    wanted = [next(left, None)]

    def die(now: str) -> None:
        passed[now] += 1
        if wanted[0] is not None and wanted[0][0] in (now, f"{now} {passed[now]}"):
            number = wanted[0][1]
            with (root / "deaths").open("a") as deaths:
                deaths.write(f"{os.getpid()} {wanted[0][0]}\n")
            wanted[0] = next(left, None)
            os.kill(os.getpid(), number)

    return die


def control(root: Path, die: Die) -> None:
    """Look without a pause, as a worker does each second, and compact and publish, as its other duties do."""
    project = deadly(root, die)

    def at(point: str) -> None:
        [state] = project.rollouts.find(limit=1)
        if point != "stored" or state.looks != state.audited:
            die(point)

    carrying = controller(project, at=at)
    while project.rollouts.live():
        project.predictions.compact()
        publish_routes(project)
        carrying.tick()
        time.sleep(0.01)


class Deadly:
    """A part of a project, whose calls of one method are points."""

    def __init__(self, part: Any, name: str, method: str, die: Die, *, counts: Callable[..., bool]) -> None:
        self._part, self._name, self._method, self._die, self._counts = part, name, method, die, counts

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        if name != self._method:
            return found

        def called(*given: Any, **named: Any) -> Any:
            counts = self._counts(*given)
            if counts:
                self._die(f"before-{self._name}.{name}")
            result = found(*given, **named)
            if counts:
                self._die(f"after-{self._name}.{name}")
            return result

        return called


def deadly(root: Path, die: Die) -> Project:
    """Return the project with points before and after each call by which a rollout changes something."""
    wall = Skewed(root / "skew")
    plain = opened(root)
    there = [plain.routes.current()]

    def decides(_: Any, looks: Any = ()) -> bool:
        return any(look.decision != CONTINUE for look in looks)

    def changes(routes: Any) -> bool:
        before, there[0] = there[0], {each.endpoint: each for each in routes}
        return [each.arms for each in before.values()] != [each.arms for each in routes]

    parts = {
        "rollouts": Deadly(plain.rollouts, "rollouts", "replace", die, counts=decides),
        "routes": Deadly(plain.routes, "routes", "publish", die, counts=changes),
        "audit": Deadly(plain.audit, "audit", "append", die, counts=lambda _: True),
        "versions": Deadly(plain.versions, "versions", "set_alias", die, counts=lambda *_: True),
    }
    return opened(root, wall=wall, **parts)


def work(root: Path, die: Die) -> None:
    project, stop = deadly(root, die), threading.Event()
    with worker.run_lanes(worker.duties(project), stop):
        while project.rollouts.live():
            time.sleep(0.05)


def be(asked: dict[str, Any]) -> None:
    root = Path(asked["root"])
    try:
        {"controller": control, "worker": work}[asked["role"]](root, dying(root, asked["points"]))
    except BaseException:
        with (root / "errors").open("a") as errors:
            traceback.print_exc(file=errors)
    os._exit(0)


def reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def main() -> None:
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, lambda *_: reap())
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            be(json.loads(line))
        print(child, flush=True)


if __name__ == "__main__":
    main()
