"""Executors and residency: from zero to the first answer, until a step of load is met, and what they cost a request.

- From zero: an endpoint whose model left the memory is asked. The floor is ONNX Runtime that loads the same file and
  answers; of a function, a fresh Python with NumPy that answers. Each turn asks once, after the model has left.
- A step: a function that waits 20 ms for each row, as for a device, and one to four executors; from 10 to 120 requests
  a second, which is more than twice what one can do. Met is the first second of which 95 % were answered within 250 ms.
  The gateway refuses what would be later than 2 s; Ray Serve queues it.
- Two executors at once: a function that waits 5 ms a row, asked by four connections; the floor has one executor.
- Residency: a network in memory with a bound on it; the floor is the same gateway without one.

The peer is Ray Serve, where its environment is made (`python bench/peers.py ray`), deciding as often as it lets itself.
"""

from __future__ import annotations

import argparse
import http.client
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

import starting
from asking import HOST, Server, ask, check, request, values
from environments import PEERS
from figures import Measured, timed
from networks import onnx_mlp
from report import Case, report
from turns import best

if TYPE_CHECKING:
    from mainspring.project import Project

WIDTH = 16
BEFORE, AFTER = 10.0, 120.0  # requests a second
WITHIN_S, IN_TIME = 0.25, 0.95
STEP_S = 30.0  # the longest that a step is looked at
GIVES_UP_S = 5.0  # a caller
LEAVES_S = 60.0
RAY_S = 240.0  # for all of Ray's side

_SERVICE = """
import time

import numpy as np

import mainspring as ms

ms.Endpoint("network", model="network@champion", deadline="60s", executors=(0, 1), idle="1s")
ms.Endpoint("function", model="function@champion", deadline="60s", executors=(0, 1), idle="1s")
ms.Endpoint("step", model="step@champion", deadline="2s", executors=(1, 4))
ms.Endpoint("one", model="five@champion", deadline="10s", executors=(1, 1))
ms.Endpoint("two", model="five2@champion", deadline="10s", executors=(2, 2))


def answers(x: np.ndarray) -> np.ndarray:
    return x.sum(axis=1, keepdims=True)


def slow(x: np.ndarray) -> np.ndarray:
    time.sleep(0.02 * len(x))
    return answers(x)


def five(x: np.ndarray) -> np.ndarray:
    time.sleep(0.005 * len(x))
    return answers(x)


def five2(x: np.ndarray) -> np.ndarray:
    return five(x)
"""

_BARE = "import sys, numpy as np; x = np.array([[float(each) for each in sys.argv[1:]]]); print(x.sum(axis=1))"


@dataclass(frozen=True)
class Turn:
    """Seconds of one turn; `None` where it was not reached in time."""

    seconds: float | None


@contextmanager
def serving(folder: Path, model: Path) -> Iterator[tuple[Project, int, str]]:
    """Serve the endpoints of all cases with a bound on memory; yield the project, the port and a key."""
    from mainspring.delivery.routing import publish
    from mainspring.operations.models.adding import add_file, add_function
    from mainspring.registry.model import TensorSpec

    made = starting.project(folder, _SERVICE, '[profiles.local.gateway]\nmemory = "2GB"\n')
    add_file(made, "network", model, alias="champion")
    x, y = TensorSpec("x", "FP32", (-1, WIDTH)), TensorSpec("y", "FP32", (-1, 1))
    for name, function in (("function", "answers"), ("step", "slow"), ("five", "five"), ("five2", "five2")):
        add_function(made, name, f"service:{function}", inputs=[x], outputs=[y], alias="champion")
    publish(made.definitions.endpoints.values(), made.versions, made.routes, gated=())
    with starting.gateway(made, folder) as (port, token):
        yield made, port, token


def from_zero(executors: Callable[[], int], asks: Callable[[], object], turns: int) -> Turn:
    """Return the shortest time of an answer that is asked for once the model has left."""
    found = []
    asks()
    for _ in range(turns):
        until = time.monotonic() + LEAVES_S
        for there in (True, False):  # what is told may be of a moment ago
            while (executors() > 0) != there:
                if time.monotonic() > until:
                    return Turn(None)
                time.sleep(0.05)
        begun = time.perf_counter()
        asks()
        found.append(time.perf_counter() - begun)
    return Turn(min(found))


