"""Re-evaluation of a bundle's model on its held-out rows: metrics with intervals, overall and by group."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from mainspring.core.errors import InvalidData, MissingExtra
from mainspring.core.schema import DType
from mainspring.governance.model import Estimate, Gap, Group, Performance, Slice
from mainspring.registry.bundles import HOLDOUT
from mainspring.registry.model import Bundle, several_labels
from mainspring.stats.intervals import intervals
from mainspring.stats.metrics import Metric, MetricFailed, class_places, higher_is_better, metrics_of, named, score
from mainspring.stats.thresholds import decided
from mainspring.training.flavours.scoring import score_bundle
from mainspring.training.frames import Array
from mainspring.training.sets.labels import LABEL, label_numbers

if TYPE_CHECKING:
    import pyarrow as pa

SECTION = "Performance"
SMALLEST_GROUP = 50  # rows
MOST_GROUPS = 12  # per feature
SEED = 0

_BASELINE = "baseline."
_CONFIDENCE = 0.95
_CATEGORICAL = (DType.String, DType.Boolean)


@dataclass(frozen=True, slots=True)
class _Effort:
    """Limits of the bootstrap: rows per resample, and rows drawn in total."""

    rows: int
    drawn: int

    def resamples(self, rows: int) -> int:
        return max(1, min(1000, self.drawn // min(rows, self.rows)))


_WHOLE = _Effort(50_000, 20_000_000)
_GROUP = _Effort(4_000, 1_000_000)  # there may be a hundred groups


def performance_of(
    bundle: Bundle, hidden: Collection[str], metrics: Sequence[Metric] = ()
) -> tuple[Performance | None, list[Gap]]:
    """Return the model's performance, `None` if unknown, and the gaps.

    Args:
        hidden: Features whose values identify a person; they are not sliced, as a slice shows values.
        metrics: The model's currently declared metrics, in addition to the task's.
    """
    import pyarrow.parquet as pq

    if HOLDOUT not in bundle.files:
        return None, [Gap(SECTION, "The bundle contains no held-out rows.", "train the model with a label.")]
    held_out = pq.read_table(BytesIO(bundle.files[HOLDOUT]))
    try:
        scores = score_bundle(bundle, held_out)
    except MissingExtra as error:
        return None, [Gap(SECTION, f"The held-out rows cannot be scored: {error.what}", error.fix or "")]
    try:
        labels = _truth(bundle, held_out)
    except InvalidData as error:
        return None, [Gap(SECTION, error.what, "train the model again.")]
    if not len(labels):
        return None, [Gap(SECTION, "There are no held-out rows.", "train the model on more observations.")]
    judged = _Judged(bundle, _further(bundle, metrics))
    overall = judged.estimates(labels, scores, _WHOLE, baseline=True)
    slices, gaps = _slices(judged, held_out, labels, scores, hidden)
    gaps += [
        Gap(SECTION, f"{each.metric} has no interval: too few rows define it.", "hold out more rows.")
        for each in overall
        if each.low is None and each.metric not in judged.failed
    ]
    gaps += [Gap(SECTION, what, "correct the metric's function.") for what in judged.failed.values()]
    gaps += _not_as_recorded(bundle, overall)
    return Performance(len(labels), overall, slices, SMALLEST_GROUP, _method(len(labels))), gaps


def _method(rows: int) -> str:
    drawn = f"{_WHOLE.resamples(rows):,} resamples of the held-out rows"
    if rows > _WHOLE.rows:
        drawn += f", {_WHOLE.rows:,} of them each, and intervals narrowed to what all rows would give"
    return (
        f"{_CONFIDENCE * 100:.0f} % percentile bootstrap: {drawn}, seed {SEED}, rows drawn independently (of "
        f"groups up to {_GROUP.rows:,} rows each). Where rows are correlated, as of one entity or one hour, the "
        "true interval is wider."
    )


def _further(bundle: Bundle, declared: Sequence[Metric]) -> tuple[Metric, ...]:
    """Return the version's recorded metrics beyond the task's, as far as they can be computed here."""
    known = {each.name: each for each in (*declared, *decided(bundle.manifest.extra))}
    base = metrics_of(bundle.manifest.task)
    recorded = [name for name in bundle.manifest.metrics if not name.startswith(_BASELINE) and name not in base]
    found = (known.get(name) or named(name) for name in recorded)
    return tuple(each for each in found if each is not None)


def _truth(bundle: Bundle, held_out: pa.Table) -> Array:
    """Return the labels in the form of `stats.metrics`, shape (rows,), or (rows, labels) for several."""
    if bundle.manifest.task != "multiclass":
        return label_numbers(held_out[LABEL], several_labels(bundle.manifest))
    return class_places(held_out[LABEL].to_pylist(), bundle.manifest.outputs).astype(np.float64)


class _Judged:
    """Estimates of a bundle's metrics. `failed` maps a failing custom metric to its error."""

    def __init__(self, bundle: Bundle, further: tuple[Metric, ...]) -> None:
        self.bundle = bundle
        self.failed: dict[str, str] = {}
        self._further = further

    def estimates(
        self, labels: Array, scores: Array, effort: _Effort, *, baseline: bool = False
    ) -> tuple[Estimate, ...]:
        task, recorded = self.bundle.manifest.task, self.bundle.manifest.metrics
        several = several_labels(self.bundle.manifest)
        values, further = score(task, labels, scores, labels=several), []
        for each in self._further:
            try:
                values |= score(task, labels, scores, [each], labels=several)
                further.append(each)
            except MetricFailed as error:
                self.failed[each.name] = error.what
        around = intervals(
            task, labels, scores, seed=SEED, resamples=effort.resamples(len(labels)), confidence=_CONFIDENCE,
            most_rows=effort.rows, more=further, labels=several,
        )  # fmt: skip
        found = []
        for name, value in values.items():
            interval = around.get(name)
            found.append(
                Estimate(
                    name,
                    value,
                    None if interval is None else interval.low,
                    None if interval is None else interval.high,
                    recorded.get(f"{_BASELINE}{name}") if baseline else None,
                    higher_is_better(name, self._further) is not False,
                )
            )
        return tuple(found)


