"""Sentences that say what a statistic is and what it usually is."""

from __future__ import annotations

from mainspring.monitoring.channels.statistics import (
    COMMONEST,
    MEAN,
    NULLS,
    OUTSIDE,
    RELATION,
    REPEAT,
    ROWS,
    SEPARATION,
    SHAPE,
    SPREAD,
    UNSEEN,
    VARIETY,
)

_WITH_VALUE = {
    NULLS: "{column} is missing in {value:.3g}% of {rows:,} rows; {expected:.3g}% was expected.",
    UNSEEN: "{column} has values new since training in {value:.3g}% of {rows:,} rows; {expected:.3g}% was expected.",
    COMMONEST: "{column} has its commonest value in {value:.3g}% of {rows:,} rows; {expected:.3g}% was expected.",
    MEAN: "The mean of {column} over {rows:,} rows is {value:.3g} of training's deviations from training's mean; "
    "{expected:.3g} was expected.",
    SPREAD: "The deviation of {column} over {rows:,} rows is {value:.3g} times training's; {expected:.3g} is usual.",
    VARIETY: "The values of {column} in {rows:,} rows have an entropy of {value:.3g}; {expected:.3g} was expected.",
    SEPARATION: "A linear classifier tells the {rows:,} rows from training's with an AUC of {value:.3g}; "
    "{expected:.3g} was expected.",
    ROWS: "The window has {rows:,} rows; {expected:,.0f} were expected.",
    RELATION: "{column} follows less from the other columns than usual: {value:.3g} of its rank is unexplained in "
    "{rows:,} rows; {expected:.3g} was expected.",
    OUTSIDE: "{column} follows less from other views than usual: {value:.3g} of its rank is unexplained in "
    "{rows:,} rows; {expected:.3g} was expected.",
}
_WITHOUT = {
    SHAPE: "The distribution of {column} over {rows:,} rows is not that of the same weekday and the last windows.",
    REPEAT: "{column} has the same values as in the window before: it may not have been updated.",
}
_SHARES = (NULLS, UNSEEN, COMMONEST)


def of(statistic: str, column: str, value: float | None, expected: float | None, rows: int) -> str:
    """Return the sentence of a statistic of a column, or of the window where `column` is empty."""
    if statistic in _WITHOUT:
        return _WITHOUT[statistic].format(column=column, rows=rows)
    factor = 100.0 if statistic in _SHARES else 1.0
    values = {"value": factor * (value or 0.0), "expected": factor * (expected or 0.0)}
    return _WITH_VALUE[statistic].format(column=column, rows=rows, **values)
