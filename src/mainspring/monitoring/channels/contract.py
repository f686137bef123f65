"""Contract: shares of rows that training never had, such as nulls in a column that had none; each alarm is a page.

The null hypothesis of a check is that the expected share of each look is at most the tolerated one, whatever happened
before. Then 1 + bet * (share - tolerated) is a fair bet or a losing one, also where the rows of a look depend on each
other. A detector goes on from one look to the next with the capital it has, and starts again with 1 where it has less.
Its average time to a false alarm is at least the threshold, however often one looks (Shin, Ramdas and Rinaldo,
arXiv 2203.03532; bets as in Waudby-Smith and Ramdas, arXiv 2010.09686).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from mainspring.core.time import DAY
from mainspring.monitoring.channels.statistics import missing
from mainspring.monitoring.channels.windows import WEEK, Bools, Floats, Windows
from mainspring.monitoring.signals import CONTRACT, Signal
from mainspring.stats.reference import ColumnReference, Reference
from mainspring.stats.sketches import COUNTS, WIDTH

FALSE_PAGES_PER_WEEK = 0.02  # over all columns and checks: one a year
NULLS, TYPES, UNSEEN, RANGE, FROZEN = "nulls", "type errors", "unseen", "out of range", "frozen"
CHECKS = (NULLS, TYPES, UNSEEN, RANGE)
_LEAST = {NULLS: 0.005, TYPES: 0.001, UNSEEN: 0.002, RANGE: 0.005}  # tolerated shares
_ALIKE = 1.25  # times a dismissed share: this much is the same movement
_HEADROOM = 2.0  # tolerated share, in units of the worst training window's
_WORSE = 3.0  # a guess at the worst window's share, in units of the whole training's, for bundles without windows
_MOST = 0.25  # a column whose training was worse has no contract
_FEW = 0.08  # of the training windows
_BETS = np.array([0.1, 0.3, 0.6, 0.9])  # parts of the largest possible bet
_FULL = 100  # rows of a look that counts fully, and of one that may be called frozen
_LEAST_BINS = 3
_SENTENCES = {
    NULLS: "{column} is missing in {value:.3g}% of {rows:,} rows; training had {worst:.2g}% on its worst day.",
    TYPES: "{column} has values of a wrong type in {value:.3g}% of {rows:,} rows.",
    UNSEEN: "{column} has values that training did not have in {value:.3g}% of {rows:,} rows; up to {worst:.2g}% a day "
    "were usual.",
    RANGE: "{column} is outside training's range in {value:.3g}% of {rows:,} rows; {worst:.2g}% a day was usual.",
    FROZEN: "{column} has held only one value for a day; training had many each day.",
}


@dataclass(frozen=True, eq=False, slots=True)
class Contract:
    """Tolerated shares by check and column, of the order of `CHECKS`, shape (checks, columns); NaN for no contract.

    Attributes:
        worst: Largest share of a training window, of the same shape.
        varied: Columns that had several values in each training window.
    """

    columns: tuple[str, ...]
    tolerated: Floats
    worst: Floats
    varied: Bools

    @classmethod
    def of(cls, training: Windows, reference: Reference) -> Contract:
        """Return the contract that the training windows kept; without any, one by the reference's shares."""
        kept = training.training & training.usual & (training.rows >= _FULL)
        varied = np.zeros(len(training.columns), bool)
        moving = np.ones(len(training.columns), bool)
        if kept.any():
            measured = training.counts[:, None, :, 0] > 0  # an output is known only of held-out rows
            shares = np.where(measured, _shares(training), 0.0)[kept]
            worst = shares.max(axis=0)
            varied = (training.bins[kept] > 0).sum(axis=2).min(axis=0) >= _LEAST_BINS
            moving = _moving(training.bins[kept])
        else:
            whole = [_whole_shares(reference.columns[column]) for column in training.columns]
            worst = _WORSE * np.array(whole).reshape(-1, len(CHECKS)).T
        tolerated = np.maximum(_HEADROOM * worst, np.array([[_LEAST[check]] for check in CHECKS]))
        tolerated[worst > _MOST] = np.nan
        tolerated[CHECKS.index(RANGE), moving] = np.nan
        return cls(training.columns, tolerated, worst, varied)

    def widened(self, dismissed: Iterable[Signal], looks: Windows) -> Contract:
        """Return the contract that tolerates what alarms saw that a person called false or expected.

        Args:
            looks: Windows in which the shares of an alarm's time are looked up, where they are as old.
        """
        tolerated, varied, shares = self.tolerated.copy(), self.varied.copy(), _shares(looks)
        for each in dismissed:
            if each.channel != CONTRACT or each.column not in self.columns:
                continue
            column = self.columns.index(each.column)
            if each.statistic == FROZEN:
                varied[column] = False
            else:
                check = CHECKS.index(each.statistic)
                during = (looks.starts < each.end) & (looks.starts + looks.width > each.start)
                seen = max(float(shares[during, check, column].max(initial=0.0)), each.value or 0.0)
                tolerated[check, column] = max(tolerated[check, column], _ALIKE * seen)  # no contract stays none
        return replace(self, tolerated=tolerated, varied=varied)

    def judge(self, looks: Windows, endpoint: str, *, since: int = 0, segment: str = "") -> list[Signal]:
        """Return the alarms of the looks that start at `since` or later.

        Args:
            looks: Windows of live traffic, such as hours, from some days before `since`: evidence adds up.
        """
        signals: list[Signal] = []
        threshold = len(CHECKS) * len(self.columns) * (WEEK / looks.width) / FALSE_PAGES_PER_WEEK
        shares, rows = _shares(looks), looks.rows
        weight = np.minimum(rows / _FULL, 1.0)
        bets = _BETS[:, None, None] / self.tolerated
        capital = np.ones((len(_BETS), *self.tolerated.shape))
        of_a_day, last_day = max(DAY // looks.width, 1), np.zeros(looks.bins.shape[1:])
        begun = int((rows > 0).argmax()) if len(looks) else 0
        for look in range(len(looks)):
            last_day += looks.bins[look]
            if look >= of_a_day:
                last_day -= looks.bins[look - of_a_day]
            if not rows[look] or looks.training[look]:
                continue
            growth = 1.0 + weight[look] * bets * (shares[look] - self.tolerated)
            capital = np.minimum(np.maximum(capital, 1.0) * np.nan_to_num(growth, nan=1.0), 1e100)
            if looks.starts[look] < since:
                continue
            evidence = np.log(capital.mean(axis=0)) / np.log(threshold)
            broken = (evidence >= 1.0) & (shares[look] > self.tolerated)
            signals += [
                self._signal(looks, look, column, CHECKS[check], endpoint, segment, float(evidence[check, column]))
                for check, column in np.argwhere(broken).tolist()
            ]
            kept = ~(shares[look] > self.tolerated).any(axis=0)
            # Training had several values on each day; a column such as the hour has one in each hour.
            one = ((last_day > 0).sum(axis=1) == 1) & (last_day.sum(axis=1) >= _FULL) & (look - begun >= of_a_day - 1)
            one &= looks.bins[look].any(axis=1)
            one &= shares[look, CHECKS.index(RANGE)] == 0.0  # all values beyond the range share the last bin
            signals += [
                self._signal(looks, look, column, FROZEN, endpoint, segment, 1.0)
                for column in np.flatnonzero(self.varied & kept & one).tolist()
            ]
        return sorted(signals, key=lambda signal: (signal.start, -signal.severity))

    def _signal(
        self, looks: Windows, look: int, column: int, check: str, endpoint: str, segment: str, severity: float
    ) -> Signal:
        share, worst = 1.0, 0.0
        if check in CHECKS:
            share = float(_shares(looks)[look, CHECKS.index(check), column])
            worst = float(self.worst[CHECKS.index(check), column])
        start, rows = int(looks.starts[look]), int(looks.rows[look])
        return Signal(
            channel=CONTRACT,
            endpoint=endpoint,
            statistic=check,
            start=start,
            end=start + looks.width,
            severity=severity,
            segment=segment,
            column=self.columns[column],
            value=share,
            expected=worst,
            page=True,
            detail=_SENTENCES[check].format(
                column=self.columns[column], value=100.0 * share, worst=100.0 * worst, rows=rows
            ),
        )


def _moving(bins: Floats) -> Bools:
    """Return whether the range of columns moves: whether half of the values in an outermost bin come from few windows.

    A temperature has its highest values in some days of the year, and the next season leaves its range without a fault.
    """
    filled = bins.sum(axis=0) > 0
    first, last = filled.argmax(axis=1), WIDTH - 1 - filled[:, ::-1].argmax(axis=1)
    columns = np.arange(len(filled))
    moving = np.zeros(len(filled), bool)
    for outermost in (first, last):
        counts = -np.sort(-bins[:, columns, outermost], axis=0)  # the fullest window first
        windows = (np.cumsum(counts, axis=0) < counts.sum(axis=0) / 2.0).sum(axis=0) + 1
        moving |= windows < _FEW * len(bins)
    return moving


def _whole_shares(column: ColumnReference) -> list[float]:
    """Return the share of each check in all training rows."""
    rows = max(column.count, 1)
    unseen = (column.unseen or 0.0) / column.unseen_of if column.unseen_of else 0.0
    return [(column.nulls + column.nans) / rows, 0.0, unseen, (column.below + column.above) / rows]


def _shares(windows: Windows) -> Floats:
    """Return the share of each check, shape (windows, checks, columns). A row without the column misses it."""
    rows = np.maximum(windows.rows, 1.0)[:, None]
    counts = windows.counts
    absent = windows.rows[:, None] - counts[:, :, 0]
    beyond = counts[:, :, COUNTS.index("below")] + counts[:, :, COUNTS.index("above")]
    types, unseen = (counts[:, :, COUNTS.index(name)] for name in ("type_errors", "unseen"))
    return np.stack([each / rows for each in (missing(counts) - types + absent, types, unseen, beyond)], axis=1)
