"""Simulated loads against real ones on this machine: goodput, latencies and processor time.

Each case simulates a load, then sends the same requests at the same instants to a private gateway. "ours" is predicted,
"floor" is measured; a ratio of 1 is no error. A network runs in the gateway, a function waits 5 ms a row on one
executor, and one waits 20 ms a row on one to four. A short load test of each endpoint comes first, as users are told.

There is no peer: a simulation of other systems would say nothing of this one.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import starting
from networks import onnx_mlp
from report import Case, report

if TYPE_CHECKING:
    from mainspring.project import Project

WIDTH = 256
_SERVICE = """
import time

import numpy as np

import mainspring as ms

ms.Endpoint("network", model="network@champion", deadline="50ms")
ms.Endpoint("five", model="five@champion", deadline="250ms", executors=(1, 1))
ms.Endpoint("grows", model="twenty@champion", deadline="500ms", executors=(1, 4))


def five(x: np.ndarray) -> np.ndarray:
    time.sleep(0.005 * len(x))
    return x.sum(axis=1, keepdims=True)


def twenty(x: np.ndarray) -> np.ndarray:
    time.sleep(0.02 * len(x))
    return x.sum(axis=1, keepdims=True)
"""
LOADS = {
    "network": "{network}/s for {seconds}s",
    "five": "120/s for {seconds}s",
    "grows": "20/s for {third}s, 20-120/s for {third}s, 100/s for {third}s",
}


def served(folder: Path) -> Project:
    """Return a project with three endpoints."""
    from mainspring.delivery.routing import publish
    from mainspring.operations.models.adding import add_file, add_function
    from mainspring.registry.model import TensorSpec

    model = folder / "network.onnx"
    onnx_mlp(model, (WIDTH, 1024, 1024, 1))
    made = starting.project(folder, _SERVICE, '[profiles.local.gateway]\nmemory = "2GB"\n')
    add_file(made, "network", model, alias="champion")
    x, y = TensorSpec("x", "FP32", (-1, 16)), TensorSpec("y", "FP32", (-1, 1))
    for name in ("five", "twenty"):
        add_function(made, name, f"service:{name}", inputs=[x], outputs=[y], alias="champion")
    publish(made.definitions.endpoints.values(), made.versions, made.routes, gated=())
    return made


def cases(project: Project, endpoint: str, load: str) -> list[Case]:
    """Return the cases of one endpoint."""
    from mainspring.core.time import SECOND
    from mainspring.operations.bench.load import How, bench, loaded_gateway
    from mainspring.operations.simulating import endpoint_of, measured
    from mainspring.serving.simulation.arrivals import described
    from mainspring.serving.simulation.fleet import Fixed
    from mainspring.serving.simulation.simulator import simulate

    arrivals = described(load, 1)
    bench(project, endpoint, How(seconds=1.0))
    found = measured(project, endpoint)
    predicted = simulate(endpoint_of(found, found.route.executors, len(starting.CORES)), arrivals, Fixed(1), seed=1)
    with loaded_gateway(project, endpoint) as gateway:
        gateway.warm_up()
        time.sleep(1.0)
        real, busy_s = gateway.replay((arrivals / SECOND).tolist())
    in_time = int((real.latencies_us <= found.route.deadline_us).sum())
    notes = {} if not found.assumed else {"assumed": found.assumed[0]}
    rows = [
        ("goodput", "requests/s", predicted.goodput, in_time / predicted.seconds, True),
        ("p50", "ms", (predicted.quantile_us(0.5) or 0) / 1000, (real.quantile_us(0.5) or 0) / 1000, False),
        ("p99", "ms", (predicted.quantile_us(0.99) or 0) / 1000, (real.quantile_us(0.99) or 0) / 1000, False),
    ]
    if found.inline:  # of a function the other process has the rest
        rows.append(("processor time", "s", predicted.busy_s + predicted.loop_s, busy_s, False))
    return [
        Case(f"{endpoint}, {load}: {name}", unit, ours, floor, more_is_better=more, notes=notes)
        for name, unit, ours, floor, more in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=30, help="of each load")
    parser.add_argument("--network", type=int, default=400, help="requests a second to the network")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mainspring-simulate-") as folder:
        project = served(Path(folder))
        found = [
            case
            for endpoint, load in LOADS.items()
            for case in cases(
                project, endpoint,
                load.format(seconds=chosen.seconds, third=chosen.seconds // 3, network=chosen.network),
            )
        ]  # fmt: skip
    report("simulate", found)


if __name__ == "__main__":
    main()
