"""Freshness of a feature view: the newest rows of its source, and its materialisation progress."""

from __future__ import annotations

from dataclasses import dataclass

from mainspring.core.errors import MainspringError, NotFound
from mainspring.data.model import VISIBLE_AT, TableScan
from mainspring.data.ports import LakeTables
from mainspring.features.describe.sampling import Bounds, bounded
from mainspring.features.layout import slot
from mainspring.features.model import FeatureView, Mark
from mainspring.features.ports import OnlineStore
from mainspring.operations.data.tables import newest

FRESH, LATE, NEVER, EMPTY, UNKNOWN = "fresh", "late", "never", "empty", "unknown"


@dataclass(frozen=True, slots=True)
class ViewFreshness:
    """Freshness of a view. Instants are UTC epoch microseconds.

    Attributes:
        newest_event: The latest event in the source, which may be in the future.
        newest_visible: Instant at which the last visible row became visible; `None` if there is none, or it was not
            requested.
        through: The instant through which the view is materialised.
        horizon: Rows that become visible by then are in the online store already.
        lag_us: Now minus `through`, µs.
        state: `fresh`; `late` if `through` is older than two rounds of the worker; `never` materialised; `empty` if the
            source has no data; `unknown` if the store or the lake did not respond.
        problem: Reason of the state `unknown`.
    """

    newest_event: int | None
    newest_visible: int | None
    through: int | None
    horizon: int | None
    lag_us: int | None
    state: str
    problem: str | None = None


def view_freshness(
    view: FeatureView, lake: LakeTables, store: OnlineStore, now: int, every_us: int, *, visible: bool = False
) -> ViewFreshness:
    """Return the freshness of the view.

    Args:
        every_us: Interval of the worker's materialisation, µs.
        visible: Whether to compute when the last row became visible, which may scan a column.
    """
    event = seen = None
    landed = True
    mark: Mark | None = None
    problems = []
    try:
        scan = lake.scan(view.source.name)
        event = newest(scan, view.source.event_time)
        seen = _visible(view, scan, now) if visible else None
    except NotFound:
        landed = False
    except MainspringError as error:
        problems.append(str(error))
    try:
        mark = store.mark(slot(view))
    except MainspringError as error:
        problems.append(str(error))
    lag = None if mark is None else now - mark.position
    state = FRESH
    if problems:
        state = UNKNOWN
    elif not landed:
        state = EMPTY
    elif lag is None:
        state = NEVER
    elif lag > 2 * every_us:  # twice: one round may be under way
        state = LATE
    return ViewFreshness(
        event,
        seen,
        None if mark is None else mark.position,
        None if mark is None or mark.until <= mark.position else mark.until,
        lag,
        state,
        " ".join(problems) or None,
    )


def _visible(view: FeatureView, scan: TableScan, now: int) -> int | None:
    """Return the instant at which the last visible row became visible."""
    last = newest(scan, VISIBLE_AT)
    if last is None or last <= now:
        return last
    from mainspring.data import duck

    with bounded(view.source.name, Bounds()) as con:
        duck.register(con, "source", scan)
        (found,) = duck.one_row(
            con, f"SELECT epoch_us(max({VISIBLE_AT})) FROM source WHERE {VISIBLE_AT} <= make_timestamptz({now})"
        )
    return None if found is None else int(found)
