"""Cost of a version on the engine that serves it: latency, latency beside the champion's, memory, and size.

The golden rows run through the executors that a gateway would use, one call after the other. The candidate and the
champion take turns, so that a busy machine slows both, and their ratio has an interval over stretches of turns.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from typing import Any

import msgspec
import numpy as np

from mainspring.core.errors import Invalid, MainspringError
from mainspring.delivery.model import ROUNDING, GateResult, nothing
from mainspring.registry.bundles import GOLDEN
from mainspring.registry.model import Bundle
from mainspring.serving.plane.executor import arrays
from mainspring.serving.plane.golden import Golden
from mainspring.serving.ports import Executor, Loader
from mainspring.stats.jackknife import Floats, estimate
from mainspring.training.gate_kinds import EngineGate

TURNS, FEWEST_TURNS = 1000, 100
LONGEST_NS = 4_000_000_000
_LONGEST_OF_FEW_NS = 120_000_000_000  # for the fewest turns of a slow model
_STRETCHES = 20
_WARM = 5

Now = Callable[[], int]  # nanoseconds, monotonic


def bundle_bytes(bundle: Bundle, load: Callable[[str], Bundle]) -> int:
    """Return the size of a bundle's files, and of those of the models of its graph, each once.

    Args:
        load: Returns the bundle of a digest.
    """
    waiting, seen, total = [bundle], {bundle.digest}, 0
    while waiting:
        each = waiting.pop()
        total += sum(map(len, each.files.values()))
        nodes = each.manifest.graph.nodes if each.manifest.graph else ()
        for digest in dict.fromkeys(node.bundle for node in nodes if node.bundle and node.bundle not in seen):
            seen.add(digest)
            waiting.append(load(digest))
    return total


def judge_size(gate: EngineGate, bundle: Bundle, load: Callable[[str], Bundle]) -> GateResult:
    """Return the result of the gate on a bundle's size; `load` is that of `bundle_bytes`."""
    try:
        size = float(bundle_bytes(bundle, load))
    except MainspringError as error:
        return nothing(gate, "limit", error.what, error.fix)
    return _at_most(gate, "limit", size, gate.value, note="bytes of the bundle's files")


def judge_memory(gate: EngineGate, bundle: Bundle, memory: Callable[[Bundle, int], int]) -> GateResult:
    """Return the result of the gate on memory. `memory` measures it in bytes, for a batch of some rows."""
    if GOLDEN not in bundle.files:
        return nothing(gate, "limit", "the bundle has no golden rows to measure with.", "register it again.")
    try:
        taken = memory(bundle, gate.rows)
    except MainspringError as error:
        return nothing(gate, "limit", error.what, error.fix)
    return _at_most(gate, "limit", float(taken), gate.value, note=f"bytes, with a batch of {gate.rows:,} rows")


def judge_latency(
    gate: EngineGate,
    candidate: Bundle,
    champion: tuple[Bundle, str] | None,
    load: Loader,
    *,
    now: Now = time.perf_counter_ns,
) -> GateResult:
    """Return the result of a gate on latency, or on latency relative to the champion's.

    Args:
        champion: Its bundle and its version; `None` if there is none, or it does not matter.
        now: The clock.
    """
    relative = gate.kind == "slower"
    against = "limit" if champion is None else f"champion {champion[1]}"
    bundles = [candidate, *([champion[0]] if champion is not None and relative else [])]
    if any(GOLDEN not in each.files for each in bundles):
        return nothing(gate, against, "a bundle has no golden rows to measure with.", "register it again.")
    with ExitStack() as stack:
        try:
            calls = []
            for each in bundles:
                executor = stack.enter_context(closing(load(each)))
                calls.append(golden_call(each, executor, gate.rows))
            taken = measure(calls, now)
        except MainspringError as error:
            return nothing(gate, against, f"the model does not run: {error.what}", error.fix)
    rows = f"{taken.shape[1]:,} calls of {gate.rows:,} {'row' if gate.rows == 1 else 'rows'}"
    needed = max(_STRETCHES, math.ceil(1 / (1 - gate.quantile) - ROUNDING))
    if taken.shape[1] < needed:
        note = f"insufficient data: {rows} in two minutes, and at least {needed} are needed."
        return nothing(gate, against, note, "measure fewer rows a call, or a smaller quantile.")
    quantiles = np.quantile(taken, gate.quantile, axis=1) / 1e6
    if not relative:
        return _at_most(gate, "limit", float(quantiles[0]), gate.value, note=f"ms, {rows}")
    return _ratio(gate, against, taken, f"{rows}: {quantiles[0]:.3g} ms beside {quantiles[1]:.3g} ms")


def measure(calls: list[Callable[[int], object]], now: Now) -> Floats:
    """Return how long each call took by turns, ns, shape (calls, turns); the first of each turn alternates.

    At most 1,000 turns or four seconds, but at least 100 turns, unless they take more than two minutes.
    """
    for call in calls:
        begun = now()
        for turn in range(_WARM):
            call(turn)
            if now() - begun > LONGEST_NS:
                break
    taken: list[list[int]] = []
    begun = now()
    while len(taken) < TURNS and now() - begun < (_LONGEST_OF_FEW_NS if len(taken) < FEWEST_TURNS else LONGEST_NS):
        turn = len(taken)
        row = [0] * len(calls)
        for place in range(len(calls)) if turn % 2 else reversed(range(len(calls))):
            start = now()
            calls[place](turn)
            row[place] = now() - start
        taken.append(row)
    return np.array(taken, np.float64).T


def golden_call(bundle: Bundle, executor: Executor, rows: int) -> Callable[[int], object]:
    """Return a function that runs one batch; its turn chooses the rows."""
    golden = msgspec.json.decode(bundle.files[GOLDEN], type=Golden)
    known = len(next(iter(golden.outputs.values()), ()))
    if not known:
        raise Invalid("The bundle's file of golden rows has none.", fix="register it again.")
    batches: list[Mapping[str, Any]] = []
    for first in range(min(known, 50)):
        chosen = [(first + place) % known for place in range(rows)]
        inputs = {name: [values[place] for place in chosen] for name, values in golden.inputs.items()}
        batches.append(arrays(inputs, executor, bundle.manifest, rows))
    return lambda turn: executor.predict(batches[turn % len(batches)], rows)


def _ratio(gate: EngineGate, against: str, taken: Floats, note: str) -> GateResult:
    """Return the result for the ratio of the two quantiles, on its upper bound if the gate is to be sure."""
    turns = taken.shape[1]
    stretch = np.arange(turns) * _STRETCHES // turns

    def log_ratio(kept: Any) -> float:
        ours, theirs = np.quantile(taken[:, kept], gate.quantile, axis=1)
        return float(np.log(ours / theirs))

    every = np.ones(turns, np.bool_)
    without = [log_ratio(stretch != each) for each in range(_STRETCHES)]
    found = estimate(np.array([log_ratio(every), *without]), stretch)
    value = float(np.exp(found.value))
    if gate.sure is None:
        return _at_most(gate, against, value, gate.value, note=note)
    low, high = np.exp(found.bounds(gate.sure)).tolist()
    result = _at_most(gate, against, high, gate.value, note=note)
    return msgspec.structs.replace(result, value=value, interval=(low, high), sure=gate.sure)


def _at_most(gate: EngineGate, against: str, value: float, limit: float, note: str) -> GateResult:
    passed = value - limit <= ROUNDING
    return GateResult(
        gate=str(gate),
        against=against,
        value=value,
        needed=limit,
        passed=passed,
        short_by=0.0 if passed else value - limit,
        note=note,
    )
