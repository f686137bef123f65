"""What does a caller feel of a shadow? One caller of a running system, without a shadow and with some.

The rounds are interleaved, so that the machine's noise hits all alike, and the caller's latency with a shadow is
compared with that of the same round without one. No candidate can be too bad: one hangs, one kills its process at each
call, one computes on all processors without end.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import numpy as np

from kit.depot import Depot, opened
from kit.functions import GOOD, shop
from kit.waiting import wait_until
from mainspring.operations.rollout import interventions
from mainspring.project import Project
from report import Case

NONE = "no shadow"
SHADOWS = {
    "healthy": GOOD,
    "hangs": "import time\n\n\ndef score(x):\n    (x > 0).any() and time.sleep(3600)\n    return x\n",
    "crashes": "import os\n\n\ndef score(x):\n    (x > 0).any() and os.abort()\n    return x\n",
    "takes every processor": """\
import os
import threading

import numpy as np


def burn():
    a = np.random.default_rng(1).random((400, 400))
    for _ in range(200):
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
PAUSE_S = 0.002
STARTS_S = 8.0  # until a shadow's process is at work


def shadows(rounds: int, seconds: float) -> Iterator[Case]:
    """Yield a case for each shadow: the caller's latency, and that of the same rounds without one."""
    took: dict[str, list[list[float]]] = {NONE: [], **{kind: [] for kind in SHADOWS}}
    with tempfile.TemporaryDirectory() as folder:
        depot = shop(Path(folder) / "shop", ROLLOUT, *SHADOWS.values())
        key = depot.json("keys", "create", "load", "--scope", "predict")["key"]
        with depot.up(real=True) as up, closing(opened(depot)) as project:
            up.until_serving()
            _asked(depot, key, seconds)  # to warm up
            for _ in range(rounds):
                took[NONE].append(_asked(depot, key, seconds))
                for version, kind in enumerate(SHADOWS, 2):
                    took[kind].append(_shadowed(depot, project, key, seconds, str(version)))
    for part in (50, 99):
        usual = [float(np.percentile(each, part)) for each in took[NONE]]
        ratios = {
            kind: float(np.median([np.percentile(each, part) / mine for each, mine in zip(found, usual, strict=True)]))
            for kind, found in took.items()
        }
        noise = max(usual) / min(usual)
        for kind in SHADOWS:
            found = float(np.median([np.percentile(each, part) for each in took[kind]]))
            note = f"p{part}: {ratios[kind]:.2f} of no shadow (median of {rounds} rounds; rounds without: {noise:.2f})"
            yield Case(
                f"caller's p{part}, a shadow that {kind}", "ms", found, float(np.median(usual)), {}, {kind: note}
            )


def _shadowed(depot: Depot, project: Project, key: str, seconds: float, version: str) -> list[float]:
    """Return the latencies while a shadow's process is at work."""
    interventions.start(project, "fraud", version)
    wait_until(lambda: [each.status for each in project.rollouts.live()] == ["running"], "the shadow")
    if list(SHADOWS)[int(version) - 2] != "crashes":  # of that one, the starts of its process are what can be felt
        _asked(depot, key, STARTS_S)
    found = _asked(depot, key, seconds)
    if project.rollouts.live():
        interventions.end(project, "fraud", "stop")
    return found


def _asked(depot: Depot, key: str, seconds: float) -> list[float]:
    """Return the latencies of one caller, in ms."""
    found, chance = [], np.random.default_rng(3)
    with closing(HTTPConnection("127.0.0.1", depot.gateway, timeout=60)) as connection:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = float(chance.uniform(-3, 3))
            body = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [value]}]}
            begun = time.perf_counter()
            connection.request("POST", "/v2/models/fraud/infer", json.dumps(body), {"Authorization": f"Bearer {key}"})
            reply = connection.getresponse()
            document = json.loads(reply.read())
            found.append(1_000 * (time.perf_counter() - begun))
            assert (reply.status, document["model_version"]) == (200, "1"), document
            time.sleep(PAUSE_S)
    return found
