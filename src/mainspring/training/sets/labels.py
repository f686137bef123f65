"""Labels for observations: the newest known, or what was known of each once it had matured.

Why: docs/adr/0024-label-maturity.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.expr.sql import literal_sql, quote_name
from mainspring.core.time import format_duration, format_instant
from mainspring.data import duck
from mainspring.data.model import SEQUENCE, SUPERSEDED_AT, VISIBLE_AT, TableScan
from mainspring.features.model import Observations
from mainspring.features.offline.versions import open_versions
from mainspring.training.label import Label, label_keys

LABEL = "_label"
KNOWN_AT = "_known_at"  # int64: when the label could be known, UTC epoch microseconds
WHY = "_left_out"  # why a row has no label, one of the reasons below

NOT_MATURE, NULL_KEY, NO_LABEL, NULL_LABEL, KNOWN_BEFORE = (
    "not_mature", "null_key", "no_label", "null_label", "known_before",
)  # fmt: skip
_WORDS = {
    NOT_MATURE: "not mature",
    NULL_KEY: "without a key of the label",
    NO_LABEL: "without a label",
    NULL_LABEL: "whose label is null",
    KNOWN_BEFORE: "whose label was known before the observation",
}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The observations that have no label, by reason.

    Attributes:
        counts: Reason -> how many, without those that are none.
        keys: The columns by which labels are found.
        through: Until when label rows are known of a label that matures, UTC epoch microseconds; `None` for others,
            and where no label row is known at all.
    """

    counts: Mapping[str, int]
    keys: tuple[str, ...] = ()
    matures_us: int | None = None
    through: int | None = None

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def __str__(self) -> str:
        if not self.total:
            return "no observation is left out"
        parts = [f"{count:,} {self._words(reason)}" for reason, count in self.counts.items()]
        return f"{self.total:,} {'observation is' if self.total == 1 else 'observations are'} left out: " + ", ".join(
            parts
        )

    def _words(self, reason: str) -> str:
        if reason == NULL_KEY:
            return f"{_WORDS[reason]} ({' or '.join(self.keys)} is null)"
        if reason == NOT_MATURE and self.matures_us is not None:
            known = "no label row is" if self.through is None else f"label rows are known until {self._until}"
            return f"{_WORDS[reason]} ({format_duration(self.matures_us)} old; {known})"
        return _WORDS.get(reason, reason)

    @property
    def _until(self) -> str:
        return "never" if self.through is None else format_instant(self.through)


