"""Last values of a warehouse: a union of rows and questions, and the highest row so far in the order of time.

The record-setting rule needs no flag here. Rows are numbered by (event time, recorded time, arrival), and the largest
number that counts before an instant is the row that set the record.
"""

from __future__ import annotations

from mainspring.core.schema import DType
from mainspring.features.layout import Layout
from mainspring.features.warehouse.rows import Keys, Script


def lasts_sql(script: Script, layout: Layout, keys: Keys, asks: str, rows: str) -> str:
    """Add the tables of a view's last values; return the name of the one with the keys, `_t`, and `_f<n>` for each."""
    dialect, k = script.dialect, keys.listed()
    xs = "".join(f", _x{n}" for n in range(len(layout.last_exprs)))
    versions = bool(layout.view.source.id)
    standing = f" WHERE {rows}._g IS NULL" if versions else ""
    ranked = script.table(
        "ranked",
        f"SELECT {k}, _v, _e, _r, _seq{xs}, ROW_NUMBER() OVER (PARTITION BY {k} ORDER BY _e, _r, _seq) AS _place "
        f"FROM {rows}{standing}",
    )
    # A row that counts from exactly the instant of a question is known to it, so rows sort first.
    stacked = script.table(
        "stacked",
        f"SELECT {k}, _t, _asks, MAX(_place) OVER (PARTITION BY {k} ORDER BY _t, _asks "
        f"ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS _place FROM ("
        f"SELECT {k}, _v AS _t, 0 AS _asks, _place FROM {ranked} UNION ALL "
        f"SELECT {k}, _t, 1 AS _asks, CAST(NULL AS {dialect.types[DType.Int64]}) AS _place FROM {asks}) AS u",
    )
    found = (
        f"SELECT {keys.listed('s')}, s._t, n._e, n._r, n._seq{xs.replace(', ', ', n.')} FROM {stacked} AS s "
        f"JOIN {ranked} AS n ON {keys.equal('s', 'n')} AND n._place = s._place WHERE s._asks = 1"
    )
    if versions:
        found = _newest(keys, asks, rows, found, xs)
    found = script.table("found", found)
    return script.table("lasts", f"SELECT {k}, _t{_values(layout)} FROM {found}")


def _newest(keys: Keys, asks: str, rows: str, standing: str, xs: str) -> str:
    """SELECT the higher of the standing row and of the versions that were alive, for each question."""
    alive = (
        f"SELECT {keys.listed('a')}, a._t, n._e, n._r, n._seq{xs.replace(', ', ', n.')} FROM {asks} AS a "
        f"JOIN {rows} AS n ON {keys.equal('a', 'n')} AND n._v <= a._t AND a._t < n._g"
    )
    return (
        f"SELECT b.* FROM (SELECT u.*, ROW_NUMBER() OVER (PARTITION BY {keys.listed('u')}, u._t "
        f"ORDER BY u._e DESC, u._r DESC, u._seq DESC) AS _best FROM ({standing} UNION ALL {alive}) AS u) AS b "
        "WHERE b._best = 1"
    )


def _values(layout: Layout) -> str:
    """Columns of the features, `_f0` and so on; an expired value is null, never an older one."""
    return "".join(
        f", _x{last.column} AS _f{n}"
        if last.ttl is None
        else f", CASE WHEN _t - _e <= {last.ttl} THEN _x{last.column} END AS _f{n}"
        for n, last in enumerate(layout.lasts)
    )
