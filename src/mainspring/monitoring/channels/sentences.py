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
    SHAPE,
    SPREAD,
    UNSEEN,
    VARIETY,
)

_WITH_VALUE = {
    NULLS: "{column} is missing in {value:.3g}% of {rows:,} rows; {expected:.3g}% was expected.",
    UNSEEN: "{column} has values that training did not have in {value:.3g}% of {rows:,} rows; {expected:.3g}% was expected.",
    COMMONEST: "{column} has its commonest value in {value:.3g}% of {rows:,} rows; {expected:.3g}% was expected.",
    MEAN: "{column} has a mean {value:.3g} standard deviations from training's, over {rows:,} rows; {expected:.3g} was expected.",
    SPREAD: "{column} has {value:.3g} times the standard deviation of training, over {rows:,} rows; {expected:.3g} was expected.",
    VARIETY: "{column} has values of an entropy of {value:.3g} in {rows:,} rows; {expected:.3g} was expected.",
    ROWS: "The window has {rows:,} rows; {expected:,.0f} were expected.",
    RELATION: "The other columns explain {column} worse or better than usual in {rows:,} rows: {value:.3g} of its rank's "
    "range is left, {expected:.3g} was expected.",
    OUTSIDE: "The columns of other views explain {column} worse or better than usual in {rows:,} rows: {value:.3g} of its "
    "rank's range is left, {expected:.3g} was expected.",
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
