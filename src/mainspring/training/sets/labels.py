"""Labels for observations: what was known of each, by the end of the training's time."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from mainspring.core.errors import Invalid
from mainspring.core.expr.sql import quote_name
from mainspring.data import duck
from mainspring.data.model import SEQUENCE, VISIBLE_AT, SourceColumn, TableScan
from mainspring.features.model import Observations

LABEL = "_label"


def label_keys(observations: Observations, label: SourceColumn) -> list[str]:
    """Return the columns by which observations meet their labels: the entities' keys that the label's source has.

    Raises:
        Invalid: The label's source is keyed by none of the entities.
    """
    have = label.source.columns
    if not any(all(key in have for key in entity.keys) for entity in observations.keys):
        raise Invalid(
            f"Source {label.source.name!r} of the label has none of the keys of "
            f"{sorted(entity.name for entity in observations.keys)}.",
            fix=f"its columns are {sorted(have)}; give it the key columns of one entity.",
        )
    return list(dict.fromkeys(key for entity in observations.keys for key in entity.keys if key in have))


def join_labels(
    observed: pa.Table,
    observations: Observations,
    label: SourceColumn,
    scan: Callable[[str], TableScan],
    *,
    until: int | None,
) -> pa.Table:
    """Return the observations that have a label, in the order given, with the column `_label`.

    Of several label rows of one key the last value counts that was visible at `until` (the record-setting rule: the
    largest event time, then recorded time, then order of arrival). A null label, like none, drops the observation.

    Args:
        observed: As `features.offline.read.observe` returns it.
        until: Labels that became visible later are not used; UTC epoch microseconds, `None` for no limit.
    """
    con = duck.connect()
    try:
        duck.register(con, "labels", scan(label.source.name))
        con.register("observed", observed.append_column("_i", pa.array(range(observed.num_rows), pa.int64())))
        labelled = labelled_sql(observations, label, until=until)
        found = con.sql(f"SELECT _i, {LABEL} FROM ({labelled}) ORDER BY _i").to_arrow_table()
    finally:
        con.close()
    return observed.take(found.column("_i")).append_column(LABEL, found.column(LABEL))


def labelled_sql(observations: Observations, label: SourceColumn, *, until: int | None) -> str:
    """SELECT the rows of `observed` that have a label, in any order, and their `_label`, from `labels`, its source."""
    keys = label_keys(observations, label)
    quoted = ", ".join(quote_name(key) for key in keys)
    newest = ", ".join(f"{quote_name(time)} DESC" for time in label.source.times)
    visible = f"WHERE epoch_us({VISIBLE_AT}) <= {until}" if until is not None else ""
    same = " AND ".join(f"o.{quote_name(key)} = l.{quote_name(key)}" for key in keys)
    return (
        f"SELECT o.*, l.{LABEL} FROM observed AS o JOIN ("
        f"SELECT {quoted}, {quote_name(label.column)} AS {LABEL} FROM labels {visible} "
        f"QUALIFY row_number() OVER (PARTITION BY {quoted} ORDER BY {newest}, {SEQUENCE} DESC) = 1"
        f") AS l ON {same} WHERE l.{LABEL} IS NOT NULL"
    )
