"""The figures of one window, from its predictions and the labels that joined them. Pure: no store, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.schema import DType
from mainspring.monitoring.joins import json_rows
from mainspring.monitoring.model import ColumnDrift, Window
from mainspring.registry.model import Bundle
from mainspring.stats import drift, metrics
from mainspring.stats.reference import NUMERIC, Counts, Reference, count_bins

REFERENCE = "reference.json"


@dataclass(frozen=True, slots=True)
class Served:
    """What a bundle says of the predictions it makes."""

    task: str
    features: Mapping[str, DType]  # the model's inputs, by full name
    score: str  # the first output: what the log calls the score
    reference: Reference | None  # of both


def served(bundle: Bundle) -> Served:
    """Return what a bundle says; one without reference statistics is not judged for drift."""
    manifest, content = bundle.manifest, bundle.files.get(REFERENCE)
    return Served(
        task=manifest.task,
        features={each.name: each.dtype for each in manifest.inputs},
        score=manifest.outputs[0],
        reference=None if content is None else msgspec.json.decode(content, type=Reference),
    )


def empty_window(endpoint: str, start: int, end: int, now: int) -> Window:
    """Return the window of a time in which nobody asked."""
    return Window(
        endpoint=endpoint,
        start=start,
        end=end,
        predictions=0,
        p50_ms=None,
        p99_ms=None,
        labels=0,
        coverage=0.0,
        lag_p50_s=None,
        quality={},
        columns=(),
        versions={},
        computed_at=now,
    )


def with_traffic(window: Window, predictions: pa.Table) -> Window:
    """Return the window with its predictions counted, by version too, and their latency."""
    if not predictions.num_rows:
        return window
    p50, p99 = np.percentile(predictions["latency_us"].to_numpy(), [50, 99]) / 1e3
    return msgspec.structs.replace(
        window,
        predictions=predictions.num_rows,
        p50_ms=float(p50),
        p99_ms=float(p99),
        versions=dict(Counter(predictions["version"].to_pylist()).most_common()),
    )


def with_labels(window: Window, joined: pa.Table, task: str, now: int) -> Window:
    """Return the window with what `joined` (see `joins.join_labels`) says of its predictions' worth."""
    labels = joined.num_rows
    return msgspec.structs.replace(
        window,
        labels=labels,
        coverage=labels / window.predictions if window.predictions else 0.0,
        lag_p50_s=float(np.median(joined["lag_us"].to_numpy())) / 1e6 if labels else None,
        quality=_quality(joined, task),
        computed_at=now,
    )


def with_drift(window: Window, predictions: pa.Table, version: str, bundle: Served) -> Window:
    """Return the window with every column of `version`'s predictions judged against its bundle's reference.

    The score is one more column of the same family of tests. Nothing is judged below `drift.FEWEST_ROWS` predictions.
    """
    rows = predictions.num_rows
    if bundle.reference is None:
        return window
    window = msgspec.structs.replace(window, reference_version=version, reference_rows=rows)
    if rows < drift.FEWEST_ROWS:
        return window
    verdicts = drift.judge(bundle.reference, _count(predictions, bundle, bundle.reference))
    columns = [ColumnDrift(**msgspec.structs.asdict(verdict)) for verdict in verdicts]
    return msgspec.structs.replace(
        window,
        columns=tuple(each for each in columns if each.column != bundle.score),
        score=next((each for each in columns if each.column == bundle.score), None),
    )


def dominant(predictions: pa.Table) -> tuple[str, str]:
    """Return the version and digest that made most of the predictions; of several, the one that comes last."""
    made = Counter(
        (str(version), str(digest))
        for version, digest in zip(predictions["version"].to_pylist(), predictions["digest"].to_pylist(), strict=True)
    )
    order = {pair: place for place, pair in enumerate(made)}
    return max(made, key=lambda pair: (made[pair], order[pair]))


def with_alerts(windows: Sequence[Window]) -> list[Window]:
    """Return consecutive windows, oldest first, with an alert where a column drifted in two judged ones in a row.

    A window with too few predictions to judge says nothing, so it is passed over. The first has nothing before it and
    keeps its alerts.
    """
    result: list[Window] = []
    before: frozenset[str] | None = None
    for window in windows:
        if window.reference_version is None or not (window.columns or window.score):
            result.append(window)
            continue
        result.append(window if before is None else _with_alerts(window, before))
        judged = (*window.columns, *((window.score,) if window.score else ()))
        before = frozenset(each.column for each in judged if each.drifted)
    return result


def _with_alerts(window: Window, before: Collection[str]) -> Window:
    def decided(each: ColumnDrift) -> ColumnDrift:
        return msgspec.structs.replace(each, alert=each.drifted and each.column in before)

    return msgspec.structs.replace(
        window,
        columns=tuple(map(decided, window.columns)),
        score=None if window.score is None else decided(window.score),
    )


def _quality(joined: pa.Table, task: str) -> dict[str, float]:
    scored = joined.filter(pc.is_valid(joined["score"]))
    # The log's score is the first output: enough for one probability or one number, not for several classes.
    if not scored.num_rows or task == "multiclass" or not pa.types.is_floating(scored["label"].type):
        return {}
    return metrics.score(task, scored["label"].to_numpy(), scored["score"].to_numpy())


def _count(predictions: pa.Table, bundle: Served, reference: Reference) -> dict[str, Counts]:
    rows = json_rows(predictions["features"])
    told = predictions["personal"].unique().to_pylist()
    left_out = {name for names in told for name in msgspec.json.decode(str(names))}
    counts = {}
    for name, dtype in bundle.features.items():
        column = reference.columns.get(name)
        values = [row.get(name) for row in rows if name in row or name not in left_out]
        if column is not None and (values or not rows):
            counts[name] = count_bins(column, _as_trained(values, dtype) if column.kind == NUMERIC else _texts(values))
    if bundle.score in reference.columns:
        counts[bundle.score] = count_bins(reference.columns[bundle.score], _numbers(predictions["score"].to_pylist()))
    return counts


def _as_trained(values: Sequence[Any], dtype: DType) -> npt.NDArray[np.float64]:
    """Return the values in the precision of the reference: a client's 0.1 is the float32 that training saw."""
    numbers = _numbers(values)
    if dtype in (DType.Float32, DType.Boolean):
        with np.errstate(over="ignore"):
            return numbers.astype(np.float32).astype(np.float64)
    return numbers


def _texts(values: Sequence[Any]) -> list[Any]:
    return [value or None for value in values]  # "" is null to a model


def _numbers(values: Sequence[Any]) -> npt.NDArray[np.float64]:
    """Return the values as floats; a null, or what is no number, is NaN."""
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        return np.array([value if isinstance(value, int | float) else np.nan for value in values], dtype=np.float64)
