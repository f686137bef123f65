"""Days of made traffic: a season of the week, three numbers that follow from each other, and a text."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mainspring.core.time import DAY
from mainspring.monitoring.channels.windows import Span
from mainspring.stats.reference import Reference, profile
from mainspring.stats.sketches import Ruler

COLUMNS = ("Shop.sales", "Shop.visits", "Road.traffic", "Road.kind")
FIRST = 19_000
Rows = dict[str, Any]
Change = Callable[[Rows], Rows]


def rows_of(day: int, count: int = 400) -> Rows:
    """Sales are 2 deviations larger on each seventh day; visits follow from sales, and traffic from visits."""
    rng = np.random.default_rng([7, day])
    season = 2.0 if day % 7 == 3 else 0.0
    level = season + 0.2 * rng.normal()
    sales = rng.normal(level, 1.0, count)
    visits = sales + 0.5 * rng.normal(size=count)
    traffic = 0.7 * visits + 0.7 * rng.normal(size=count)
    kind = rng.choice(["car", "bus", "tram"], count, p=[0.6, 0.3, 0.1]).astype(object)
    return dict(zip(COLUMNS, (sales, visits, traffic, kind), strict=True))


def reference(days: int = 60, change: Change = lambda rows: rows) -> Reference:
    parts = [change(rows_of(FIRST + day)) for day in range(days)]
    return profile({name: np.concatenate([part[name] for part in parts]) for name in COLUMNS})


def spans(
    ruler: Ruler, days: int, faults: Mapping[int, Change] | None = None, *, training: int = 0, count: int = 400
) -> list[Span]:
    """Return days from the first, some of them changed; the first ones are training."""
    found = []
    for day in range(days):
        rows = rows_of(FIRST + day, count)
        rows = (faults or {}).get(day, lambda rows: rows)(rows)
        start = (FIRST + day) * DAY
        found.append(Span(start, start + DAY, *ruler.measure(rows), training=day < training))
    return found


def without(rows: Rows, names: Sequence[str], share: float = 1.0) -> Rows:
    """Return the rows with the first share of some columns missing."""
    changed = dict(rows)
    for name in names:
        values = rows[name].astype(object).copy()
        values[: int(share * len(values))] = None
        changed[name] = values
    return changed
