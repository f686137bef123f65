"""Cost of variants on the engine that serves them: by turns with the parent, so that a busy machine slows all alike."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mainspring.core.errors import MainspringError
from mainspring.delivery.engine import golden_call, measure
from mainspring.delivery.held_out import read_held_out
from mainspring.operations.models.serving_memory import serving_memory
from mainspring.operations.optimise.model import Cost
from mainspring.project import Project
from mainspring.project.executors import executors
from mainspring.registry.model import Bundle
from mainspring.serving.ports import Executor, Loader

BATCH = 256
_LOADS = 3
_ALONE = 64  # rows that are asked alone, in batches of 7, and together
_FEW = 7
_FAR = 1000.0  # factor of a row that is added, whose size would move a scale of the whole batch
_ENERGY_S = 0.3
_POWERCAP = Path("/sys/class/powercap")

Array = np.ndarray[Any, Any]
_Rows = dict[str, list[Any]]  # input -> values, null for null


def costs(project: Project, bundles: Mapping[str, Bundle], *, memory: bool = True) -> dict[str, Cost]:
    """Return the cost of each model, by its name.

    Args:
        memory: Whether to measure the memory too, in a process of its own for each.

    Raises:
        Corrupt: A model does not load.
    """
    load, model_files = executors(project), {}
    with ExitStack() as stack:
        opened, load_ms = {}, {}
        for name, bundle in bundles.items():
            load_ms[name] = min(_load_ms(load, bundle) for _ in range(_LOADS))
            opened[name] = stack.enter_context(closing(load(bundle)))
            model_files[name] = sum(len(content) for file, content in bundle.files.items() if file.startswith("model."))
        one = measure([golden_call(bundles[name], opened[name], 1) for name in bundles], time.perf_counter_ns)
        calls = {name: golden_call(bundles[name], opened[name], BATCH) for name in bundles}
        many = measure([*calls.values()], time.perf_counter_ns)
        energy = {name: _energy_uj_a_row(call) for name, call in calls.items()}
    found = {}
    for place, name in enumerate(bundles):
        batch = float(np.median(many[place])) / 1e3
        found[name] = Cost(
            bytes=model_files[name],
            load_ms=load_ms[name],
            p50_us=float(np.median(one[place])) / 1e3,
            p99_us=float(np.quantile(one[place], 0.99)) / 1e3,
            batch_rows=BATCH,
            batch_p50_us=batch,
            rows_a_second=BATCH / batch * 1e6,
            memory_bytes=_memory(project, bundles[name]) if memory else None,
            energy_uj_a_row=energy[name],
        )
    return found


def _load_ms(load: Loader, bundle: Bundle) -> float:
    begun = time.perf_counter_ns()
    load(bundle).close()
    return (time.perf_counter_ns() - begun) / 1e6


def _memory(project: Project, bundle: Bundle) -> int | None:
    try:
        return serving_memory(project, bundle, BATCH)
    except MainspringError:  # a system that does not tell it
        return None


def _energy_uj_a_row(call: Any) -> float | None:
    """Return the energy that the processor's packages took for a row, by RAPL; `None` where it cannot be read."""
    before = _counters(_POWERCAP)
    if not before:
        return None
    turns, until = 0, time.perf_counter() + _ENERGY_S
    while time.perf_counter() < until:
        call(turns)
        turns += 1
    after = _counters(_POWERCAP)
    spent = [after[name] - at for name, at in before.items() if name in after]
    if not spent or min(spent) < 0:  # a counter began anew
        return None
    return sum(spent) / (turns * BATCH)


def _counters(place: Path) -> dict[str, int]:
    """Return the counters of the packages, µJ. Most systems show them to root alone."""
    found = {}
    for each in sorted(place.glob("intel-rapl:[0-9]")):
        try:
            found[each.name] = int((each / "energy_uj").read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
    return found


def apart(project: Project, bundle: Bundle) -> float:
    """Return the largest difference of a row's answers alone, in a small batch, and in a large one with a row far off.

    Raises:
        Corrupt: The model does not load or fails.
    """
    table = read_held_out(bundle)
    chosen = np.unique(np.linspace(0, table.num_rows - 1, min(_ALONE, table.num_rows)).astype(np.int64))
    rows = _columns(bundle, table.take(chosen))
    with closing(executors(project)(bundle)) as executor:
        together = _answers(executor, _with_far(rows), len(chosen) + 1)[: len(chosen)]
        plain = _in_batches(executor, rows, len(chosen), len(chosen))
        few = _in_batches(executor, rows, len(chosen), _FEW)
        alone = _in_batches(executor, rows, len(chosen), 1)
    worst = 0.0
    for each in (plain, few, alone):
        difference = np.abs(each - together)
        difference[np.isnan(each) & np.isnan(together)] = 0.0
        difference[np.isnan(difference)] = np.inf
        worst = max(worst, float(difference.max(initial=0.0)))
    return worst


def _columns(bundle: Bundle, table: pa.Table) -> _Rows:
    return {each.name: table.column(each.name).to_pylist() for each in bundle.manifest.inputs}


def _with_far(rows: _Rows) -> _Rows:
    """Return the rows and one more, whose fractional numbers are a thousand times those of the last."""
    return {name: [*given, _far(given[-1])] for name, given in rows.items()}


def _far(value: Any) -> Any:
    return value * _FAR if isinstance(value, float) else value


def _in_batches(executor: Executor, rows: _Rows, count: int, size: int) -> Array:
    parts = []
    for start in range(0, count, size):
        part = {name: values[start : start + size] for name, values in rows.items()}
        parts.append(_answers(executor, part, min(size, count - start)))
    return np.concatenate(parts)


def _answers(executor: Executor, rows: _Rows, count: int) -> Array:
    """Return the answers to rows, float64 of shape (rows, outputs)."""
    found = executor.predict(rows, count)
    return np.stack([np.asarray(found[name], np.float64) for name in executor.outputs], axis=1)
