"""Sums of predictions and their labels by version, hour, segment and age of the prediction."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.time import DAY, HOUR, MINUTE, SECOND
from mainspring.features.definitions import load
from mainspring.features.describe.personal import personal_names
from mainspring.monitoring.joins import OUTPUTS, distinct, join_labels, label_counts
from mainspring.monitoring.model import LabelRows
from mainspring.monitoring.quality.declared import Forecast, Ranking
from mainspring.monitoring.quality.documents import FEATURES, Documents, combined, segments_by
from mainspring.monitoring.quality.sql_metrics import SqlMetric
from mainspring.monitoring.quality.table import Key
from mainspring.registry.bundles import FEATURES as FEATURE_FILE
from mainspring.registry.model import Bundle, several_labels
from mainspring.stats.crossings import Crossing
from mainspring.stats.quality_sums import (
    BINS,
    EDGES,
    LEAST,
    NO_BINS,
    PLACE,
    Floats,
    Ints,
    Rows,
    Sums,
    contributions,
    grouped,
    scores_summed,
    with_rankings,
)
from mainspring.stats.reference import ColumnReference, Reference
from mainspring.stats.segmenting import text_of
from mainspring.stats.thresholds import THRESHOLD

# Ages of predictions by which labels are counted: the curve of label coverage has these points.
AGES_US = (
    5 * MINUTE, 15 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 3 * DAY, 7 * DAY, 14 * DAY, 30 * DAY,
)  # fmt: skip
TASKS = ("binary", "multiclass", "regression")
EVER_S = 1 << 40  # the age of labels that came later still
AGES_S = (*(age // SECOND for age in AGES_US), EVER_S)
LABELLED = 1  # the age in sums by day of labels known by their horizon, whose own ages are not kept
READ = ("id", "version", "digest", "at", "keys", "score", OUTPUTS)
_CAP = 10.0  # times the mean absolute error on held-out rows: larger errors count as this in the test of harm


@dataclass(frozen=True)
class Judged:
    """Facts about a bundle that its quality is measured by."""

    task: str
    outputs: tuple[str, ...]
    labels: tuple[str, ...]
    threshold: float | None
    cap: float
    columns: dict[str, ColumnReference]
    personal: frozenset[str] = frozenset()  # features, keys and request fields that identify a person
    caps: Mapping[str, float] = field(default_factory=dict)  # of several labels, by name
    crossing: Crossing | None = None  # maker of the segments to be found; `None` in bundles of older releases

    def edges_of(self, output: str) -> Floats | None:
        """Return the edges of the bins of scores; `None` if they have none.

        Args:
            output: One of several labels; empty for the only one.
        """
        if self.task != "regression":
            return EDGES if self.task in TASKS else None
        column = None if self.labels and not output else self.columns.get(output or self.outputs[0])
        return None if column is None or len(column.edges) != BINS - 1 else np.array(column.edges)

    def cap_of(self, output: str) -> float:
        return self.caps.get(output, self.cap)

    @classmethod
    def of(cls, bundle: Bundle) -> Judged:
        manifest, content = bundle.manifest, bundle.files.get("reference.json")
        reference = Reference({}) if content is None else msgspec.json.decode(content, type=Reference)
        hidden = personal_names(*load(bundle.files[FEATURE_FILE])) if FEATURE_FILE in bundle.files else frozenset()
        labels = several_labels(manifest)
        errors = {name: manifest.metrics.get(f"mae.{name}" if name else "mae") for name in ("", *labels)}
        caps = {name: math.inf if error is None else _CAP * error for name, error in errors.items()}
        return cls(
            task=manifest.task,
            outputs=manifest.outputs,
            labels=labels,
            threshold=manifest.extra.get(THRESHOLD, {}).get("value"),
            cap=caps[""] if manifest.task == "regression" else -math.log(LEAST),
            caps=caps if manifest.task == "regression" else {},
            columns=reference.columns,
            personal=hidden,
            crossing=Crossing(reference, "", tuple(hidden)) or None,
        )


@dataclass(frozen=True)
class Watched:
    """Segments, rankings, forecasts and columns of fairness declared for an endpoint.

    Attributes:
        fairness: Columns whose combinations of values are segments too, but for those that identify a person.
        personal: Whether also those; what is measured must then not be stored.
        metrics: Business metrics in SQL.
        crossed: Whether quality is also measured in the bins, and pairs of bins, of the features that matter.
    """

    segments: Sequence[str] = ()
    ranking: Ranking | None = None
    forecast: Forecast | None = None
    fairness: Sequence[str] = ()
    personal: bool = False
    metrics: Sequence[SqlMetric] = ()
    crossed: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of predictions to read."""
        named = self.segments or self.ranking or self.forecast or self.fairness or self.crossed
        request = ("request",) if any("." not in name for name in self.fairness) else ()
        return (*READ, FEATURES, *request) if named else READ

    @property
    def all_segments(self) -> tuple[str, ...]:
        return (*self.segments, *((self.forecast.horizon,) if self.forecast else ()))


