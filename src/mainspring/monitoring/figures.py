"""Computation of a window from its predictions and joined labels. Pure: no store, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.errors import MainspringError
from mainspring.monitoring.hours import Made, latency_ms, no_latencies
from mainspring.monitoring.model import ColumnDrift, VersionDrift, VersionQuality, Window
from mainspring.monitoring.served import Served
from mainspring.stats import drift, metrics
from mainspring.stats.column_tests import FEWEST_ROWS
from mainspring.stats.metrics import Metric
from mainspring.training.sets.labels import label_numbers


def empty_window(endpoint: str, start: int, end: int, now: int) -> Window:
    """Return a window without predictions."""
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


def with_traffic(window: Window, made: Sequence[Made]) -> Window:
    """Return the window with its numbers of predictions, in total and by version, and its latency.

    Args:
        made: Predictions by version, see `hours.made`.
    """
    predictions: Counter[str] = Counter()
    for each in made:
        predictions[each.version] += each.rows
    latencies = sum((each.latencies for each in made), no_latencies())
    return msgspec.structs.replace(
        window,
        predictions=predictions.total(),
        p50_ms=latency_ms(latencies, 0.50),
        p99_ms=latency_ms(latencies, 0.99),
        versions=dict(sorted(predictions.items(), key=lambda item: -item[1])),
    )


def with_labels(window: Window, joined: pa.Table, versions: Mapping[str, Served], now: int) -> Window:
    """Return the window with quality, coverage and label lag from `joined` (see `joins.join_labels`).

    Args:
        versions: Version -> description of its bundle, for each predicting version; the most frequent comes first.
    """
    labels = joined.num_rows
    by_version = {}
    for version, bundle in versions.items():
        of_version = joined.filter(pc.equal(joined["version"], pa.scalar(version)))
        if of_version.num_rows:
            by_version[version] = VersionQuality(labels=of_version.num_rows, quality=_quality(of_version, bundle))
    return msgspec.structs.replace(
        window,
        labels=labels,
        coverage=labels / window.predictions if window.predictions else 0.0,
        lag_p50_s=float(np.median(joined["lag_us"].to_numpy())) / 1e6 if labels else None,
        quality=_quality(joined, next(iter(versions.values()), None)),
        by_version=by_version,
        computed_at=now,
    )


def with_drift(window: Window, made: Sequence[Made], served: Callable[[str], Served]) -> Window:
    """Return the window with a drift test of every column of each version's predictions against its own reference.

    The score is one more column in the same family of tests. With fewer than `FEWEST_ROWS` predictions, nothing is
    tested. The columns of the version with most predictions are the window's.

    Args:
        made: Predictions by version, that with most of them first.
        served: Returns the description of a bundle, by its digest.

    Raises:
        MainspringError: The bundle of the version with most predictions cannot be loaded.
    """
    if not made:
        return window
    first, *others = made
    window = _judged(window, first, served(first.digest))
    by_version = {}
    for each in others:
        with suppress(MainspringError):  # it is counted, and another version made most predictions
            found = _judged(window, each, served(each.digest))
            if found.reference_version == each.version and found.reference_rows >= FEWEST_ROWS:
                by_version[each.version] = VersionDrift(rows=each.rows, columns=found.columns, score=found.score)
    return msgspec.structs.replace(window, drift_by_version=by_version)


def _judged(window: Window, made: Made, bundle: Served) -> Window:
    if bundle.reference is None:
        return window
    rows = made.sketched
    window = msgspec.structs.replace(
        window, reference_version=made.version, reference_rows=rows, columns=(), score=None
    )
    if rows < FEWEST_ROWS or made.sketch is None:
        return window
    there = [name for name, rows in zip(made.sketch.columns, made.sketch.count("rows").tolist(), strict=True) if rows]
    verdicts = drift.judge(bundle.reference, made.sketch.select(there))
    columns = [ColumnDrift(**msgspec.structs.asdict(verdict)) for verdict in verdicts]
    return msgspec.structs.replace(
        window,
        columns=tuple(column for column in columns if column.column != bundle.score),
        score=next((column for column in columns if column.column == bundle.score), None),
    )


def with_alerts(windows: Sequence[Window]) -> list[Window]:
    """Return consecutive windows, oldest first, with alerts for columns that drifted in two tested windows in a row.

    A window with too few predictions for a test is skipped. The first tested window has no predecessor and keeps its
    alerts.
    """
    result: list[Window] = []
    before: frozenset[str] | None = None
    for window in windows:
        if window.reference_version is None or not window.judged:
            result.append(window)
            continue
        result.append(window if before is None else _with_alerts(window, before))
        before = frozenset(window.drifted)
    return result


def _with_alerts(window: Window, before: Collection[str]) -> Window:
    def decided(each: ColumnDrift) -> ColumnDrift:
        return msgspec.structs.replace(each, alert=each.drifted and each.column in before)

    return msgspec.structs.replace(
        window,
        columns=tuple(map(decided, window.columns)),
        score=None if window.score is None else decided(window.score),
    )


def _quality(joined: pa.Table, bundle: Served | None) -> dict[str, float]:
    task = "binary" if bundle is None else bundle.task
    labels = () if bundle is None else bundle.labels
    more = () if bundle is None else bundle.more
    kind = joined["label"].type
    if labels or pa.types.is_struct(kind):
        return _quality_of_each(joined, labels, more)
    scored = joined.filter(pc.is_valid(joined["score"]))
    # The log's score is the first output, which suffices for a probability or a number, not for several classes.
    if not scored.num_rows or task == "multiclass" or not pa.types.is_floating(kind):
        return {}
    return metrics.score(task, scored["label"].to_numpy(), scored["score"].to_numpy(), more)


def _quality_of_each(joined: pa.Table, labels: Sequence[str], more: Sequence[Metric]) -> dict[str, float]:
    """Return the quality of a version with several labels; empty if the current declaration lacks one of them."""
    kind = joined["label"].type
    columns = {kind.field(index).name for index in range(kind.num_fields)} if pa.types.is_struct(kind) else set()
    if not labels or not columns.issuperset(labels):
        return {}
    truth, scores = (label_numbers(joined[name], labels) for name in ("label", "score"))
    complete = np.isfinite(scores).all(axis=1)
    return metrics.score("regression", truth[complete], scores[complete], more, labels=labels) if complete.any() else {}
