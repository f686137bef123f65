"""Versions of facts in the offline read: rows that were not superseded, and mortal rows.

In a source with an id, a row that was not superseded is read like a row of any source. A mortal row counts in [v, g)
only: from a microsecond after it became visible until a microsecond after a newer version did. They are few, so each
observation is joined with the mortal rows of its entity that are alive at its instant. Lifetimes differ widely, so each
row is stored under a bucket width that fits its lifetime, in the one or two buckets in which it lives; an observation
checks the bucket of its instant for each width. So a pair matches at most once, and few rows are checked that are not
alive.
"""

from __future__ import annotations

from typing import Any

from mainspring.core.errors import Invalid
from mainspring.core.expr.sql import quote_name
from mainspring.core.time import DAY, HOUR, MINUTE
from mainspring.data import duck
from mainspring.data.arrow import versioning_of
from mainspring.data.flags import rank_columns
from mainspring.data.model import SEQUENCE, SUPERSEDED_AT, VISIBLE_AT, Source, TableScan
from mainspring.features.model import FeatureView
from mainspring.features.offline.query import COUNTS_FROM, NEWEST, OLDEST

COUNTS_UNTIL = f"(epoch_us({SUPERSEDED_AT}) + 1)"
STANDING = f"{SUPERSEDED_AT} IS NULL"
# Rows that count at some of the observed instants, but not permanently.
MORTAL = (
    f"{SUPERSEDED_AT} > {VISIBLE_AT} AND {SUPERSEDED_AT} >= make_timestamptz({OLDEST}) "
    f"AND {VISIBLE_AT} < make_timestamptz({NEWEST})"
)
_EVER = 1 << 60  # longer than from the first instant to the last
_WIDTHS = (MINUTE, HOUR, DAY, 30 * DAY, _EVER)


def landed_versioning(scan: TableScan) -> tuple[tuple[str, ...], str | None] | None:
    """Return the `Source.versioning` with which a table was ingested; `None` if its rows are not versions of facts."""
    schema = scan.schema if scan.rows is None else scan.rows.schema
    return None if schema is None else versioning_of(schema)


def has_versions(scan: TableScan, source: Source) -> bool:
    """Return whether the rows of a source's table were ingested as versions of facts.

    Raises:
        Invalid: The table was not ingested with the id that the source declares.
    """
    schema = scan.schema if scan.rows is None else scan.rows.schema
    if schema is None:
        return source.versioning is not None
    there = SUPERSEDED_AT in schema.names
    marked = there and schema.field(SUPERSEDED_AT).metadata is not None
    declared = source.versioning
    if declared is not None and (not there or (marked and versioning_of(schema) != declared)):
        raise Invalid(
            f"Table {source.name!r} was ingested before its source declared the id {', '.join(source.id)}.",
            fix="run `mainspring apply`; read an earlier dataset commit with the declaration of that time.",
        )
    return there


def open_versions(con: Any, name: str, scan: TableScan, source: Source) -> None:
    """Make a source's table readable as `name`, where it is as the source declares its versions.

    Raises:
        Invalid: The table was not ingested with the id that the source declares.
    """
    has_versions(scan, source)
    duck.register(con, name, scan)


def mortals_sql(columns: str, rows: str) -> str:
    """SELECT `columns`, `v`, `g`, and the bucket width `w` and places of each of the mortal `rows`.

    Args:
        columns: Additional columns to select.
        rows: The FROM clause, including a WHERE condition.
    """
    fits = "".join(f"WHEN g - v <= {width} THEN {width} " for width in _WIDTHS[:-1])
    return (
        f"SELECT *, unnest(range({_place('v')}, g, w)) AS place FROM (SELECT *, CASE {fits}ELSE {_EVER} END AS w "
        f"FROM (SELECT {columns}, {COUNTS_FROM} AS v, {COUNTS_UNTIL} AS g {rows}))"
    )


def first_places_sql(mortals: str) -> str:
    """SELECT each mortal row of a table of `mortals_sql` once."""
    return f"SELECT * FROM {mortals} WHERE place = {_place('v')}"


def alive_sql(columns: str, asked: str, mortals: str, same: str) -> str:
    """SELECT `columns` of each of `asked` (as `ask`, with its instant `t`) and each mortal row (`row`) alive at it.

    Args:
        mortals: A table of `mortals_sql`.
        same: Condition that both belong to one entity.
    """
    return (
        f"SELECT {columns} FROM (SELECT *, {_place('t')} AS place FROM {asked}, (SELECT DISTINCT w FROM {mortals})) "
        f"AS ask JOIN {mortals} AS row ON {same} AND row.w = ask.w AND row.place = ask.place "
        "WHERE row.v <= ask.t AND ask.t < row.g"
    )


def rank_sql(view: FeatureView) -> str:
    """Return the columns by which rows of one entity are ranked: e, r, seq."""
    event, recorded = view.source.event_time, view.source.recorded_time or view.source.event_time
    return f"epoch_us({quote_name(event)}) AS e, epoch_us({quote_name(recorded)}) AS r, {SEQUENCE} AS seq"


def first_versions_sql(source: Source, until: int | None = None) -> str:
    """SELECT the first version of each fact that is not retracted, from `source`.

    Args:
        until: For a fact known by then, its retraction is taken as known then, whatever came later; UTC epoch
            microseconds.
    """
    fact = ", ".join(map(quote_name, source.id))
    _, recorded, seq = rank_columns(source)
    # Every version of a retracted fact is superseded.
    is_standing = f"bool_or({STANDING}) OVER fact"
    if until is not None:
        known_then = f"epoch_us({VISIBLE_AT}) <= {until}"
        was_standing = f"{known_then} AND ({STANDING} OR epoch_us({SUPERSEDED_AT}) > {until})"
        is_standing = (
            f"CASE WHEN bool_or({known_then}) OVER fact THEN bool_or({was_standing}) OVER fact ELSE {is_standing} END"
        )
    return (
        f"SELECT * FROM source WINDOW fact AS (PARTITION BY {fact}) QUALIFY {is_standing} "
        f"AND row_number() OVER (PARTITION BY {fact} ORDER BY {VISIBLE_AT}, {recorded}, {seq}) = 1"
    )


def _place(instant: str) -> str:
    # SQL's remainder has the sign of the dividend; instants before 1970 are negative.
    return f"({instant} - ((({instant}) % w) + w) % w)"