class Measuring:
    """Adds up predictions with their labels, batch by batch.

    Args:
        judged: Returns the description of a bundle by its digest.
        until: Labels visible by this time are included, UTC epoch microseconds.
        since: Start of the first hour that is measured.

    Attributes:
        sums: The sums so far.
        crossed: Those in bins and pairs of bins, by day, without counts of predictions and without bins of the score.
            Only labels known by their horizon are in them. `hour` is the start of the day, or `since` in the first.
    """

    def __init__(
        self,
        labels: LabelRows | None,
        judged: Callable[[str], Judged],
        watched: Watched,
        until: int,
        since: int = 0,
    ) -> None:
        self.sums: dict[Key, Sums] = {}
        self.crossed: dict[Key, Sums] = {}
        self._since = since
        self._labels = labels
        self._judged = judged
        self._watched = watched
        self._until = until

    def add(self, predictions: pa.Table) -> None:
        """Add predictions with the columns `Watched.columns`; a later row of one id is ignored."""
        predictions = distinct(predictions)
        joined, labelled, counts = self._joined(predictions)
        documents = Documents(predictions)
        hours = np.asarray(predictions["at"].cast(pa.int64()).to_numpy(), np.int64) // HOUR * HOUR
        scores = _floats(predictions["score"])
        pairs = predictions.select(["version", "digest"]).group_by(["version", "digest"]).aggregate([])
        for pair in pairs.to_pylist():
            version, digest = str(pair["version"]), str(pair["digest"])
            same = [pc.equal(predictions[name], pa.scalar(text)) for name, text in pair.items()]
            mine = np.asarray(pc.and_(*same).to_numpy(), np.bool_)
            kept = mine[labelled]
            judged = self._judged(digest)
            batch = _Batch(version, digest, judged, documents, hours, scores, labelled[kept], counts[kept])
            self._add_version(batch, mine, None if joined is None else joined.filter(pa.array(kept)))

    def _joined(self, predictions: pa.Table) -> tuple[pa.Table | None, Ints, Ints]:
        """Return labelled rows, their places among the predictions, and their numbers of label rows and values."""
        if self._labels is None:
            return None, np.zeros(0, np.int64), np.zeros((0, 2), np.int64)
        joined = join_labels(predictions, self._labels, self._until)
        place = np.asarray(pc.index_in(joined["id"], predictions["id"].combine_chunks()).to_numpy(), np.int64)
        repeated = label_counts(predictions, self._labels, self._until)
        at = pc.index_in(joined["id"], repeated["id"].combine_chunks())
        counts = [
            np.array([1 if each is None else each for each in repeated[name].take(at).to_pylist()], np.int64)
            for name in ("rows", "values")
        ]
        return joined, place, np.stack(counts, axis=1)

    def _add_version(self, batch: _Batch, mine: npt.NDArray[np.bool_], joined: pa.Table | None) -> None:
        """Add the predictions of one version, of which `batch` has the labelled ones."""
        judged = batch.judged
        measured = joined is not None and judged.task in TASKS
        parts = list(_outputs(batch, joined)) if measured and joined is not None else []
        binned = list(batch.shown(np.flatnonzero(mine)))
        for segments in self._segmentations(judged, batch.documents, mine):
            for (hour, segment), among in _groups(batch.hours[mine], segments[mine]):
                sums = Sums.nothing()
                sums.totals[PLACE["predictions"]] = among.sum()
                self._put(batch.key(hour, segment, "", 0), sums)
                for output, shown, edges in binned:  # of several labels, the counts are in the row without an output
                    bins = scores_summed(shown[among], edges)
                    self._put(batch.key(hour, segment, output, 0), Sums(np.zeros(len(PLACE)), bins))
            for part in parts:
                self._add_labelled(batch, part, segments[batch.rows])
        for part in parts if self._watched.crossed else ():
            self._add_crossed(batch, part)

    def _add_crossed(self, batch: _Batch, part: _Part) -> None:
        crossing, labels = batch.judged.crossing, self._labels
        if crossing is None or labels is None:
            return
        found, _ = contributions(batch.judged.task, self._rows(batch, part))
        values = batch.documents.features(crossing.names, batch.rows)
        days = np.maximum(batch.hours[batch.rows] // DAY * DAY, self._since)
        for day in np.unique(days).tolist():
            mine = np.flatnonzero((days == day) & (part.lag_us <= labels.horizon_us))
            own = {name: [column[row] for row in mine.tolist()] for name, column in values.items()}
            for segment, totals in crossing.totals(own, found[mine]).items():
                key, sums = batch.key(day, segment, part.output, LABELLED), Sums(totals, NO_BINS)
                before = self.crossed.get(key)
                self.crossed[key] = sums if before is None else before + sums

    def _add_labelled(self, batch: _Batch, part: _Part, segments: npt.NDArray[Any]) -> None:
        rows = self._rows(batch, part)
        found, place = contributions(batch.judged.task, rows)
        found[:, PLACE["repeated"]] = batch.counts[:, 0] > 1
        found[:, PLACE["contradicted"]] = batch.counts[:, 1] > 1
        ages = np.searchsorted(np.array(AGES_US), part.lag_us, side="left")
        names, code = np.unique(segments.astype(str), return_inverse=True)
        starts, hour = np.unique(batch.hours[batch.rows], return_inverse=True)
        group = (code * starts.size + hour) * len(AGES_S) + ages
        used, dense = np.unique(group, return_inverse=True)
        numbers = batch.judged.task == "regression"
        totals, bins = grouped(found, place, rows.shown, dense, used.size, numbers=numbers)
        for number, each in enumerate(used.tolist()):
            rest, age = divmod(each, len(AGES_S))
            name, start = divmod(rest, starts.size)
            key = batch.key(int(starts[start]), str(names[name]), part.output, AGES_S[age])
            self._put(key, Sums(totals[number], bins[number]))
        if self._watched.ranking is not None:
            self._add_rankings(self._watched.ranking, batch, part, segments, ages)

    def _add_rankings(
        self, ranking: Ranking, batch: _Batch, part: _Part, segments: npt.NDArray[Any], ages: Ints
    ) -> None:
        known = np.isfinite(part.score) & np.isfinite(part.label)
        texts = ["" if value is None else text_of(value) for value in batch.documents.values(ranking.group, batch.rows)]
        unique, group = np.unique(np.array(texts, dtype=str), return_inverse=True)
        first, last = np.full(unique.size, np.iinfo(np.int64).max), np.zeros(unique.size, np.int64)
        np.minimum.at(first, group, batch.hours[batch.rows])  # a ranking belongs to the hour of its first row,
        np.maximum.at(last, group, ages)  # and is as old as the last of its labels
        for (hour, segment), among in _groups(first[group], segments):
            for age in np.unique(last[group[among]]).tolist():
                chosen = among & known & (last[group] == age)
                key = batch.key(hour, segment, part.output, AGES_S[age])
                before = self.sums.get(key, Sums.nothing())
                self.sums[key] = with_rankings(before, part.score[chosen], part.label[chosen], group[chosen], ranking.k)

    def _rows(self, batch: _Batch, part: _Part) -> Rows:
        forecast, judged = self._watched.forecast, batch.judged
        naive, quantile = None, None if forecast is None else forecast.quantile
        if forecast is not None and forecast.naive:
            naive = _numbers(batch.documents.values(forecast.naive, batch.rows))
        cap, edges = judged.cap_of(part.output), judged.edges_of(part.output)
        return Rows(part.score, part.label, part.classes, judged.threshold, cap, naive, quantile, edges)

    def _segmentations(
        self, judged: Judged, documents: Documents, mine: npt.NDArray[np.bool_]
    ) -> Iterator[npt.NDArray[Any]]:
        """Yield the segment of each row: of all traffic, then by each declared segment."""
        yield np.full(mine.size, "", dtype=object)
        places = np.flatnonzero(mine)
        for name in self._watched.all_segments:
            texts = np.full(mine.size, "", dtype=object)
            texts[places] = segments_by(name, documents.values(name, places), judged.columns.get(name))
            yield texts
        fairness = self._watched.fairness
        known = len(fairness) == 1 and fairness[0] in self._watched.all_segments
        if fairness and not known and (self._watched.personal or judged.personal.isdisjoint(fairness)):
            parts = [
                segments_by(name, documents.values(name, places), judged.columns.get(name)).tolist()
                for name in fairness
            ]
            texts = np.full(mine.size, "", dtype=object)
            texts[places] = combined(fairness, list(zip(*parts, strict=True)))
            yield texts

    def _put(self, key: Key, sums: Sums) -> None:
        before = self.sums.get(key)
        self.sums[key] = sums if before is None else before + sums


@dataclass(frozen=True)
class _Batch:
    """Predictions of which one version is added; `rows` are the places of its labelled ones, `counts` their label rows.

    `hours` and `scores` are of all predictions.
    """

    version: str
    digest: str
    judged: Judged
    documents: Documents
    hours: Ints
    scores: Floats
    rows: Ints
    counts: Ints

    def shown(self, rows: Ints) -> Iterator[tuple[str, Floats, Floats]]:
        """Yield output, scores of some predictions, and edges of their bins; of several classes the score is the
        confidence in the most likely one.
        """
        for output in self.judged.labels or ("",):
            edges = self.judged.edges_of(output)
            if edges is None:
                continue
            if output:
                documents = self.documents.of(OUTPUTS)
                yield output, _numbers([documents[row].get(output) for row in rows.tolist()]), edges
            elif self.judged.task == "multiclass":
                yield "", np.asarray(_classes(self, rows).max(axis=1, initial=0.0), np.float64), edges
            else:
                yield "", np.asarray(self.scores[rows], np.float64), edges

    def key(self, hour: int, segment: str, output: str, age_s: int) -> Key:
        return Key(self.version, self.digest, hour, segment, output, age_s, self.judged.task)


@dataclass(frozen=True)
class _Part:
    """One output with its label; arrays have the shape (labelled rows,)."""

    output: str
    score: Floats
    label: Floats
    classes: Floats | None
    lag_us: Ints


def _outputs(batch: _Batch, joined: pa.Table) -> Iterator[_Part]:
    judged, rows = batch.judged, batch.rows
    lag = np.asarray(joined["lag_us"].to_numpy(), np.int64)
    kind = joined["label"].type
    if pa.types.is_struct(kind):
        for name in (kind.field(place).name for place in range(kind.num_fields)):
            score, label = (_floats(pc.struct_field(joined[each], name)) for each in ("score", "label"))
            yield _Part(name, score, label, None, lag)
    elif judged.task == "multiclass":
        places = {name: place for place, name in enumerate(judged.outputs)}
        classes = _classes(batch, rows)
        place = np.array([places.get(text_of(value), -1) for value in joined["label"].to_pylist()], np.float64)
        yield _Part("", classes.max(axis=1, initial=0.0), place, classes, lag)
    else:
        yield _Part("", _floats(joined["score"]), _floats(joined["label"]), None, lag)


def _classes(batch: _Batch, rows: Ints) -> Floats:
    outputs, names = batch.documents.of(OUTPUTS), batch.judged.outputs
    values = [[_number(outputs[row].get(name)) for name in names] for row in rows.tolist()]
    return np.array(values, np.float64).reshape(rows.size, len(names))


def _groups(hours: Ints, segments: npt.NDArray[Any]) -> Iterator[tuple[tuple[int, str], npt.NDArray[np.bool_]]]:
    names, code = np.unique(segments.astype(str), return_inverse=True)
    starts, hour = np.unique(hours, return_inverse=True)
    group = code * starts.size + hour
    for each in np.unique(group).tolist():
        name, start = divmod(each, starts.size)
        yield (int(starts[start]), str(names[name])), group == each


def _floats(column: Any) -> Floats:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return np.full(len(column), math.nan)
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def _numbers(values: Sequence[Any]) -> Floats:
    return np.array([_number(value) for value in values], np.float64)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
