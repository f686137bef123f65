"""Energy of a training, estimated from its run's system metrics.

Lannelongue, Grealey, Inouye (2021), Green Algorithms, https://doi.org/10.1002/advs.202100707: processors by
utilisation, memory by size. GPUs report their own power.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

WATTS_A_PROCESSOR = 12.0  # one core of an unknown type, at full load
WATTS_A_GB = 0.3725

CPU, MEMORY = "system/process_cpu_utilization_percentage", "system/process_memory_usage_megabytes"
_GPU = re.compile(r"system/gpu_(\d+)_power_usage_watts")

Points = Sequence[tuple[float, int, int]]  # value, step, time in microseconds, as in `Tracking.history`


def energy_wh(metrics: Mapping[str, float], history: Callable[[str], Points], seconds: float) -> tuple[float, str]:
    """Return the energy in watt hours and the method of estimation; 0 and no method if too little was recorded.

    Args:
        metrics: The run's metrics, by name.
        history: Returns the history of a metric.
        seconds: Duration of the run.
    """
    busy = history(CPU) if CPU in metrics else ()
    if not busy or seconds <= 0:
        return 0.0, ""
    memory = history(MEMORY) if MEMORY in metrics else ()
    watts = _mean(busy) / 100 * WATTS_A_PROCESSOR + _mean(memory) / 1000 * WATTS_A_GB
    gpus = [name for name in metrics if _GPU.fullmatch(name)]
    watts += sum(_mean(history(name)) for name in gpus)
    method = (
        f"Estimated from {len(busy)} sample{'s' * (len(busy) != 1)} of the process over {seconds:.3g} s: "
        f"{WATTS_A_PROCESSOR:g} W a busy processor (a type that is not known), {WATTS_A_GB:g} W a GB of its memory"
    )
    method += f", the power that {len(gpus)} GPU{'s' * (len(gpus) != 1)} reported, whole" if gpus else ", no GPU"
    return watts * seconds / 3600, f"{method}. Cooling, storage and network are not included."


def _mean(points: Points) -> float:
    """Return the mean over time: a sample covers the interval before it; the first, as long an interval as the
    second.
    """
    if not points:
        return 0.0
    ordered = sorted(points, key=lambda point: (point[2], point[1]))
    spans = [after[2] - before[2] for before, after in pairwise(ordered)]
    weights = [spans[0], *spans] if spans and sum(spans) else [1] * len(ordered)
    return sum(weight * value for weight, (value, _, _) in zip(weights, ordered, strict=True)) / sum(weights)
