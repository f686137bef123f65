"""Cost of variants on the engine that serves them: by turns with the parent, so that a busy machine slows all alike."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import Any

import numpy as np
import pyarrow as pa

from mainspring.core.errors import MainspringError
from mainspring.delivery.engine import golden_call, measure
from mainspring.delivery.held_out import read_held_out
from mainspring.deploy.edge.golden import arrays_of, recorded_rows
from mainspring.operations.models.serving_memory import serving_memory
from mainspring.operations.optimise.energy import energy_uj
from mainspring.operations.optimise.model import Cost
from mainspring.operations.optimise.on_device import device_costs
from mainspring.operations.optimise.subject import Wish
from mainspring.project import Project
from mainspring.project.executors import executors
from mainspring.registry.bundles import MODEL
from mainspring.registry.model import Bundle
from mainspring.registry.providers import GPUS, provider_of
from mainspring.serving.ports import Executor, Loader
from mainspring.serving.protocol.tensor import DTYPES
from mainspring.training.flavours import Artefact
from mainspring.training.flavours.scoring import artefact_feeds

BATCH = 256
_LOADS = 3
_ALONE = 64  # rows that are asked alone, in batches of 7, and together
_FEW = 7
_FAR = 1000.0  # factor of a row that is added, whose size would move a scale of the whole batch
_AT_ONCE = 1024
_SLOW_NS, _SMALL_BATCH = 1e6, 16  # a model whose row takes a millisecond is measured with fewer

Array = np.ndarray[Any, Any]
_Rows = Mapping[str, Any]  # input -> values of a column, null for null; or a tensor


def costs(project: Project, bundles: Mapping[str, Bundle], wish: Wish) -> tuple[dict[str, Cost], dict[str, str]]:
    """Return the cost of each model by its name, and of those that the target does not run, why.

    Raises:
        Corrupt: A model does not load.
    """
    if wish.target == "edge":
        content = {name: each.files[MODEL] for name, each in bundles.items() if MODEL in each.files}
        found, failed = device_costs(content, {name: _feeds(bundles[name]) for name in content}, wish.device_memory)
        missing = set(bundles) - set(content)  # a library's own trees, which no device runs
        if missing:
            found |= _costs(project, {name: bundles[name] for name in missing}, memory=wish.memory)
        return found, failed
    return _costs(project, bundles, memory=wish.memory), {}


def _costs(project: Project, bundles: Mapping[str, Bundle], *, memory: bool) -> dict[str, Cost]:
    load, model_files = executors(project), {}
    with ExitStack() as stack:
        opened, load_ms = {}, {}
        for name, bundle in bundles.items():
            load_ms[name] = min(_load_ms(load, bundle) for _ in range(_LOADS))
            opened[name] = stack.enter_context(closing(load(bundle)))
            model_files[name] = sum(len(content) for file, content in bundle.files.items() if file.startswith("model."))
        one = measure([golden_call(bundles[name], opened[name], 1) for name in bundles], time.perf_counter_ns)
        rows = BATCH if float(np.median(one)) < _SLOW_NS else _SMALL_BATCH
        calls = {name: golden_call(bundles[name], opened[name], rows) for name in bundles}
        many = measure([*calls.values()], time.perf_counter_ns)
        on_gpu = {name: provider_of(bundle.manifest) in GPUS for name, bundle in bundles.items()}
        energy = {name: energy_uj(call, rows, gpu=on_gpu[name]) for name, call in calls.items()}
    found = {}
    for place, name in enumerate(bundles):
        batch = float(np.median(many[place])) / 1e3
        found[name] = Cost(
            bytes=model_files[name],
            load_ms=load_ms[name],
            p50_us=float(np.median(one[place])) / 1e3,
            p99_us=float(np.quantile(one[place], 0.99)) / 1e3,
            batch_rows=rows,
            batch_p50_us=batch,
            rows_a_second=rows / batch * 1e6,
            memory_bytes=_memory(project, bundles[name], rows) if memory else None,
            energy_uj_a_row=energy[name],
        )
    return found


def _feeds(bundle: Bundle) -> dict[str, Array]:
    """Return up to a batch of golden rows as inputs of the graph."""
    manifest, (inputs, _) = bundle.manifest, recorded_rows(bundle)
    if manifest.tensors:
        return {each.name: np.array(inputs[each.name], DTYPES[each.datatype])[:BATCH] for each in manifest.tensors}
    columns = arrays_of(inputs, manifest)
    feeds = artefact_feeds(Artefact("onnx", MODEL, bundle.files[MODEL]), columns, list(columns))
    return {name: values[:BATCH] for name, values in feeds.items()}


def _load_ms(load: Loader, bundle: Bundle) -> float:
    begun = time.perf_counter_ns()
    load(bundle).close()
    return (time.perf_counter_ns() - begun) / 1e6


def _memory(project: Project, bundle: Bundle, rows: int) -> int | None:
    try:
        return serving_memory(project, bundle, rows)
    except MainspringError:  # a system that does not tell it
        return None


def answers_of(project: Project, bundle: Bundle, rows: _Rows, count: int) -> Array:
    """Return the answers of the executor that serves a bundle, float64 of shape (rows, outputs), to lists of the values
    of columns, or arrays of tensors."""
    with closing(executors(project)(bundle)) as executor:
        return _in_batches(executor, rows, count, _AT_ONCE)


def apart(project: Project, bundle: Bundle) -> float:
    """Return the largest difference of a row's answers alone, in a small batch, and in a large one with a row far off.

    Raises:
        Corrupt: The model does not load or fails.
    """
    table = read_held_out(bundle)
    chosen = np.unique(np.linspace(0, table.num_rows - 1, min(_ALONE, table.num_rows)).astype(np.int64))
    return apart_of(project, bundle, _columns(bundle, table.take(chosen)), len(chosen))


def apart_of(project: Project, bundle: Bundle, rows: _Rows, count: int) -> float:
    """Return `apart` of these rows, at most 64.

    Args:
        rows: Lists of the values of columns, or arrays of tensors.
    """
    with closing(executors(project)(bundle)) as executor:
        together = _answers(executor, _with_far(rows), count + 1)[:count]
        others = [_in_batches(executor, rows, count, size) for size in (count, _FEW, 1)]
    worst = 0.0
    for each in others:
        difference = np.abs(each - together)
        difference[np.isnan(each) & np.isnan(together)] = 0.0
        difference[np.isnan(difference)] = np.inf
        worst = max(worst, float(difference.max(initial=0.0)))
    return worst


def _columns(bundle: Bundle, table: pa.Table) -> dict[str, list[Any]]:
    return {each.name: table.column(each.name).to_pylist() for each in bundle.manifest.inputs}


def _with_far(rows: _Rows) -> dict[str, Any]:
    """Return the rows and one more, whose fractional numbers are a thousand times those of the last."""
    return {
        name: np.concatenate([given, _far(given[-1:])]) if isinstance(given, np.ndarray) else [*given, _far(given[-1])]
        for name, given in rows.items()
    }


def _far(value: Any) -> Any:
    fractional = isinstance(value, float) or (isinstance(value, np.ndarray) and value.dtype.kind == "f")
    return value * _FAR if fractional else value


def _in_batches(executor: Executor, rows: _Rows, count: int, size: int) -> Array:
    parts = []
    for start in range(0, count, size):
        part = {name: values[start : start + size] for name, values in rows.items()}
        parts.append(_answers(executor, part, min(size, count - start)))
    return np.concatenate(parts)


def _answers(executor: Executor, rows: _Rows, count: int) -> Array:
    """Return the answers to rows, float64 of shape (rows, values of all outputs)."""
    found = executor.predict(rows, count)
    return np.concatenate([np.asarray(found[name], np.float64).reshape(count, -1) for name in executor.outputs], axis=1)