def _not_as_recorded(bundle: Bundle, overall: Sequence[Estimate]) -> list[Gap]:
    """Return a gap if the recomputed metrics differ from the recorded ones, which invalidates the card's figures."""
    recorded = bundle.manifest.metrics
    differing = [
        f"{each.metric} is {each.value:.6g}, recorded was {recorded[each.metric]:.6g}"
        for each in overall
        if each.metric in recorded and abs(each.value - recorded[each.metric]) > 1e-6 * max(1.0, abs(each.value))
    ]
    if not differing:
        return []
    what = f"The model's predictions differ from those at training time: {'; '.join(differing)}."
    return [Gap(SECTION, what, "run `mainspring reproduce` on its run: packages or the machine may differ.")]


def _slices(
    judged: _Judged, held_out: pa.Table, labels: Array, scores: Array, hidden: Collection[str]
) -> tuple[tuple[Slice, ...], list[Gap]]:
    features = [each.name for each in judged.bundle.manifest.inputs if each.dtype in _CATEGORICAL]
    if not features:
        what = "No feature is categorical, so there is nothing to slice by."
        return (), [Gap(SECTION, what, "add a string or boolean feature, if groups matter.", required=False)]
    gaps = [
        Gap(
            SECTION,
            f"{name} cannot be a slice: its values may identify a person.",
            "evaluate such groups separately.",
            False,
        )
        for name in features
        if name in hidden
    ]
    shown = [name for name in features if name not in hidden]
    return tuple(_slice(judged, name, held_out[name].to_pylist(), labels, scores) for name in shown), gaps


def _slice(judged: _Judged, feature: str, values: Sequence[object], labels: Array, scores: Array) -> Slice:
    rows: dict[str | None, list[int]] = {}
    for place, value in enumerate(values):
        name = str(value).lower() if isinstance(value, bool) else str(value)
        rows.setdefault(None if value is None else name, []).append(place)
    ordered = sorted(rows.items(), key=lambda item: (-len(item[1]), item[0] is None, item[0] or ""))
    large = [(name, np.array(places)) for name, places in ordered if len(places) >= SMALLEST_GROUP][:MOST_GROUPS]
    groups = tuple(
        Group(name, len(places), judged.estimates(labels[places], scores[places], _GROUP)) for name, places in large
    )
    left_rows = len(values) - sum(group.rows for group in groups)
    return Slice(feature, groups, len(ordered) - len(groups), left_rows)
