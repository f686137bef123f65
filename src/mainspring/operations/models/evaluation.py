"""Evaluation of a version on its held-out rows: curves, confusion, and the difference from the champion."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Any

import numpy as np

from mainspring.core.errors import MainspringError, NotFound
from mainspring.core.time import DAY
from mainspring.delivery.compare import compare
from mainspring.delivery.evidence import values_by_block
from mainspring.delivery.held_out import HeldOut, Scored, score_held_out
from mainspring.delivery.routing import CHAMPION
from mainspring.project import Project
from mainspring.registry.bundles import HOLDOUT
from mainspring.registry.model import Bundle, ModelVersion
from mainspring.stats.decision_curves import CalibrationBin, OperatingPoints, calibration_bins, operating_points
from mainspring.stats.jackknife import estimate, time_blocks
from mainspring.stats.metrics import higher_is_better, metrics_of

_SURE = 0.975  # of each bound: a 95 % interval
_BINS = 40


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric of a version beside the champion's, or the baseline's, on the same rows.

    The bounds are those of the difference, with 95 % confidence over blocks of a day; `None` if the rows have too few.
    """

    metric: str
    value: float
    other: float
    low: float | None
    high: float | None
    higher_is_better: bool

    @property
    def gain(self) -> float:
        """By how much the version is better; negative if it is worse."""
        return (self.value - self.other) * (1 if self.higher_is_better else -1)

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or `undecided` where the interval holds 0 or is unknown."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return "undecided"
        return "better" if (self.low > 0) == self.higher_is_better else "worse"


@dataclass(frozen=True, slots=True)
class Binary:
    """Curves of one side of a binary comparison."""

    points: OperatingPoints
    calibration: tuple[CalibrationBin, ...]


@dataclass(frozen=True, slots=True)
class ClassMatrix:
    """Rows by true class (first index) and most likely class."""

    classes: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Residuals:
    """Errors of a regression: the share of rows by residual (prediction minus truth), and calibration by decile.

    `edges` are one longer than `counts`; the first and the last bin hold what lies beyond the .5 and 99.5 % quantiles.
    """

    label: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    deciles: tuple[tuple[float, float, int], ...]  # mean prediction, mean truth, rows


@dataclass(frozen=True, slots=True)
class VersionEvaluation:
    """Evaluation of a version. `other` names what it is compared with; `note` says why there is nothing, or which rows.

    Attributes:
        rows: Held-out rows of the curves of the version.
        compared_rows: Rows of the comparison: those that the champion was not trained on.
        scores: Rows by score and class: 20 bins of equal width; negatives, positives.
    """

    task: str
    rows: int
    threshold: float
    binary: Binary | None = None
    other_binary: Binary | None = None
    scores: tuple[tuple[int, int], ...] = ()
    classes: ClassMatrix | None = None
    residuals: tuple[Residuals, ...] = ()
    other: str = ""
    compared_rows: int = 0
    differences: tuple[Difference, ...] = ()
    note: str = ""


def evaluate_version(project: Project, version: ModelVersion) -> VersionEvaluation:
    """Return the evaluation of a version, against the champion or, for the champion itself, its baseline.

    Scores the held-out rows, which takes seconds.

    Raises:
        NotFound: The bundle has no held-out rows.
        Corrupt: The bundle is damaged.
    """
    bundle = project.bundles.load(version.digest)
    if HOLDOUT not in bundle.files:
        raise NotFound("The bundle contains no held-out rows.", fix="train the model with a label.")
    declared = project.definitions.models.get(version.model)
    more = () if declared is None else declared.measured
    costs = None if declared is None else declared.threshold
    alone = score_held_out(bundle, more=more, threshold=costs)
    both, other, note = alone, "" if alone.other is None else "the baseline", ""
    champion = champion_beside(project, version)
    if champion is not None:
        try:
            theirs = project.bundles.load(champion.digest)
            found = compare(bundle, theirs, champion.version, more=more, threshold=costs)
        except MainspringError as error:
            note = f"the champion cannot be compared: {error.what}"
        else:
            note = found.note or found.aside
            if found.rows is not None:
                both, other = found.rows, f"version {champion.version}, the champion"
    return _evaluation(bundle, alone, both, other, note)


def champion_beside(project: Project, version: ModelVersion) -> ModelVersion | None:
    """Return the champion of a version's model; `None` if there is none, or it is the version itself."""
    try:
        champion = project.versions.get(version.model, CHAMPION)
    except NotFound:
        return None
    return None if champion.digest == version.digest else champion