def step(port: int, asked: bytes, seconds: float = STEP_S) -> Turn:
    """Return how long after a step of load requests are answered in time again."""
    records: list[tuple[float, bool]] = []  # when it was due after the step, and whether it was in time
    kept, local = threading.Lock(), threading.local()

    def one(due: float, begun: float) -> None:
        try:
            connection = getattr(local, "connection", None)
            if connection is None:
                connection = local.connection = http.client.HTTPConnection(HOST, port, timeout=GIVES_UP_S)
                connection.connect()
            connection.sock.sendall(asked)
            response = http.client.HTTPResponse(connection.sock, method="POST")
            response.begin()
            response.read()
            ok = response.status == 200 and time.perf_counter() - due <= WITHIN_S
        except (OSError, http.client.HTTPException):
            local.connection, ok = None, False
        with kept:
            records.append((due - begun, ok))

    with ThreadPoolExecutor(256) as threads:
        begun = time.perf_counter() + 3.0  # of the load before
        for rate, start, end in ((BEFORE, begun - 3.0, begun), (AFTER, begun, begun + seconds)):
            for number in range(int((end - start) * rate)):
                due = start + number / rate
                time.sleep(max(0.0, due - time.perf_counter()))
                threads.submit(one, due, begun)
        threads.shutdown(cancel_futures=True)  # those that never had a connection
    after = sorted(each for each in records if each[0] >= 0)
    for begins, _ in after:
        within = [ok for at, ok in after if begins <= at < begins + 1.0]
        if len(within) >= 0.9 * AFTER and sum(within) >= IN_TIME * len(within):
            return Turn(begins)
    return Turn(None)


def bare_session(model: Path, row: Sequence[float], turns: int) -> float:
    """Return the shortest time that ONNX Runtime takes to load the model and answer."""
    found = []
    for _ in range(turns):
        begun = time.perf_counter()
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        session.run(None, {"x": np.asarray([row], np.float32)})
        found.append(time.perf_counter() - begun)
    return min(found)


def bare_process(row: Sequence[float], turns: int) -> float:
    """Return the shortest time of a fresh Python with NumPy that answers."""
    found = []
    for _ in range(turns):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", _BARE, *map(str, row)], check=True, capture_output=True)
        found.append(time.perf_counter() - begun)
    return min(found)


def ours(folder: Path, model: Path, row: list[float], chosen: argparse.Namespace) -> dict[str, float | None]:
    """Return our figures of all cases."""
    from mainspring.operations.scaling import live

    with serving(folder, model) as (made, port, token):
        auth = [("Authorization", f"Bearer {token}")]

        def asked(name: str) -> bytes:
            return request("ours", "mlp", port, row, auth).replace(b"/mlp/", f"/{name}/".encode(), 1)

        def executors(name: str) -> int:
            use = live(made).uses.endpoints.get(name)
            return -1 if use is None else use.executors

        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        wanted = session.run(None, {"x": np.asarray([row], np.float32)})[0].ravel().tolist()
        check([values("ours", ask(port, asked("network")))], [wanted], 1e-4)
        found: dict[str, float | None] = {}
        for name in ("network", "function"):
            turn = from_zero(partial(executors, name), partial(ask, port, asked(name)), chosen.turns)
            found[name] = turn.seconds
            print(name, turn, file=sys.stderr, flush=True)
        for name in ("one", "two"):
            while executors(name) != (2 if name == "two" else 1):
                time.sleep(0.1)
            rates = [Server(port, [asked(name)]).load(4, chosen.seconds).per_second for _ in range(chosen.rounds)]
            found[name] = max(rates)
            print(name, rates, file=sys.stderr, flush=True)
        found["step"] = step(port, asked("step")).seconds
        print("step", found["step"], file=sys.stderr, flush=True)
    return found


def residency(folder: Path, model: Path, row: list[float], chosen: argparse.Namespace) -> dict[str, Measured]:
    """Return what a gateway does with a bound on memory, and without."""
    from mainspring.delivery.routing import publish
    from mainspring.operations.models.adding import add_file

    turns: dict[str, list[Measured]] = {"bound": [], "none": []}
    service = 'import mainspring as ms\n\nms.Endpoint("network", model="network@champion", deadline="1s")\n'
    made = {}
    for name, settings in (("bound", '[profiles.local.gateway]\nmemory = "2GB"\n'), ("none", "")):
        place = folder / name
        place.mkdir()
        made[name] = starting.project(place, service, settings)
        add_file(made[name], "network", model, alias="champion")
        publish(made[name].definitions.endpoints.values(), made[name].versions, made[name].routes, gated=())
    for _ in range(chosen.rounds):
        for name, project in made.items():
            with starting.gateway(project, folder / name) as (port, token):
                asked = request("ours", "mlp", port, row, [("Authorization", f"Bearer {token}")])
                server = Server(port, [asked.replace(b"/mlp/", b"/network/", 1)])
                ask(port, server.requests[0])
                turns[name].append(timed(server.load, chosen.seconds))
                print(name, turns[name][-1], file=sys.stderr, flush=True)
    return {name: best(found, ("per_second", "per_busy_second")) for name, found in turns.items()}


