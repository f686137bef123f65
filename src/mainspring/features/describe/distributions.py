"""Distributions of a view's features over time: quantiles, or shares of values, and the share of nulls.

Time is divided into about two dozen equal periods. In each, some entities are read at some instants, by the same
point-in-time read as for training sets. An entity counts from its first appearance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mainspring.core.schema import DType
from mainspring.core.time import DAY, HOUR, MINUTE
from mainspring.data.arrow import INSTANT
from mainspring.data.model import TableScan
from mainspring.features.describe.personal import personal_columns
from mainspring.features.describe.sampling import Bounds, Sample, sample
from mainspring.features.layout import feature_dtype
from mainspring.features.model import FeatureView
from mainspring.features.offline.read import point_in_time

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
PERIODS = 24  # at most
CATEGORIES = 5  # the most frequent; the rest count together
EXAMPLES = 6
NUMBERS, SHARES, HIDDEN = "numbers", "shares", "hidden"
_GOLDEN = (5**0.5 - 1) / 2
_WIDTHS = (
    *(n * MINUTE for n in (1, 2, 5, 10, 15, 30)),
    *(n * HOUR for n in (1, 2, 3, 6, 12)),
    *(n * DAY for n in (1, 2, 3, 5, 7, 10, 14, 21, 28, 42, 60, 91, 182, 365)),
)


@dataclass(frozen=True, slots=True)
class Period:
    """Distribution of values read in `[start, end)`: `reads` values, `nulls` of them null, `strange` NaN or infinite.

    `quantiles` are the `QUANTILES` of the other values, `None` if there are none; `shares` are those of the
    distribution's categories among the non-null values, followed by the share of all others.
    """

    start: int  # UTC epoch microseconds
    end: int
    reads: int
    nulls: int
    strange: int = 0
    quantiles: tuple[float, ...] | None = None
    shares: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Distribution:
    """One feature over time. `kind` is `numbers`, `shares` (of text and booleans), or `hidden` (nulls only).

    Instants are hidden, and so are values computed from a column that identifies a person.
    """

    feature: str
    kind: str
    categories: tuple[str, ...]
    periods: tuple[Period, ...]

    @property
    def null_share(self) -> float | None:
        reads = sum(period.reads for period in self.periods)
        return sum(period.nulls for period in self.periods) / reads if reads else None


@dataclass(frozen=True, slots=True)
class Distributions:
    """The features of one view over time, from a sample.

    Attributes:
        version: The version of the source's table.
        entities: Number of entities read, of about `known`.
        instants: Number of instants in each period.
        rows: Number of source rows that were read.
        examples: The keys of some of the entities; empty if a key identifies a person.
        features: By name, in the view's order.
    """

    version: int
    entities: int
    known: int
    instants: int
    rows: int
    examples: tuple[dict[str, Any], ...]
    features: dict[str, Distribution]


def distributions(view: FeatureView, scan: TableScan, now: int, bounds: Bounds | None = None) -> Distributions | None:
    """Return the distributions of the view's features up to `now`; `None` if no entity is known.

    Args:
        now: UTC epoch microseconds; rows that become visible later are not read.
        bounds: Limits of its cost. A period has at most `bounds.entities` reads.

    Raises:
        Unavailable: Reading the table took too long.
        Invalid: The source was ingested before the view's entity was declared.
    """
    limits = bounds or Bounds()
    sampled = sample(view, scan, now, limits)
    if sampled is None:
        return None
    periods = cut(sampled.start, sampled.end)
    instants = max(1, limits.entities // sampled.keys.num_rows)
    observations, period = _asked(view, sampled, periods, instants)
    read = point_in_time(
        observations, [view], lambda _: sampled.scan, schema=dict(view.entity.keys), memory_limit=limits.memory
    )
    rows = 0 if sampled.scan.rows is None else sampled.scan.rows.num_rows
    features = {}
    for name in view.names:
        values = read[f"{view.name}.{name}"].combine_chunks()
        features[name] = _distribution(view, name, values, period, periods)
    return Distributions(
        scan.version, sampled.keys.num_rows, sampled.known, instants, rows, _examples(view, sampled.keys), features
    )


def cut(start: int, end: int) -> list[tuple[int, int]]:
    """Return at most `PERIODS` equal periods of a round width that cover `start` and `end`."""
    longest = _WIDTHS[-1]
    width = next((w for w in _WIDTHS if (end - start) // w < PERIODS - 1), None)
    if width is None:
        width = longest * (1 + (end - start) // (longest * (PERIODS - 1)))
    unit = min(width, DAY)
    first = start // unit * unit
    return [(at, at + width) for at in range(first, end + 1, width)]


def _asked(
    view: FeatureView, entities: Sample, periods: Sequence[tuple[int, int]], instants: int
) -> tuple[pa.Table, np.ndarray[Any, Any]]:
    """Return the observations and the period of each: every entity at the instants of every period since it was first
    seen.
    """
    since = entities.keys["_since"].to_numpy()
    # Each entity has its own offset in a period, so that reads are not all at one time of the day.
    offset = np.arange(len(since)) * _GOLDEN % 1.0
    ats, owners, numbers = [], [], []
    for number, (start, end) in enumerate(periods):
        low, high = max(start, entities.start), min(end - 1, entities.end)
        for step in range(instants):
            instant = high - ((high - low) * (step + offset) / instants).astype(np.int64)
            known = np.flatnonzero(since <= instant)
            owners.append(known)
            ats.append(instant[known])
            numbers.append(np.full(len(known), number, np.int64))
    keys = entities.keys.select(list(view.entity.keys)).take(pa.array(np.concatenate(owners), pa.int64()))
    at_column = pa.array(np.concatenate(ats), pa.int64()).cast(INSTANT)
    return keys.append_column("_at", at_column), np.concatenate(numbers)


def _examples(view: FeatureView, keys: pa.Table) -> tuple[dict[str, Any], ...]:
    if set(view.entity.keys) & set(view.source.pii):
        return ()
    shown = keys.select(list(view.entity.keys)).slice(0, EXAMPLES)
    return tuple(sorted(shown.to_pylist(), key=lambda key: tuple(map(str, key.values()))))


def _distribution(
    view: FeatureView, name: str, values: Any, period: np.ndarray[Any, Any], periods: Sequence[tuple[int, int]]
) -> Distribution:
    dtype = feature_dtype(view, name)
    kind = NUMBERS if dtype.numeric else SHARES if dtype in (DType.String, DType.Boolean) else HIDDEN
    if personal_columns(view, name):
        kind = HIDDEN
    valid = values.is_valid().to_numpy(zero_copy_only=False)
    common = tuple(text for text, _ in _counted(values, valid).most_common(CATEGORIES)) if kind == SHARES else ()
    made = []
    for number, (start, end) in enumerate(periods):
        inside = period == number
        nulls = int(np.count_nonzero(inside & ~valid))
        base = (start, end, int(np.count_nonzero(inside)), nulls)
        if kind == NUMBERS:
            numbers = values.filter(pa.array(inside & valid)).to_numpy(zero_copy_only=False).astype(np.float64)
            finite = numbers[np.isfinite(numbers)]
            quantiles = tuple(np.quantile(finite, QUANTILES).tolist()) if len(finite) else None
            made.append(Period(*base, len(numbers) - len(finite), quantiles))
        elif kind == SHARES:
            made.append(Period(*base, shares=_shares(_counted(values, inside & valid), common)))
        else:
            made.append(Period(*base))
    return Distribution(name, kind, common, tuple(made))


def _counted(values: Any, inside: np.ndarray[Any, Any]) -> Counter[str]:
    return Counter(
        ("true" if value else "false") if isinstance(value, bool) else value
        for value in values.filter(pa.array(inside)).to_pylist()
    )


def _shares(counted: Counter[str], common: Sequence[str]) -> tuple[float, ...]:
    total = sum(counted.values())
    if not total:
        return ()
    named = [counted[text] / total for text in common]
    return (*named, max(0.0, 1 - sum(named)))
