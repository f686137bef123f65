"""A simulation beside a run of the same requests against a real gateway on this machine."""

from __future__ import annotations

from mainspring.core.time import SECOND
from mainspring.operations.bench.load import loaded_gateway
from mainspring.operations.simulation.measuring import Measured, Told
from mainspring.project import Project
from mainspring.serving.simulation.arrivals import Instants
from mainspring.serving.simulation.fleet import Fixed
from mainspring.serving.simulation.simulator import simulate_often
from mainspring.serving.simulation_report import Checked


def checked(
    project: Project, found: Measured, arrivals: Instants, seed: int = 0, told: Told = lambda _: None
) -> Checked:
    """Send a load to a real gateway, and simulate it under the endpoint's own policy."""
    told(f"{len(arrivals):,} requests against a real gateway")
    predicted = simulate_often(
        found.endpoint(found.route.executors, found.cores), arrivals, lambda: Fixed(1), seed=seed
    )
    with loaded_gateway(project, found.route.endpoint) as loaded:
        loaded.warm_up()
        load, busy_s = loaded.replay((arrivals / SECOND).tolist())
    in_time = float((load.latencies_us <= found.route.deadline_us).sum())
    ours = {
        "goodput": predicted.goodput,
        "p50_ms": (predicted.quantile_us(0.5) or 0.0) / 1000,
        "p99_ms": (predicted.quantile_us(0.99) or 0.0) / 1000,
        "processor_s": predicted.processor_s,
    }
    real = {
        "goodput": in_time / predicted.seconds,
        "p50_ms": (load.quantile_us(0.5) or 0.0) / 1000,
        "p99_ms": (load.quantile_us(0.99) or 0.0) / 1000,
        "processor_s": busy_s,
    }
    errors = {name: abs(ours[name] / real[name] - 1) if real[name] else float("inf") for name in ours}
    return Checked(seconds=predicted.seconds, predicted=ours, measured=real, errors=errors)
