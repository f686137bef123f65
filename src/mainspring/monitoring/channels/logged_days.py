"""Days of an answer chain or a collection under the channels of surprise and joint, against their own history.

Neither has training data. So the bins of the columns are those of the first days, and what is usual is learnt from the
days before, with the same tails, budget and verdicts as for an endpoint (`surprise`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from mainspring.core.time import DAY
from mainspring.monitoring.channels import surprise
from mainspring.monitoring.channels.budget import WHOLE
from mainspring.monitoring.channels.expectation import Dismissed
from mainspring.monitoring.channels.statistics import ROWS
from mainspring.monitoring.channels.windows import Span, lay_out
from mainspring.monitoring.incidents.model import Judged
from mainspring.monitoring.signals import JOINT, SURPRISE, Signal
from mainspring.stats.reference import profile
from mainspring.stats.sketches import Ruler

_PROFILED = 28  # first days, whose values make the bins
_BEFORE = 28  # days that a day's sentence names the mean of

Columns = Mapping[str, Sequence[Any]]  # name -> a value a row: numbers, or texts of categories


@dataclass(frozen=True, slots=True)
class Words:
    """Words of the sentences about days.

    Attributes:
        rows: Plural of a row of a day: "answers".
        means: Column of numbers -> what its mean is: "The cost of an answer".
        kinds: Column of kinds -> what is of other kinds than usual: "Questions are".
    """

    rows: str
    means: Mapping[str, str]
    kinds: Mapping[str, str]


def judge_days(
    name: str,
    days: Mapping[int, Columns],
    counts: Mapping[int, int],
    *,
    since: int,
    until: int,
    alarms_per_week: float,
    incidents: Sequence[tuple[int, int]] = (),
    words: Words,
    dismissed: Sequence[Signal] = (),
    part: float = WHOLE,
) -> list[Judged]:
    """Return the judgement of the days of a chain or collection that end in `(since, until]`.

    Args:
        days: Start of a day -> its rows, or a sample of them; days without any are left out.
        counts: Start of a day -> number of its rows.
        incidents: Start and end of confirmed incidents: their days are no history of what is usual.
        dismissed: Signals that people called false alarms, or expected.
        part: Of the budget of alarms.
    """
    starts = sorted(day for day in days if day + DAY <= until)
    if not starts:
        return []
    columns = [each for each in days[starts[-1]] if any(days[day].get(each) for day in starts)]
    first = starts[:_PROFILED]
    ruler = Ruler(profile({named: [each for day in first for each in days[day].get(named, ())] for named in columns}))
    spans = [
        Span(day, day + DAY, ruler.sketch({named: _values(days[day], named) for named in columns})) for day in starts
    ]
    traffic = {day: (len(next(iter(days[day].values()))), float(counts[day])) for day in starts}
    windows = lay_out(spans, ruler.columns, until=until // DAY * DAY, incidents=incidents, traffic=traffic)
    heard = [Dismissed(each.start, each.end, frozenset([each.column])) for each in dismissed]
    verdicts = surprise.judge(windows, ruler.ranks(), alarms_per_week=alarms_per_week * part, dismissed=heard)
    ends = windows.starts + DAY
    fresh = np.flatnonzero((since < ends) & (ends <= until)).tolist()
    signals = [_told(each, days, words) for place in fresh for each in verdicts.signals(place, name)]
    judged = [place for place in fresh if np.isfinite(verdicts.scores[place] - verdicts.thresholds[place])]
    own = tuple((start, start + DAY) for start in windows.starts[judged].tolist())
    return [
        Judged(name, channel, own, tuple(each for each in signals if each.channel == channel))
        for channel in (SURPRISE, JOINT)
    ]


def _values(day: Columns, name: str) -> Sequence[Any]:
    return day[name] if name in day else [None] * len(next(iter(day.values())))


def _told(signal: Signal, days: Mapping[int, Columns], words: Words) -> Signal:
    """Return a signal whose sentence has the column's own unit: it knows no training."""
    if signal.statistic == ROWS or not signal.column:
        return signal
    if signal.column in words.kinds:
        kind, now, before = _grown(days, signal.start, signal.column)
        what = words.kinds[signal.column]
        detail = f"{what} of other kinds than usual: kind {kind} is {now:.0%} of them, usually {before:.0%}."
        return msgspec.structs.replace(signal, detail=detail)
    now, before = _mean(days, [signal.start], signal.column), _mean(days, _earlier(days, signal.start), signal.column)
    named = words.means.get(signal.column, f"The mean of {signal.column}")
    many = len(_values(days[signal.start], signal.column))
    told = f"{named} is {now:.3g} of {many:,} {words.rows}, {before:.3g} before"
    unit = "" if signal.statistic == "mean" else f"; its {signal.statistic} is unusual"
    return msgspec.structs.replace(signal, value=now, expected=before, detail=f"{told}{unit}.")


def _earlier(days: Mapping[int, Columns], start: int) -> list[int]:
    return [day for day in days if start - _BEFORE * DAY <= day < start]


def _mean(days: Mapping[int, Columns], chosen: Sequence[int], name: str) -> float:
    values = [float(each) for day in chosen for each in _values(days[day], name) if each is not None]
    return float(np.mean(values)) if values else float("nan")


def _grown(days: Mapping[int, Columns], start: int, name: str) -> tuple[str, float, float]:
    """Return the kind that grew most on a day, its share then, and its share before."""
    now = [each for each in _values(days[start], name) if each is not None]
    before = [each for day in _earlier(days, start) for each in _values(days[day], name) if each is not None]
    shares = {cell: (now.count(cell) / len(now), before.count(cell) / max(1, len(before))) for cell in {*now}}
    cell = max(sorted(shares), key=lambda each: shares[each][0] - shares[each][1])
    return cell, *shares[cell]