@dataclass(frozen=True, slots=True)
class Join:
    """Join of rows with their labels, as SQL over `observed`, which has `_at`, and `labels`, the label's source.

    Attributes:
        keys: The columns of both that must be equal.
        kind: DuckDB's type of `_label`, by default the column's.
        row: A column of `observed` that is unique.
        until: Label rows that became visible later are not used; UTC epoch microseconds, `None` for no limit.
        feed: The relation with every row of the label's source, which shows how far labels are known.
    """

    label: Label
    keys: Sequence[str]
    row: str
    until: int | None
    kind: str = ""
    feed: str = "labels"

    @property
    def sql(self) -> str:
        """SELECT every row of `observed`, in any order, its `_label` (null for none), `_known_at` and `_left_out`."""
        return self._newest if self.label.matures_us is None else self._at_maturity(self.label.matures_us)

    @property
    def through(self) -> str:
        """SELECT until when label rows are known, microseconds; null where there is none."""
        return f"SELECT epoch_us(max({VISIBLE_AT})) FROM {self.feed} AS f {self._visible}"

    @property
    def _visible(self) -> str:
        return "" if self.until is None else f"WHERE epoch_us({VISIBLE_AT}) <= {self.until}"

    @property
    def _newest_versions(self) -> str:
        """`_visible`, and of facts that have versions the newest one, unless it retracts the fact."""
        if self.label.source.versioning is None:
            return self._visible
        later = "" if self.until is None else f" OR epoch_us({SUPERSEDED_AT}) > {self.until}"
        return f"{self._visible or 'WHERE true'} AND ({SUPERSEDED_AT} IS NULL{later})"

    @property
    def _value(self) -> str:
        return self._cast(f"k.{quote_name(self.label.column)}")

    @property
    def _otherwise(self) -> str:
        label = self.label
        if label.otherwise is None:
            return "NULL"
        return self._cast(literal_sql(label.otherwise, label.source.columns[label.column]))

    def _cast(self, value: str) -> str:
        return f"CAST({value} AS {self.kind})" if self.kind else value

    @property
    def _same(self) -> str:
        return " AND ".join(f"o.{quote_name(key)} = l.{quote_name(key)}" for key in self.keys)

    @property
    def _no_key(self) -> str:
        return " OR ".join(f"o.{quote_name(key)} IS NULL" for key in self.keys)

    def _order(self, table: str) -> str:
        times = (*self.label.source.times, SEQUENCE)
        return ", ".join(f"{table}.{quote_name(name)} DESC NULLS LAST" for name in times)

    @property
    def _newest(self) -> str:
        keys = ", ".join(f"k.{quote_name(key)}" for key in self.keys)
        return (
            f"SELECT o.*, l.{LABEL}, l.{KNOWN_AT}, CASE WHEN l.{LABEL} IS NOT NULL THEN NULL "
            f"WHEN {self._no_key} THEN '{NULL_KEY}' WHEN l.{KNOWN_AT} IS NULL THEN '{NO_LABEL}' "
            f"ELSE '{NULL_LABEL}' END AS {WHY} FROM observed AS o LEFT JOIN ("
            f"SELECT {keys}, {self._value} AS {LABEL}, epoch_us({VISIBLE_AT}) AS {KNOWN_AT} FROM labels AS k "
            f"{self._newest_versions} QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {self._order('k')}) = 1"
            f") AS l ON {self._same}"
        )

    def _at_maturity(self, matures_us: int) -> str:
        settled = f"epoch_us(o._at) + {matures_us}"
        otherwise = self._otherwise
        times = ", ".join(f"k.{quote_name(name)}" for name in (*self.label.source.times, SEQUENCE))
        keys = ", ".join(f"k.{quote_name(key)}" for key in self.keys)
        versions = self.label.source.versioning is not None
        ended = f"epoch_us({SUPERSEDED_AT})" if versions else "NULL::BIGINT"
        # the newest row of each observation that was visible when it matured, as of then: what comes later changes none
        joined = (
            f"SELECT o.*, l._value, l._visible, ({self._no_key}) AS _no_key, {settled} AS _settled "
            f"FROM observed AS o LEFT JOIN (SELECT {keys}, {times}, {self._value} AS _value, "
            f"epoch_us({VISIBLE_AT}) AS _visible, {ended} AS _ended FROM labels AS k) AS l "
            f"ON {self._same} AND l._visible <= {settled} AND (l._ended IS NULL OR l._ended > {settled}) "
            f"QUALIFY row_number() OVER (PARTITION BY o.{quote_name(self.row)} ORDER BY {self._order('l')}) = 1"
        )
        why = (
            f"CASE WHEN t._through IS NULL OR j._settled > t._through THEN '{NOT_MATURE}' "
            f"WHEN j._no_key THEN '{NULL_KEY}' "
            f"WHEN j._value IS NOT NULL AND j._visible <= epoch_us(j._at) THEN '{KNOWN_BEFORE}' "
            f"WHEN j._value IS NOT NULL OR {otherwise} IS NOT NULL THEN NULL "
            f"WHEN j._visible IS NULL THEN '{NO_LABEL}' ELSE '{NULL_LABEL}' END"
        )
        marked = f"SELECT j.*, {why} AS {WHY} FROM ({joined}) AS j CROSS JOIN ({self.through}) AS t(_through)"
        return (
            f"SELECT * EXCLUDE (_value, _visible, _no_key, _settled, {WHY}), "
            f"CASE WHEN {WHY} IS NULL THEN coalesce(_value, {otherwise}) END AS {LABEL}, "
            f"CASE WHEN {WHY} IS NULL THEN CASE WHEN _value IS NULL THEN _settled ELSE _visible END END AS {KNOWN_AT}, "
            f"{WHY} FROM ({marked})"
        )


def join_of(observations: Observations, label: Label, *, row: str, until: int | None) -> Join:
    """Return how a model's observations find their labels."""
    return Join(label, label_keys(observations, label), row, until)


def join_labels(
    observed: pa.Table,
    observations: Observations,
    label: Label,
    scan: Callable[[str], TableScan],
    *,
    until: int | None,
) -> tuple[pa.Table, LeftOut]:
    """Return the observations that have a label, in the order given, with the column `_label`, and the others' reasons.

    Of several label rows of one key the newest value counts (the record-setting rule: the largest event time, then
    recorded time, then order of arrival): of those visible at `until`, or of a label that matures, of those visible
    when the observation matured. A null label is none.

    Args:
        observed: As `features.offline.read.observe` returns it.
        until: Labels that became visible later are not used; UTC epoch microseconds, `None` for no limit.

    Raises:
        Invalid: The label's table was not landed by the id that its source declares.
    """
    join = join_of(observations, label, row="_i", until=until)
    con = duck.connect()
    try:
        open_versions(con, "labels", scan(label.source.name), label.source)
        con.register("observed", observed.append_column("_i", pa.array(range(observed.num_rows), pa.int64())))
        marked = con.sql(f"SELECT _i, {LABEL}, {WHY} FROM ({join.sql}) ORDER BY _i").to_arrow_table()
        reasons: Any = pc.value_counts(pc.drop_null(marked.column(WHY)))
        counts = zip(reasons.field("values").to_pylist(), reasons.field("counts").to_pylist(), strict=True)
        left_out = left_out_by(con, join, dict(counts))
    finally:
        con.close()
    found = marked.filter(pc.is_valid(marked.column(LABEL)))
    return observed.take(found.column("_i")).append_column(LABEL, found.column(LABEL)), left_out


def left_out_by(con: Any, join: Join, counts: Mapping[str, int]) -> LeftOut:
    """Return counted reasons of rows that were joined on the connection, the most frequent first."""
    ordered = dict(sorted(counts.items(), key=lambda each: (-each[1], each[0])))
    matures = join.label.matures_us
    through = None if matures is None else duck.one_row(con, join.through)[0]
    return LeftOut(ordered, tuple(join.keys), matures, through)
