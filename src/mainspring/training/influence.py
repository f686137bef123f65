"""Influence of groups of rows on a model: its quality on held-out rows of others, after a fit without each group.

A group does harm if the model is better without it: by more than chance on the held-out rows (a jackknife over time),
and by more than fits without the other groups differ, as every fit differs a little by the rows that it lacks. Of fewer
groups than tell how much fits differ, Holm's procedure over the groups decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mainspring.core.errors import Invalid, InvalidData
from mainspring.core.time import DAY
from mainspring.data.without import Without
from mainspring.stats.jackknife import Estimate, estimate, holm, leave_out, time_blocks
from mainspring.stats.metrics import Metric, class_places
from mainspring.training.fitting import fit_model
from mainspring.training.flavours import estimator_scores
from mainspring.training.model import Model
from mainspring.training.runs.run import Run
from mainspring.training.sets.training_set import Split, TrainingSet

ALPHA = 0.05  # largest probability that held-out rows accuse a group by chance
_SPREADS = 6.0  # robust standard deviations of the groups' gains, beyond which one is unlike the others
_FEWEST_GROUPS = 5  # below which their spread is unknown

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Influence:
    """Influence of a group of rows on a model.

    Attributes:
        rows: Number of its rows in the source.
        fitted_on: Number of rows that the model was fitted on without it.
        judged_on: Number of held-out rows that do not come from it.
        value: The metric of the model that was fitted on all rows.
        gain: How much better the metric is without the group; negative if it is worse.
        low, high: 95 % interval of the gain; `None` if there are too few held-out rows.
        harmful: Whether the model is shown to be better without it.
        why_not: Why there is no result; then all numbers but `rows` are 0.
    """

    group: Without
    rows: int
    fitted_on: int = 0
    judged_on: int = 0
    value: float = 0.0
    gain: float = 0.0
    low: float | None = None
    high: float | None = None
    harmful: bool = False
    why_not: str = ""


def influences(
    model: Model,
    data: TrainingSet,
    groups: Mapping[Without, int],
    observe: Callable[[Without], TrainingSet],
    metric: Metric,
    run: Run,
    tell: Callable[[str, float], None] = lambda *_: None,
) -> list[Influence]:
    """Return the influence of each group, the most harmful first.

    Args:
        groups: Group -> number of its rows.
        observe: Returns the training set as it were if the group's rows had never been ingested.

    Raises:
        Invalid: The model has several labels.
        MainspringError: See `fit_model`.
    """
    if data.labels:
        raise Invalid("Influence is measured for models of one label.", fix="measure a model of each label.")
    with run.prefixed("all.") as prefixed:
        whole = fit_model(model, data, prefixed)
    theirs = estimator_scores(whole.estimator, whole.data.holdout.X, model.task)
    sign = 1.0 if metric.higher_is_better else -1.0
    found, estimates = list[Influence](), dict[Without, Estimate]()
    for number, (group, rows) in enumerate(groups.items()):
        tell(f"without group {number + 1} of {len(groups)}", number / len(groups))
        try:
            part = parted_as(observe(group), data)
            with run.prefixed(f"{number}.") as prefixed:
                fitted = fit_model(model, part, prefixed)
            own = estimator_scores(fitted.estimator, data.holdout.X[fitted.data.features], model.task)
        except InvalidData as error:
            found.append(Influence(group, rows, why_not=error.what))
            continue
        kept = of_both(data.holdout, part.holdout)
        if fitted.outputs != whole.outputs or not kept.any():
            found.append(Influence(group, rows, why_not="no held-out row or a class comes from other groups"))
            continue
        y = _truth(data.holdout.y[kept], model.task, whole.outputs)
        block = time_blocks(data.holdout.at[kept], DAY)
        with_all, without = (
            leave_out(metric, y, _scores(each, model.task)[kept], block) for each in (theirs, own)
        )  # fmt: skip
        gain = estimate(sign * (without - with_all), block)
        low, high = gain.bounds(1 - ALPHA / 2) if gain.known else (None, None)
        estimates[group] = gain
        found.append(
            Influence(group, rows, len(part.train), int(kept.sum()), float(with_all[0]), gain.value, low, high)
        )
    harmful = harmful_ones(estimates)
    found = [replace(each, harmful=each.group in harmful) for each in found]
    return sorted(found, key=lambda each: (bool(each.why_not), -each.gain))


def harmful_ones(gains: Mapping[Without, Estimate]) -> set[Without]:
    """Return the groups without which the model is better, by more than chance and than without the others."""
    known = {group: gain for group, gain in gains.items() if gain.known}
    chances = [gain.chance_below(0.0) for gain in known.values()]
    if len(known) < _FEWEST_GROUPS:
        return {group for group, rejected in zip(known, holm(chances, ALPHA), strict=True) if rejected}
    values = np.array([gain.value for gain in known.values()])
    centre = float(np.median(values))
    limit = max(0.0, centre + _SPREADS * 1.4826 * float(np.median(np.abs(values - centre))))
    return {
        group for group, gain, chance in zip(known, values, chances, strict=True) if gain > limit and chance <= ALPHA
    }


def parted_as(rows: TrainingSet, whole: TrainingSet) -> TrainingSet:
    """Return a training set parted at the times at which another is.

    Raises:
        InvalidData: A part has no rows, or the training part one class only.
    """
    every = Split.joined([rows.train, rows.validation, rows.holdout])

    def part(of: Split) -> Split:
        first, last = np.searchsorted(every.at, [of.at[0], of.at[-1] + 1])
        return every.rows(slice(int(first), int(last)))

    parted = replace(
        rows, train=part(whole.train), validation=part(whole.validation), holdout=part(whole.holdout)
    )  # fmt: skip
    empty = [name for name in ("train", "validation", "holdout") if not len(getattr(parted, name))]
    if empty:
        raise InvalidData(f"the {empty[0]} part has no other rows")
    if rows.task != "regression" and len(set(parted.train.y.tolist())) < len(set(whole.train.y.tolist())):
        raise InvalidData("the other training rows lack a class")
    return parted


def of_both(whole: Split, rest: Split) -> Array:
    """Return which rows of one part are in the other with the same label, bool of shape (rows,).

    Rows are the same if they have one time and equal keys.
    """
    import pandas as pd

    def named(rows: Split) -> Array:
        frame = pd.DataFrame({"_at": rows.at, "_label": pd.Series(rows.y).astype(str)})
        if rows.keys is not None:
            frame = pd.concat([frame, rows.keys.reset_index(drop=True)], axis=1)
        return np.asarray(pd.util.hash_pandas_object(frame.astype(str), index=False).to_numpy())

    return np.isin(named(whole), named(rest))


def _truth(labels: Array, task: str, classes: tuple[str, ...]) -> Array:
    return np.asarray(class_places(labels.tolist(), classes)) if task == "multiclass" else labels


def _scores(scores: Array, task: str) -> Array:
    return scores if task == "multiclass" else scores[:, 0]