def ray_serve(
    folder: Path, model: Path, row: list[float], chosen: argparse.Namespace
) -> tuple[dict[str, float | None], str]:
    """Return Ray Serve's figures, and why one is missing."""
    if why := starting.missing("ray"):
        return {}, why
    found: dict[str, float | None] = {}
    until = time.monotonic() + RAY_S
    for case in ("zero", "step"):
        place = folder / case
        place.mkdir()
        try:
            with _ray(place, case, model) as port:
                asked = request("ray", "mlp", port, row)
                ask(port, asked)
                told = place / "replicas"
                if case == "zero":

                    def replicas(told: Path = told) -> int:
                        if time.monotonic() > until:
                            raise RuntimeError(f"it took longer than {RAY_S:g} s")
                        return int(told.read_text()) if told.exists() else 0

                    turns = max(1, chosen.turns // 2)
                    found[case] = from_zero(replicas, partial(ask, port, asked), turns).seconds
                else:
                    found[case] = step(port, asked).seconds
                print("ray", case, found[case], file=sys.stderr, flush=True)
        except (RuntimeError, OSError) as error:
            return found, f"it did not answer: {error}"
    return found, ""


@contextmanager
def _ray(folder: Path, case: str, model: Path) -> Iterator[int]:
    port = starting.free_ports()
    command = [str(PEERS / "ray" / "bin" / "python"), str(starting.HERE / "scale_ray.py"), str(port), case, str(model)]
    told = {"PYTHONPATH": str(starting.HERE), **starting.SETTINGS["ray"]}
    with starting.process(command, port, folder, "ray", **told):
        yield port


def measure(chosen: argparse.Namespace) -> list[Case]:
    """Return the cases of all sides."""
    row = [float(each) for each in np.random.default_rng(3).normal(size=WIDTH).astype(np.float32)]
    with tempfile.TemporaryDirectory(prefix="scale-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        model, small = folder / "model.onnx", folder / "small.onnx"
        onnx_mlp(model, (WIDTH, *[1_536] * 4, 1))  # 28 MB
        onnx_mlp(small, (WIDTH, 64, 1))
        (folder / "ours").mkdir()
        mine = ours(folder / "ours", model, row, chosen)
        session, process = bare_session(model, row, chosen.turns), bare_process(row, chosen.turns)
        sides = residency(folder, small, row, chosen)
        peers, why = ({}, "not asked for") if chosen.no_peers else ray_serve(folder, model, row, chosen)
    notes = {"Ray Serve": why} if why else {}
    slow = notes or ({"Ray Serve": f"not in time within {STEP_S:g} s"} if peers.get("step") is None else {})

    def ms(value: float | None) -> float | None:
        return None if value is None else value * 1000

    bound, none = sides["bound"], sides["none"]
    return [
        Case("from zero to the first answer, a network of 28 MB", "ms", ms(mine["network"]), ms(session),
             {"Ray Serve": ms(peers.get("zero"))}, notes),
        Case("from zero to the first answer, a function in its process", "ms", ms(mine["function"]), ms(process)),
        Case("from a step of load until requests are in time", "s", mine["step"], None,
             {"Ray Serve": peers.get("step")}, slow),
        Case("two executors at once against one, 5 ms a row, 4 connections", "requests/s", mine["two"], mine["one"],
             more_is_better=True),
        Case("requests with a bound on memory against none", "requests/s", bound.per_second, none.per_second,
             more_is_better=True),
        Case("the same, per second of processor", "requests", bound.per_busy_second, none.per_busy_second,
             more_is_better=True),
        Case("a request with a bound on memory against none, one connection, p50", "µs", bound.alone_us, none.alone_us),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=5, help="of a cold start, of which the best counts")
    parser.add_argument("--no-peers", action="store_true")
    report("scale", measure(parser.parse_args()))


if __name__ == "__main__":
    main()
