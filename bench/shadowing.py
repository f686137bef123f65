"""What does a caller feel of a shadow? One caller of a running system, while shadows are at work.

A shadow's process is stopped and continued every half second, and the caller's latency while it works is compared with
that while it is stopped: so the machine's noise hits both alike. No candidate can be too bad: one hangs, one computes
with more threads than there are processors, and one kills its process at each call, which is started again. "Nothing"
is the same comparison without a shadow, which shows the noise. At the usual priority the second would be felt.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path

import numpy as np

from kit.depot import opened
from kit.functions import GOOD, processes_of, shop
from kit.waiting import wait_until
from mainspring.operations.rollout import interventions
from mainspring.project import Project
from report import Case

NOTHING, CRASHES, USUAL = "nothing", "crashes", "at the usual priority"
BURNS = "takes every processor"
SHADOWS = {
    "healthy": GOOD,
    "hangs": "import time\n\n\ndef score(x):\n    (x > 0).any() and time.sleep(3600)\n    return x\n",
    CRASHES: "import os\n\n\ndef score(x):\n    (x > 0).any() and os.abort()\n    return x\n",
    BURNS: """\
import os
import threading

import numpy as np


def burn():
    a = np.random.default_rng(1).random((300, 300))
    for _ in range(500):
        a = a @ a
        a /= a.max()


def score(x):
    if (x > 0).any():
        threads = [threading.Thread(target=burn) for _ in range(2 * os.cpu_count())]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    return 1 / (1 + np.exp(-x))
""",
}
ROLLOUT = 'ms.Rollout("fraud", kind="shadow", guards=[ms.guards.errors(), ms.guards.score()], hold="1h")\n'
SLICE_S, PAUSE_S = 0.5, 0.002
STARTS_S = 10.0  # until a shadow's process is at work

Took = tuple[list[float], list[float]]  # the caller's latencies in ms, while a shadow is stopped and while it works


def shadows(seconds: float) -> Iterator[Case]:
    """Yield the caller's latency with each shadow, beside that of the same seconds without; `seconds` of each."""
    took: dict[str, Took] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "shop"
        depot = shop(root, ROLLOUT, *SHADOWS.values())
        key = depot.json("keys", "create", "load", "--scope", "predict")["key"]
        for nice in ("19", "0"):
            environment = {"MAINSPRING_SHADOW_NICE": nice}
            with depot.up(real=True, environment=environment) as up, closing(opened(depot)) as project:
                up.until_serving()
                caller = Caller(depot.gateway, key)
                caller.ask(2.0)
                if nice == "0":
                    took[USUAL] = shadowed(project, caller, root, 2 + list(SHADOWS).index(BURNS), seconds)
                    continue
                took[NOTHING] = caller.alternate(seconds, lambda _: None)
                for version, kind in enumerate(SHADOWS, 2):
                    took[kind] = shadowed(project, caller, root, version, seconds)
    for part in (50, 99):
        found = {kind: [float(np.percentile(each, part)) for each in both] for kind, both in took.items()}
        usual = found.pop(USUAL)
        for kind, (without, beside) in found.items():
            peers = {USUAL: usual[1] * without / usual[0]} if kind == BURNS else {}
            note = {USUAL: "shadow_nice = 0, as a ratio to the same seconds without"} if peers else {}
            yield Case(f"caller's p{part}, beside a shadow: {kind}", "ms", beside, without, peers, note)


def shadowed(project: Project, caller: Caller, root: Path, version: int, seconds: float) -> Took:
    """Return the latencies while a shadow's process is stopped, and while it works; of one that crashes, while there is
    none, and while it is started again and again."""
    found: Took = ([], [])
    if list(SHADOWS)[version - 2] == CRASHES:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found[0].extend(caller.ask(2 * SLICE_S))
            interventions.start(project, "fraud", str(version))
            begun = time.monotonic()
            while project.rollouts.live() and time.monotonic() < begun + STARTS_S:
                found[1].extend(caller.ask(SLICE_S))
            found[0].extend(caller.ask(2 * SLICE_S))
            end_live(project)
        return found
    interventions.start(project, "fraud", str(version))
    caller.ask(STARTS_S)
    [process] = wait_until(lambda: processes_of("mainspring.processes.shadow", root), "the shadow's process")

    def work(on: bool) -> None:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT if on else signal.SIGSTOP)

    found = caller.alternate(seconds, work)
    end_live(project)
    return found


def end_live(project: Project) -> None:
    if project.rollouts.live():
        interventions.end(project, "fraud", "stop")


class Caller:
    """One caller, who asks again a moment after each answer."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._headers = {"Authorization": f"Bearer {key}"}
        self._chance = np.random.default_rng(3)

    def ask(self, seconds: float) -> list[float]:
        """Return the latencies of some seconds, in ms."""
        found = []
        with closing(HTTPConnection("127.0.0.1", self._port, timeout=60)) as connection:
            connection.connect()
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                value = float(self._chance.uniform(-3, 3))
                body = json.dumps({"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [value]}]})
                begun = time.perf_counter()
                connection.request("POST", "/v2/models/fraud/infer", body, self._headers)
                reply = connection.getresponse()
                document = json.loads(reply.read())
                found.append(1_000 * (time.perf_counter() - begun))
                assert (reply.status, document["model_version"]) == (200, "1"), document
                time.sleep(PAUSE_S)
        return found

    def alternate(self, seconds: float, work: Callable[[bool], None]) -> Took:
        """Return the latencies of both halves of each second, after `work` was told which half it is."""
        found: Took = ([], [])
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for on in (False, True):
                work(on)
                found[on].extend(self.ask(SLICE_S))
        return found
