"""Days of the prediction log of a chain of answers or a collection, as they are kept between the monitor's passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mainspring.core.time import DAY, MINUTE
from mainspring.ledger.model import Prediction, Selection
from mainspring.monitoring.incidents.model import Judged
from mainspring.monitoring.signals import Signal
from mainspring.project import Project

HISTORY_US, JUDGED_US = 112 * DAY, 8 * DAY
_GRACE_US = 10 * MINUTE  # after a day, until its rows are in the store
_ROWS = 1_000  # of a day, that are sketched

Heard = tuple[Sequence[tuple[int, int]], Sequence[Signal]]  # confirmed incidents, dismissed signals


@dataclass(slots=True)
class KeptDays:
    """Days, kept between passes.

    Attributes:
        until: End of the last day that was judged; 0 makes the days anew.
        days: Start of a day -> column -> values of its rows, or of a sample.
        counts: Start of a day -> number of its rows.
    """

    until: int = 0
    days: dict[int, dict[str, list[Any]]] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)
    heard: Heard = ((), ())
    judged: list[Judged] = field(default_factory=list)


def complete(now: int) -> int:
    """Return the end of the last day whose rows are all in the store."""
    return (now - _GRACE_US) // DAY * DAY


def days_to_read(kept: KeptDays, until: int) -> range:
    """Return the starts of the days that are not kept yet; the last one that is kept is read again, as rows may be
    late. Days that are too old are forgotten."""
    for day in [each for each in kept.days if each < until - HISTORY_US]:
        del kept.days[day]
        kept.counts.pop(day, None)
    return range(max(until - HISTORY_US, kept.until - DAY if kept.until else 0), until, DAY)


def rows_of(project: Project, name: str, day: int) -> tuple[list[Prediction], int]:
    """Return a sample of the rows of a day, by id, and the number of all."""
    chosen = Selection(endpoint=name, since=day, until=day + DAY)
    ids = project.predictions.sample(chosen, _ROWS)
    rows = [each for part in project.predictions.scan(chosen, ids) for each in part] if ids else []
    rows.sort(key=lambda each: each.id)
    return rows, len(ids) if len(ids) < _ROWS else _counted(project, chosen)


def _counted(project: Project, chosen: Selection) -> int:
    found = project.predictions.arrivals(chosen.endpoint or "", chosen.since or 0, chosen.until, columns=["id"])
    return sum(batch.num_rows for batch in found.batches) if found is not None else 0


def together(
    name: str, scope: str, found: Sequence[Judged], told: Callable[[Signal], Signal] = lambda signal: signal
) -> Judged:
    """Return one judgement of a scope, from those of several tables of days.

    Args:
        told: Adds to a signal.
    """
    mine = [each for each in found if each.scope == scope]
    windows = sorted({window for each in mine for window in each.windows})
    return Judged(name, scope, tuple(windows), tuple(told(one) for each in mine for one in each.signals))


def number(value: Any) -> float | None:
    """Return an output as a number, `None` if it is none."""
    return float(value) if isinstance(value, bool | int | float) else None
