"""Simulated loads against real ones on this machine: goodput, latencies and processor time.

Each case simulates a load, then sends the same requests at the same instants to a private gateway. "ours" is predicted,
"floor" is measured; a ratio of 1 is no error. A network runs in the gateway, a function waits 5 ms a row on one
executor, and one waits 20 ms a row on one to four. In each round the endpoint is measured, the load simulated, and
sent; of the rounds there are the medians, and the median of the ratios.

There is no peer: a simulation of other systems would say nothing of this one.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from statistics import median
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
UNITS = {"goodput": "requests/s", "p50_ms": "ms", "p99_ms": "ms", "processor_s": "s"}
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


def cases(project: Project, endpoint: str, load: str, rounds: int) -> list[Case]:
    """Return the cases of one endpoint: of several rounds of a measurement, a prediction and a run the medians."""
    from mainspring.operations.simulation.checking import checked
    from mainspring.operations.simulation.measuring import measured
    from mainspring.serving.simulation.arrivals import described

    arrivals = described(load, 1)
    found = []
    for _ in range(rounds):
        begun = os.getloadavg()[0]
        found.append(checked(project, measured(project, endpoint, arrivals), arrivals, seed=1))
        notes = {"ours": f"others keep {begun:.1f} to {os.getloadavg()[0]:.1f} processes ready"}
    cases = []
    for name, unit in UNITS.items():
        ours, floor = ([getattr(each, which)[name] for each in found] for which in ("predicted", "measured"))
        ratio = median([one / other for one, other in zip(ours, floor, strict=True)])
        cases.append(
            Case(
                f"{endpoint}, {load}: {name}", unit, median(ours), median(floor), more_is_better=True,
                paired={"floor": round(ratio, 3)}, notes=notes,
            )
        )  # fmt: skip
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=30, help="of each load")
    parser.add_argument("--network", type=int, default=400, help="requests a second to the network")
    parser.add_argument("--rounds", type=int, default=3, help="of a measurement, a prediction and a run")
    parser.add_argument("--only", choices=LOADS, help="one endpoint")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mainspring-simulate-") as folder:
        project = served(Path(folder))
        found = [
            case
            for endpoint, load in LOADS.items()
            if chosen.only in {None, endpoint}
            for case in cases(
                project, endpoint,
                load.format(seconds=chosen.seconds, third=chosen.seconds // 3, network=chosen.network), chosen.rounds,
            )
        ]  # fmt: skip
    report("simulate", found)


if __name__ == "__main__":
    main()
