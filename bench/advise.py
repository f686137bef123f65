"""Right-sizing against load tests on this machine: two cores from one, and INT8 from FP32; and the time it takes.

A network with few weights and much to compute runs on one core under a load test, as `mainspring advise size` does.
Predicted from that are the highest load of two gateways on two cores, where the clients have to share them, and that of
the network in INT8 on one core. Both are load-tested then. "ours" is predicted, "floor" is measured: a ratio of 1 is no
error. Of the time, "floor" is the five minutes that are aimed at; SageMaker's Inference Recommender says that it takes
up to 45 (its developer guide).

Before that, calls of networks in INT8 are predicted from FP32 and measured, without a gateway: of networks with wide
layers and with many, and of one that is slower in INT8.

Other work on the machine makes every case worthless: `load` in the notes is the run queue of the kernel over a minute.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import starting
from networks import onnx_mlp, onnx_positions
from report import Case, report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mainspring.operations.bench.load import LoadedGateway
    from mainspring.project import Project
    from mainspring.serving.model import Point

INPUTS, POSITIONS = 64, 128
SIZES = (1, 8, 32)
CLOSE = 1.05  # of loads that are compared
_SERVICE = """
import mainspring as ms

ms.Endpoint("network", model="network@champion", deadline="50ms")
ms.Endpoint("small", model="small@champion", deadline="50ms")
"""


def served(folder: Path, positions: int) -> Project:
    """Return a project with a network, and the same in INT8."""
    from mainspring.delivery.routing import publish
    from mainspring.operations.models.adding import add_file
    from mainspring.training.optimise.variants import NETWORKS

    content = folder / "network.onnx"
    onnx_positions(content, inputs=INPUTS, positions=positions)
    rows = np.random.default_rng(1).normal(size=(256, INPUTS)).astype(np.float32)
    small = folder / "small.onnx"
    small.write_bytes(NETWORKS["int8-static"].make(content.read_bytes(), lambda: {"x": rows}))
    made = starting.project(folder, _SERVICE)
    add_file(made, "network", content, alias="champion")
    add_file(made, "small", small, alias="champion")
    publish(made.definitions.endpoints.values(), made.versions, made.routes, gated=())
    return made


@contextmanager
def two(project: Project, endpoint: str) -> Iterator[list[LoadedGateway]]:
    """Run two gateways, one on each core, and let the clients have both."""
    from mainspring.operations.bench.load import loaded_gateway

    cores = starting.CORES
    with ExitStack() as stack:
        found = [stack.enter_context(loaded_gateway(project, endpoint)) for _ in range(2)]
        os.sched_setaffinity(0, cores)
        for place, pid in enumerate(_gateways()):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {cores[place % len(cores)]})
        yield found


def _gateways() -> list[int]:
    """Return the processes of the gateways that this one started."""
    import psutil

    found = psutil.Process().children(recursive=True)
    return sorted(each.pid for each in found if "mainspring.processes.gateway" in each.cmdline())


def together(gateways: list[LoadedGateway], seconds: float) -> float:
    """Return the highest load of gateways that get a half of it each, to 2.5 %."""
    from mainspring.serving.load.capacity import capacity, limits, point, search
    from mainspring.serving.load.generator import run
    from mainspring.serving.model import Point

    def one(gateway: LoadedGateway, rate: float, seed: int) -> Point:
        load = run(
            (gateway.address.host, gateway.address.port), gateway.requests, connections=32, seconds=seconds,
            rate=rate, warm_up_s=0.5, seed=seed, spins=False,
        )  # fmt: skip
        return point(load, gateway.route.deadline_us)

    def measure(rate: float) -> Point:
        with ThreadPoolExecutor(len(gateways)) as pool:
            halves = list(pool.map(one, gateways, [rate / len(gateways)] * len(gateways), range(len(gateways))))
        shares = [each.in_time for each in halves]
        return Point(
            offered=rate, answered=sum(each.answered for each in halves), in_time=sum(shares) / len(shares),
            refused=0.0, p50_us=None, p99_us=None, grew=any(each.grew for each in halves),
        )  # fmt: skip

    points = search(measure, first=400.0, close=1.05)
    return limits(points, capacity(points) or 0.0)[0]


def networks(folder: Path) -> Iterator[tuple[str, bytes, int]]:
    """Yield names of networks, their files and their inputs."""
    file = folder / "other.onnx"
    for name, inputs, positions, width in (
        ("128 positions of 384", 64, 128, 384),
        ("32 positions of 1,024", 128, 32, 1024),
    ):
        onnx_positions(file, inputs=inputs, positions=positions, width=width)
        yield name, file.read_bytes(), inputs
    for name, widths in (
        ("2 layers of 2,048", (64, 2048, 2048, 1)), ("12 layers of 256", (64, *[256] * 12, 1)),
        ("16 layers of 24", (16, *[24] * 16, 1)),
    ):  # fmt: skip
        onnx_mlp(file, widths)
        yield name, file.read_bytes(), widths[0]


def calls(folder: Path) -> Iterator[Case]:
    """Yield the time of calls in INT8, predicted from FP32 and measured."""
    from mainspring.serving.sizing.kernels import fastest, opened
    from mainspring.serving.sizing.layers import measured
    from mainspring.serving.sizing.probing import probe
    from mainspring.serving.sizing.roofline import expected_us
    from mainspring.serving.sizing.work import work_of
    from mainspring.training.optimise.variants import NETWORKS

    here = probe(together=False)
    for name, content, inputs in networks(folder):
        rows = np.random.default_rng(1).normal(size=(256, inputs)).astype(np.float32)
        small = NETWORKS["int8-static"].make(content, lambda rows=rows: {"x": rows})
        layers = measured(content, work_of(content), SIZES)
        both = opened(content), opened(small)
        for size, each in layers.items():
            found = fastest([(session, {"x": rows[:size]}) for session in both], seconds=0.3)
            took, real = (seconds * 1e6 for seconds in found)
            times = each.in_int8(took)
            roofs = [expected_us(work_of(each), size, here) for each in (content, small)]
            said = (
                f"{took / times.high:,.0f} to {took / times.low:,.0f} said; FP32 takes {took:,.0f}; "
                f"by the rooflines of both, as for other machines, {roofs[0]:,.0f} and {roofs[1]:,.0f}"
            )
            yield Case(f"{name}, {size} rows in INT8", "us", took / times.value, real, notes={"interval": said},
                       more_is_better=True)  # fmt: skip


def cases(project: Project, seconds: float) -> Iterator[Case]:
    """Yield the cases."""
    from mainspring.operations.advise.sizing import size
    from mainspring.operations.bench.load import How, bench
    from mainspring.serving.load.capacity import capacity, limits

    begun = time.monotonic()
    found = size(project, "network", 100.0, spare=0, again=True)
    took = time.monotonic() - begun
    tests = [each for each in project.baselines.newest("network", 5) if each.capacity == found.capacity]
    real_one = limits(tests[0].points, found.capacity)[0]
    here = next(each for each in found.choices if each.machine == "this machine")
    if len(starting.CORES) > 1:
        with two(project, "network") as gateways:
            client_us = _client_us(gateways[0])
            real = together(gateways, seconds)
        # The clients' time is not the gateway's: of each request they take so much of the two cores.
        predicted = _shared(here.rate.value, here.processes, client_us)
        low, high = (_shared(each, here.processes, client_us) for each in (here.rate.low, here.rate.high))
        said = f"{low:,.0f} to {high:,.0f} said; the clients take {client_us:.0f} us a request"
        yield Case("highest load on two cores from one", "requests/s", predicted, real, notes={"interval": said},
                   more_is_better=True)  # fmt: skip
    if found.int8 is not None:
        points = bench(project, "small", How(seconds=seconds, close=CLOSE)).points
        real_small = limits(points, capacity(points) or 0.0)[0]
        said = f"{found.int8.low:,.0f} to {found.int8.high:,.0f} said; FP32 has {real_one:,.0f}"
        yield Case("highest load in INT8 from FP32", "requests/s", found.int8.value, real_small,
                   notes={"interval": said}, more_is_better=True)  # fmt: skip
    yield Case("highest load on one core by simulation", "requests/s", found.simulated, real_one,
               more_is_better=True)  # fmt: skip
    load = {"load": f"{os.getloadavg()[0]:.1f}"}
    yield Case("right-size", "s", took, 300.0, peers={"sagemaker": 2700.0}, notes=load)


def _client_us(gateway: LoadedGateway) -> float:
    """Return the processor time of the client for a request."""
    from mainspring.serving.load.generator import run

    before = time.process_time()
    address = gateway.address.host, gateway.address.port
    load = run(address, gateway.requests, connections=16, seconds=1.0, rate=300.0, spins=False)
    return (time.process_time() - before) / load.answered * 1e6


def _shared(rate: float, cores: int, client_us: float) -> float:
    return 1 / (1 / rate + client_us / 1e6 / cores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load")
    parser.add_argument("--positions", type=int, default=POSITIONS, help="of the network")
    parser.add_argument("--only", choices=("calls", "load"), help="calls of networks, or load tests")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mainspring-advise-") as folder:
        found = [] if chosen.only == "load" else list(calls(Path(folder)))
        if chosen.only != "calls":
            found += cases(served(Path(folder), chosen.positions), chosen.seconds)
        report("advise", found)


if __name__ == "__main__":
    main()
