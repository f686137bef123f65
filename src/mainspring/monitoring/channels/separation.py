"""A classifier of a week's rows: how well it tells them from those of the four weeks before, and by which columns.

Gradient-boosted trees see what no statistic of one or two columns shows, such as columns that are middling together or
not at all. Rows of one day are alike, and a tree would know a day by its weather: so the classifier that judges a day's
rows has seen no row of that day. Weeks of real traffic differ from those before. An alarm is an AUC that is larger than
its own history lets one expect.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.core.time import DAY
from mainspring.monitoring.channels.budget import WEEKLY
from mainspring.monitoring.channels.windows import WEEK
from mainspring.monitoring.signals import CLASSIFIER, JOINT, Signal
from mainspring.stats.column_counting import as_numbers
from mainspring.stats.distributions import student_quantile

FEWEST_ROWS = 500  # of a week, and of those before it
FEWEST_WEEKS = 4  # judged before an alarm
_HISTORY = 26  # weeks
_FOLDS = 4
_NAMED = 3  # columns
_TREES = {"max_iter": 40, "learning_rate": 0.1, "max_leaf_nodes": 15, "min_samples_leaf": 20, "random_state": 0}

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Separation:
    """How well the rows of a week are told from those before it.

    Attributes:
        start: Of the week, UTC epoch microseconds.
        rows: Of the week, in the sample; 0 with `auc` .5 for a week of too few.
        before: Of the weeks before it, in the sample.
        auc: Over rows of days that the classifier has not seen.
        error: Its standard error if the rows were alike and independent.
        columns: Those without which it tells the rows least well, the most important first.
        drops: By how much the AUC falls without each of them.
    """

    start: int
    rows: int
    before: int
    auc: float
    error: float
    columns: tuple[str, ...] = ()
    drops: tuple[float, ...] = ()


def coded(values: Mapping[str, Sequence[Any]]) -> Floats:
    """Return columns as numbers, shape (rows, columns): texts by their rank, the commonest first, NaN where missing."""
    return np.column_stack([_codes(column) for column in values.values()])


def separation(start: int, names: Sequence[str], values: Floats, at: Ints) -> Separation:
    """Return how well the rows of the week from `start` on are told from the others.

    Args:
        names: Of the columns.
        values: Shape (rows, columns), as of `coded`.
        at: Times, UTC epoch microseconds, shape (rows,).
    """
    from sklearn.ensemble import HistGradientBoostingClassifier  # heavy, and only the worker of a weekly pass needs it

    mine = at >= start
    rows, before = int(mine.sum()), int((~mine).sum())
    if min(rows, before) < FEWEST_ROWS:
        return Separation(start, 0, 0, 0.5, 0.5)
    folds = (at // DAY) % _FOLDS
    rng = np.random.default_rng(0)
    aucs, drops = [], []
    for fold in range(_FOLDS):
        held, rest = folds == fold, folds != fold
        if not (0 < mine[held].sum() < held.sum() and 0 < mine[rest].sum() < rest.sum()):
            continue
        varied = [column for column in range(len(names)) if _varies(values[rest, column])]
        if not varied:
            continue
        model = HistGradientBoostingClassifier(**_TREES).fit(values[np.ix_(rest, varied)], mine[rest])
        unseen, answers = values[np.ix_(held, varied)], mine[held]
        whole = auc(model.predict_proba(unseen)[:, 1], answers)
        fallen = np.zeros(len(names))
        for place, column in enumerate(varied):
            shuffled = unseen.copy()
            shuffled[:, place] = rng.permutation(unseen[:, place])
            fallen[column] = whole - auc(model.predict_proba(shuffled)[:, 1], answers)
        aucs.append(whole)
        drops.append(fallen)
    if not aucs:
        return Separation(start, 0, 0, 0.5, 0.5)
    error = float(np.sqrt((rows + before + 1.0) / (12.0 * rows * before)))
    mean = np.mean(drops, axis=0)
    best = np.argsort(-mean, kind="stable")[:_NAMED].tolist()
    return Separation(
        start,
        rows,
        before,
        float(np.mean(aucs)),
        error,
        tuple(names[column] for column in best),
        tuple(float(mean[column]) for column in best),
    )


def auc(scores: Floats, positive: npt.NDArray[np.bool_]) -> float:
    """Return the share of pairs in which the positive has the larger score; ties count half."""
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[places]
    number = int(positive.sum())
    return float((ranks[positive].sum() - number * (number + 1) / 2.0) / (number * (len(scores) - number)))


def judge(
    endpoint: str, weeks: Sequence[Separation], *, alarms_per_week: float, incidents: Sequence[tuple[int, int]] = ()
) -> tuple[list[tuple[int, int]], list[Signal]]:
    """Return the weeks that could be judged, and the alarms among them.

    The limit is that of a prediction interval of the weeks before (Student), no narrower than sampling makes it.

    Args:
        weeks: In order of time.
        alarms_per_week: Of the endpoint's whole budget; the classifier has `WEEKLY` of it.
        incidents: Start and end of confirmed incidents: their weeks are no history.
    """
    share = min(alarms_per_week * WEEKLY, 0.5)
    windows, signals, past = [], [], list[float]()
    for week in weeks:
        if not week.rows:
            continue
        end = week.start + WEEK
        if len(past) >= FEWEST_WEEKS:
            history = np.array(past[-_HISTORY:])
            spread = max(float(history.std(ddof=1)), week.error) * np.sqrt(1.0 + 1.0 / len(history))
            reach = student_quantile(1.0 - share, len(history) - 1) * spread
            windows.append((week.start, end))
            if week.auc > history.mean() + reach:
                signals.append(_signal(endpoint, week, float(history.mean()), float(reach)))
        if not any(start < end and until > week.start for start, until in incidents):
            past.append(week.auc)
    return windows, signals


def _signal(endpoint: str, week: Separation, usual: float, reach: float) -> Signal:
    by = ", ".join(f"{name} (-{drop:.2g})" for name, drop in zip(week.columns, week.drops, strict=True) if drop > 0.0)
    return Signal(
        channel=JOINT,
        endpoint=endpoint,
        statistic=CLASSIFIER,
        start=week.start,
        end=week.start + WEEK,
        severity=(week.auc - usual) / reach,
        column=week.columns[0] if week.columns else "",
        value=week.auc,
        expected=usual,
        detail=(
            f"A classifier tells {week.rows:,} rows of the week from {week.before:,} of the weeks before with an AUC "
            f"of {week.auc:.3g}; {usual:.3g} was usual. Without a column it falls: {by or 'no column alone matters'}."
        ),
    )


def _varies(values: Floats) -> bool:
    known = values[~np.isnan(values)]
    return bool(known.size and known.min() < known.max())


def _codes(values: Sequence[Any]) -> Floats:
    texts = Counter(each for each in values if isinstance(each, str))
    if not texts:
        numbers = as_numbers(values)[0]
        return np.where(np.isfinite(numbers), numbers, np.nan)
    ranks = {text: rank for rank, text in enumerate(sorted(texts, key=lambda text: (-texts[text], text)))}
    return np.array([ranks[each] if isinstance(each, str) else np.nan for each in values], np.float64)