def _evaluation(bundle: Bundle, alone: HeldOut, both: HeldOut, other: str, note: str) -> VersionEvaluation:
    side, task = alone.candidate, alone.task
    threshold = 0.5 if side.threshold is None else side.threshold
    binary = other_binary = classes = None
    scores: tuple[tuple[int, int], ...] = ()
    residuals: tuple[Residuals, ...] = ()
    if task == "binary" and side.scores.ndim == 1:
        binary, scores = _binary(side, threshold), _by_score(side)
        other_binary = None if both.other is None else _binary(both.other, threshold)
    elif task == "multiclass":
        classes = _matrix(alone)
    elif task == "regression":
        residuals = _residuals(alone)
    return VersionEvaluation(
        task=task,
        rows=len(alone),
        threshold=threshold,
        binary=binary,
        other_binary=other_binary,
        scores=scores,
        classes=classes,
        residuals=residuals,
        other=other,
        compared_rows=len(both) if other else 0,
        differences=_differences(bundle, both),
        note=note,
    )


def _binary(side: Scored, threshold: float) -> Binary | None:
    if not side.scores.size or np.isnan(side.scores).any():
        return None
    points = operating_points(side.truth, side.scores, also=threshold)
    return Binary(points, calibration_bins(side.truth, side.scores))


def _by_score(side: Scored) -> tuple[tuple[int, int], ...]:
    positive = side.truth.astype(np.bool_)
    of_class = [
        np.histogram(side.scores[rows & np.isfinite(side.scores)], 20, (0.0, 1.0))[0].tolist()
        for rows in (~positive, positive)
    ]
    return tuple(zip(*of_class, strict=True))


def _matrix(held_out: HeldOut) -> ClassMatrix:
    truth, likely = held_out.candidate.truth.astype(np.int64), held_out.candidate.scores.argmax(axis=1)
    count = len(held_out.classes)
    cells = np.bincount(truth * count + likely, minlength=count * count).reshape(count, count)
    return ClassMatrix(held_out.classes, tuple(tuple(row) for row in cells.tolist()))


def _residuals(held_out: HeldOut) -> tuple[Residuals, ...]:
    labels = held_out.labels or ("",)
    truth, scores = (
        each if each.ndim == 2 else each[:, None] for each in (held_out.candidate.truth, held_out.candidate.scores)
    )
    found = []
    for place, label in enumerate(labels):
        known = np.isfinite(truth[:, place]) & np.isfinite(scores[:, place])
        y, predicted = truth[known, place], scores[known, place]
        if not y.size:
            continue
        errors = predicted - y
        low, high = np.quantile(errors, [0.005, 0.995])
        counts, edges = np.histogram(np.clip(errors, low, high), _BINS, (low, high) if high > low else (low, low + 1.0))
        order = np.argsort(predicted, kind="stable")
        parts = [part for part in np.array_split(order, 10) if part.size]
        deciles = tuple((float(predicted[each].mean()), float(y[each].mean()), int(each.size)) for each in parts)
        found.append(Residuals(label, tuple(edges.tolist()), tuple(counts.tolist()), deciles))
    return tuple(found)


def _differences(bundle: Bundle, both: HeldOut) -> tuple[Difference, ...]:
    if both.other is None:
        return ()
    block = time_blocks(both.at, DAY)
    found = []
    for name in metrics_of(bundle.manifest.task):
        ours, theirs = (values_by_block(name, side, both.labels, block) for side in (both.candidate, both.other))
        if not (isfinite(ours[0]) and isfinite(theirs[0])):
            continue
        gap = estimate(ours - theirs, block)
        low, high = gap.bounds(_SURE) if gap.known else (None, None)
        found.append(Difference(name, float(ours[0]), float(theirs[0]), low, high, higher_is_better(name) is not False))
    return tuple(found)


def evaluation_document(found: VersionEvaluation, threshold: float | None = None) -> dict[str, Any]:
    """Return an evaluation for a JSON document: counts at every threshold instead of curves.

    Args:
        threshold: Of the confusion; by default the version's own.
    """

    def side(of: Binary) -> dict[str, Any]:
        points = of.points
        return {
            "positives": points.of_positives,
            "negatives": points.of_negatives,
            "thresholds": points.thresholds.tolist(),
            "true_positives": points.positives.tolist(),
            "false_positives": points.negatives.tolist(),
            "calibration": [asdict(each) for each in of.calibration],
        }

    plain = asdict(replace(found, binary=None, other_binary=None))
    plain["differences"] = [{**asdict(each), "verdict": each.verdict} for each in found.differences]
    for name, of in (("binary", found.binary), ("other_binary", found.other_binary)):
        plain[name] = None if of is None else side(of)
    chosen = found.binary.points.at(found.threshold if threshold is None else threshold) if found.binary else None
    plain["confusion"] = None if chosen is None else asdict(chosen)
    return plain
