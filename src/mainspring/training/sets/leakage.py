"""Leakage checks: properties of a training set that would inflate a model's evaluation, found before fitting.

| check | severe where | a warning where |
|---|---|---|
| shadow | a feature is the label in another form | |
| own-row | a feature repeats a column of the observation itself, also where that changes | |
| predicts-alone | one feature has an AUC over 0.98 (R2 over 0.995) | over 0.85 (0.9) |
| knows-the-future | a feature correlates better with later rows' labels than with its own and earlier ones | |
| label-twice | 10 % of the rows to judge by have a label that training rows have too | any has |
| duplicates | 20 % of the rows to judge by are copies of training rows, beyond how rows repeat among those | 1 % are |
| all-null, constant | | a column says nothing |

A feature may legitimately equal a column of the observation itself if that column rarely changes, such as the country
of a card. So "own-row" counts only rows whose value differs from that of the entity's previous observation: a feature
from the past would be wrong there.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mainspring.core.errors import InvalidData
from mainspring.core.schema import DType
from mainspring.features.layout import feature_dtype
from mainspring.features.model import FeatureView, views_of
from mainspring.training.frames import Array
from mainspring.training.model import Model
from mainspring.training.sets.single_feature_auc import is_shadow, knows_the_future, power_alone
from mainspring.training.sets.training_set import Split, TrainingSet

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_MOST_ROWS = 50_000  # rows per check: evenly spaced, or consecutive if the check depends on their order
_ALONE = {"AUC": (0.85, 0.98), "R2": (0.9, 0.995)}
_TWICE, _COPIES_WARN, _COPIES = 0.1, 0.01, 0.2
_FEWEST = 20  # changes, below which nothing is reported


@dataclass(frozen=True, slots=True)
class Finding:
    """A possible leak.

    Args:
        check: One of `training.model.CHECKS`.
        subject: A feature's full name, or a part of the training set.
        severe: Whether the training is refused.
        evidence: The observation, with numbers.
        fix: The suggested remedy.
    """

    check: str
    subject: str
    severe: bool
    evidence: str
    fix: str

    @property
    def id(self) -> str:
        """The finding's name in a model's `accept_findings`."""
        return f"{self.check}:{self.subject}"

    def __str__(self) -> str:
        return f"{self.id}: {self.evidence}"


class Leakage(InvalidData):
    """Error: a training set leaks. `findings` are the severe ones that were not accepted."""

    def __init__(self, model: str, findings: list[Finding]) -> None:
        super().__init__(
            f"The training set of {model!r} leaks:\n"
            + "\n".join(f"  {finding}\n    {finding.fix}" for finding in findings),
            fix=f"or, if it is intended, declare accept_findings={[finding.id for finding in findings]} in @ms.model.",
        )
        self.findings = findings


def refuse_leaks(model: str, data: TrainingSet, accepted: Collection[str] = ()) -> list[Finding]:
    """Raise if a training set has a severe, unaccepted leak; return the remaining warnings.

    Raises:
        Leakage: A finding is severe and not accepted.
    """
    findings = [finding for finding in find_leaks(data) if finding.id not in accepted]
    severe = [finding for finding in findings if finding.severe]
    if severe:
        raise Leakage(model, severe)
    return findings


def find_leaks(data: TrainingSet) -> list[Finding]:
    """Return the possible leaks in a training set, severe ones first."""
    rows = data.development
    every = max(1, -(-len(rows) // _MOST_ROWS))
    spaced, together = slice(None, None, every), slice(max(0, len(rows) - _MOST_ROWS), None)
    findings = []
    for name in data.features:
        text = data.dtypes[name] == DType.String
        column = rows.X[name].to_numpy()
        values = column if text else column.astype(np.float64)
        finding = _empty(name, values, text)
        findings += [finding] if finding else _of_labels(name, values, rows.y, data, spaced, together)
    findings += [_own(name, data.own[name]) for name in data.features if name in data.own]
    findings += [*_twice(data), *_copies(data)]
    return sorted(findings, key=lambda candidate: not candidate.severe)


def _of_labels(name: str, values: Array, y: Array, data: TrainingSet, spaced: slice, together: slice) -> list[Finding]:
    """Return the most severe finding of a feature against the label, or against several labels."""
    looks = len(data.features) * max(1, len(data.labels))
    findings = []
    for index, labels in enumerate(y.T if data.labels else [y]):
        finding = _shadow(name, values[spaced], labels[spaced], data.task)
        if finding is None and values.dtype != object and data.task != "multiclass":
            finding = _future(name, values[together], labels[together], looks)
        finding = finding or _alone(name, values[spaced], labels[spaced], data.task, looks)
        if finding is not None:
            of = f"of the label {data.labels[index]}: " if data.labels else ""
            findings.append(replace(finding, evidence=of + finding.evidence))
    return sorted(findings, key=lambda candidate: not candidate.severe)[:1]


def _empty(name: str, values: Array, text: bool) -> Finding | None:
    null = np.array([each is None for each in values.tolist()]) if text else np.isnan(values)
    if null.all():
        return Finding("all-null", name, False, f"null in all {len(values):,} rows", "remove it, or check its keys.")
    if not null.any() and len(set(values[:1000].tolist())) == 1 and bool((values == values[0]).all()):
        evidence = f"{values[0]!s} in all {len(values):,} rows"
        return Finding("constant", name, False, evidence, "remove it: it carries no information.")
    return None


def _own(name: str, column: str) -> Finding:
    evidence = f"it equals the observation's own {column!r} in every row, also where that just changed"
    fix = "make the observation's `at` no later than its row can be known, or read the column from the request."
    return Finding("own-row", name, True, evidence, fix)


def _shadow(name: str, values: Array, labels: Array, task: str) -> Finding | None:
    if not is_shadow(values, labels, task):
        return None
    null = np.mean([each is None for each in values.tolist()]) if values.dtype == object else np.isnan(values).mean()
    evidence = f"it is the label in another form, in every row in which it is not null ({1 - null:.0%} of them)"
    return Finding("shadow", name, True, evidence, "remove it, or compute it as of the time of the prediction.")


def _future(name: str, values: Array, labels: Array, looks: int) -> Finding | None:
    found = knows_the_future(values, labels.astype(np.float64), looks=looks)
    if found is None:
        return None
    lag, later, now = found
    evidence = f"correlation {later:.2f} with the label {lag} rows later, {now:.2f} at most with earlier ones"
    return Finding(
        "knows-the-future",
        name,
        True,
        evidence,
        "check for a shift in the wrong direction, or a time that is too late.",
    )


def _alone(name: str, values: Array, labels: Array, task: str, looks: int) -> Finding | None:
    power = power_alone(values, labels, task, looks=looks)
    if power is None or power.lower <= _ALONE[power.metric][0]:
        return None
    severe = power.lower > _ALONE[power.metric][1]
    evidence = f"alone it has an {power.metric} of {power.value:.3f} on later rows (at least {power.lower:.3f})"
    return Finding("predicts-alone", name, severe, evidence, "make sure that it is known when the prediction is made.")


def _twice(data: TrainingSet) -> Iterator[Finding]:
    for part, rows, earlier in _pairs(data):
        if rows.keys is None or earlier.keys is None:
            continue
        share = float(np.isin(_hashes(rows.keys), _hashes(earlier.keys)).mean())
        if share:
            names = ", ".join(map(str, rows.keys.columns))
            evidence = f"{share:.1%} of the {part} rows share their label ({names}) with a training row"
            fix = "use each observation once, or add a key that makes the label unique, such as a month."
            yield Finding("label-twice", part, share >= _TWICE, evidence, fix)


def _copies(data: TrainingSet) -> Iterator[Finding]:
    for part, rows, earlier in _pairs(data):
        known = _hashes(earlier.X)
        _, row, times = np.unique(known, return_inverse=True, return_counts=True)
        by_nature = float((times[row] > 1).mean())  # rows with few distinct values repeat naturally
        share = float(np.isin(_hashes(rows.X), known).mean())
        chance = 4 * math.sqrt(0.25 / len(rows) + 0.25 / len(known))
        excess = share - by_nature - (chance if by_nature else 0.0)
        if excess >= _COPIES_WARN:
            evidence = (
                f"{share:.1%} of the {part} rows have all features of a training row ({by_nature:.1%} of those do)"
            )
            fix = "check for rows that were ingested twice."
            yield Finding("duplicates", part, excess >= _COPIES, evidence, fix)


def _pairs(data: TrainingSet) -> Iterator[tuple[str, Split, Split]]:
    yield "validation", data.validation, data.train
    yield "holdout", data.holdout, data.train


def _hashes(frame: pd.DataFrame) -> Any:
    from pandas.util import hash_pandas_object

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return hash_pandas_object(frame, index=False).to_numpy()


def own_columns(model: Model, table: pa.Table) -> dict[str, str]:
    """Return full feature name -> column of the observations' source that it repeats in every row.

    Args:
        table: Observations by time with features, from `sets.assemble.labelled_observations`.
    """
    repeats: dict[str, str] = {}
    for view in views_of([*model.features, *model.baseline]):
        columns = [name for name in model.observations.source.columns if name not in view.entity.keys]
        for name in view.features:
            full_name = f"{view.name}.{name}"
            if full_name in table.column_names:
                repeated = [
                    column for column in columns if _comparable(view, name, model.observations.source.columns[column])
                ]
                original = next((column for column in repeated if _repeats(table, full_name, column, view)), None)
                if original is not None:
                    repeats[full_name] = original
    return repeats


def _comparable(view: FeatureView, name: str, dtype: DType) -> bool:
    kind = feature_dtype(view, name)
    return kind == dtype or (kind.numeric and dtype.numeric)


def _repeats(table: pa.Table, feature: str, column: str, view: FeatureView) -> bool:
    first = table.slice(0, 1_000)
    return _equal(first, feature, column) and _equal(table, feature, column) and _changes(table, feature, column, view)


def _equal(table: pa.Table, feature: str, column: str) -> bool:
    there, own = _known(table, feature, column)
    return bool((there == own).all())


def _known(table: pa.Table, feature: str, column: str) -> tuple[pd.Series[Any], pd.Series[Any]]:
    pair = table.select([feature, column]).to_pandas().dropna()
    return pair[feature], pair[column]


def _changes(table: pa.Table, feature: str, column: str, view: FeatureView) -> bool:
    """Return whether enough rows differ in `column` from their entity's previous observation."""
    rows = table.select([*view.entity.keys, feature, column]).to_pandas().dropna()
    before = rows.groupby(list(view.entity.keys), sort=False)[column].shift()
    return int((before.notna() & (before != rows[column])).sum()) >= _FEWEST
