"""The flights' year under the channels: false incidents on clean days, and faults found on days they are put into.

January to June is the training of the bundle, without scores; July to December is live traffic. Everything was tuned on
two lists of faults, in days of July to September and of October to December. A third list is drawn by a seed
(bench/alarms_drawn.py), and put into other days of the half-year. A fault stays for two days. It is found if the first
signal of one of them names a column that the fault changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

import alarms_drawn
from alarms_faults import PLACEBO, TEST, TUNE, Fault, Rows
from flights_year import AT, LABEL, SCORE, coded, codes_of, columns_of, features, fitted, trained_rows, year
from mainspring.core.time import DAY, HOUR
from mainspring.monitoring.channels.budget import SEGMENTS, WHOLE
from mainspring.monitoring.channels.contract import Contract
from mainspring.monitoring.channels.segments import Sides, in_found_segments
from mainspring.monitoring.channels.surprise import Verdicts, judge
from mainspring.monitoring.channels.windows import Span, Windows, lay_out
from mainspring.monitoring.signals import Signal
from mainspring.stats.crossings import MEASURES, Crossing, important
from mainspring.stats.reference import profile
from mainspring.stats.sketches import Ruler, Sketch

BUDGET = 1.0  # false alarms a week
OUTPUTS = frozenset([SCORE])
_WARM_UP = 14  # live days before the first fault
_CONTRACT_DAYS = 7  # of evidence before a judged day
_HELD_OUT = 50_000  # last training rows, by which the features of found segments are chosen


@dataclass(frozen=True)
class Plan:
    """Faults, the days that they begin on, and the clean days on which false alarms are counted."""

    title: str
    faults: Sequence[Fault]
    days: Sequence[int]
    clean: range


@dataclass(frozen=True)
class Outcome:
    """How a list of faults and its days went: false incidents a week, and the share of days on which each was found."""

    false_a_week: float
    found: dict[Fault, float]

    def share(self, *, gross: bool) -> float:
        return float(np.mean([share for fault, share in self.found.items() if fault.gross == gross and fault.columns]))

    @property
    def placebo(self) -> float:
        return self.found[PLACEBO]


class Year:
    """The year as spans: days of training, hours of live traffic."""

    def __init__(self, folder: Path) -> None:
        table = year(folder)
        self.names = [*features(table), SCORE]
        self._rows: Rows = columns_of(table, self.names)
        self._at = table[AT].cast(pa.int64()).to_numpy()
        trained = trained_rows(table)
        self.codes = codes_of(table)
        self._model = fitted(coded(self._rows, self.codes), table[LABEL].to_numpy(), trained)
        training = {name: values[:trained] for name, values in self._rows.items()}
        late = {name: values[-_HELD_OUT:] for name, values in training.items()}
        inputs = {name: values for name, values in late.items() if name not in OUTPUTS}
        reference = profile(training)
        self.reference = msgspec.structs.replace(reference, crossed=important(reference, inputs, late[SCORE]))
        self._crossing = Crossing(self.reference, SCORE)
        self._labels = table[LABEL].to_numpy().astype(float)
        self.ruler = Ruler(self.reference, self.names)
        self.first = int(self._at[0] // DAY)
        self.live = int(self._at[trained] // DAY)
        self.end = int(self._at[-1] // DAY)
        self._live_spans: dict[int, list[Span]] = {}

    def rows(self, day: int) -> Rows:
        return self._between(day * DAY, (day + 1) * DAY)

    def faulty(self, fault: Fault, day: int, seed: int) -> Rows:
        """Return the rows of a day with a fault, scored as the model scores them."""
        changed = fault.change(self.rows(day), self.rows(day - 1), np.random.default_rng([seed, day]))
        return {**changed, SCORE: self.scores(changed), AT: changed[AT]}

    def scores(self, rows: Rows) -> npt.NDArray[np.float64]:
        found: npt.NDArray[np.float64] = self._model.predict_proba(coded(rows, self.codes))[:, 1]
        return found

    def labels(self, day: int) -> npt.NDArray[np.float64]:
        first, last = np.searchsorted(self._at, [day * DAY, (day + 1) * DAY])
        return self._labels[first:last]

    def crossed(self, day: int) -> dict[str, Span]:
        """Return the sums of found segments of a clean day, by measure."""
        rows = self.rows(day)
        sums = self._crossing.sums({name: rows[name] for name in self.names}, len(rows[AT]))
        start, nothing = day * DAY, Sketch.empty(())
        return {each: Span(start, start + DAY, nothing, pairs) for each, pairs in zip(MEASURES, sums, strict=True)}

    def spans(self, rows: Rows) -> list[Span]:
        """Return the hours of rows."""
        hours = rows[AT] // HOUR
        found = []
        for hour in np.unique(hours).tolist():
            mine = {name: rows[name][hours == hour] for name in self.names}
            found.append(Span(hour * HOUR, (hour + 1) * HOUR, *self.ruler.measure(mine)))
        return found

    @cached_property
    def training(self) -> list[Span]:
        found = []
        for day in range(self.first, self.live):
            rows = {name: values for name, values in self.rows(day).items() if name not in OUTPUTS}
            found.append(Span(day * DAY, (day + 1) * DAY, *self.ruler.measure(rows), training=True))
        return found

    def live_spans(self, day: int) -> list[Span]:
        if day not in self._live_spans:
            self._live_spans[day] = self.spans(self.rows(day))
        return self._live_spans[day]

    def _between(self, start: int, end: int) -> Rows:
        first, last = np.searchsorted(self._at, [start, end])
        return {**{name: values[first:last] for name, values in self._rows.items()}, AT: self._at[first:last]}


class Watched:
    """The year judged day by day; days with other rows are judged against the same past."""

    def __init__(self, year: Year) -> None:
        self._year = year
        self._contract = Contract.of(lay_out(year.training, year.names), year.reference)
        self._ranks = year.ruler.ranks()
        self._clean = [*year.training, *(span for day in range(year.live, year.end) for span in year.live_spans(day))]
        self._verdicts = self._judged(lay_out(self._clean, year.names))
        crossed = [year.crossed(day) for day in range(year.live, year.end)]
        sides = Sides("late-arrival", SCORE, BUDGET * SEGMENTS, year.end * DAY)
        by_measure = {each: [day[each] for day in crossed] for each in MEASURES}
        self._in_segments = {each.start // DAY for each in in_found_segments(by_measure, self._verdicts, sides)}

    def alarms(self, day: int) -> bool:
        """Return whether a clean day raises an alarm, in a found segment too."""
        return day in self._in_segments or bool(self.signals(day)[0])

    def signals(self, day: int, faulty: Sequence[Sequence[Span]] = ()) -> list[list[Signal]]:
        """Return the signals of a day and those after it that have other rows, each day's most telling first."""
        year = self._year
        days = list(range(day, day + max(len(faulty), 1)))
        if faulty:
            before = [span for span in self._clean if span.end <= day * DAY]
            spans = [*before, *(span for each in faulty for span in each)]
            windows = lay_out(spans, year.names, until=(days[-1] + 1) * DAY)
            verdicts = self._judged(windows, self._verdicts.first(day - year.first))
        else:
            spans = [span for span in self._clean if span.end <= (day + 1) * DAY]
            verdicts = self._verdicts
        late = [span for span in spans if span.start >= (day - _CONTRACT_DAYS) * DAY and not span.training]
        pages = self._contract.judge(lay_out(late, year.names, width=HOUR), "late-arrival", since=day * DAY)
        found = []
        for each in days:
            paged = [page for page in pages if page.start // DAY == each]
            paged.sort(key=lambda page: (page.column in OUTPUTS, -page.severity))
            found.append([*paged, *verdicts.signals(each - year.first, "late-arrival", outputs=OUTPUTS)])
        return found

    def _judged(self, windows: Windows, known: Verdicts | None = None) -> Verdicts:
        return judge(windows, self._ranks, alarms_per_week=BUDGET * WHOLE, outputs=[*OUTPUTS], known=known)


def plans(year: Year, *, quick: bool = False) -> dict[str, Plan]:
    """Return the three lists with their days, by a short name."""
    middle, every = year.live + (year.end - year.live) // 2, 28 if quick else 7
    first, second = range(year.live, middle), range(middle, year.end)
    day = year.live - 20
    drawn = alarms_drawn.list_of(year.rows(day), year.rows(day - 1))
    third = range(year.live + _WARM_UP + alarms_drawn.OFFSET, year.end - 2, 2 * every)
    return {
        "first": Plan("first list, tuned on", TUNE, range(first.start + _WARM_UP, first.stop - 2, every), first),
        "second": Plan("second list, tuned on", TEST, range(second.start, second.stop - 2, every), second),
        "third": Plan("third list", drawn, third, range(year.live, year.end)),
    }


def outcome(year: Year, watched: Watched, plan: Plan, say: Callable[[str], None] = lambda _: None) -> Outcome:
    """Return how a list and its days went.

    Args:
        say: Called with a sentence from time to time.
    """
    alarms = sum(watched.alarms(day) for day in plan.clean)
    found = {}
    for seed, fault in enumerate([*plan.faults, PLACEBO]):
        hits = 0
        for day in plan.days:
            faulty = [year.spans(year.faulty(fault, each, seed)) for each in (day, day + 1)]
            firsts = [signals[0].column for signals in watched.signals(day, faulty) if signals]
            hits += bool(firsts) if fault is PLACEBO else any(column in fault.columns for column in firsts)
        found[fault] = hits / len(plan.days)
        if seed % 10 == 9:
            say(f"{plan.title}: {seed + 1} of {len(plan.faults) + 1} faults")
    return Outcome(alarms / len(plan.clean) * 7, found)
