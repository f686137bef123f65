"""Join of labels to observations: the newest value, or the value known at maturity.

Several labels are joined separately, and an observation counts as labelled if it has all of them. Why:
docs/adr/0024-label-maturity.md, docs/adr/0030-several-labels.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.expr.sql import literal_sql, quote_name, quote_text
from mainspring.core.time import format_duration, format_instant
from mainspring.data import duck
from mainspring.data.model import SEQUENCE, SUPERSEDED_AT, VISIBLE_AT, TableScan
from mainspring.features.model import Observations
from mainspring.features.offline.versions import open_versions
from mainspring.training.label import Label, label_keys

LABEL = "_label"  # for several labels a struct: column -> value
SCORES = "_scores"  # of held-out rows: the model's predictions, a list of one number per output
BASELINE_SCORE = "_baseline"  # of held-out rows: the baseline's predictions, a list of one number per output
KNOWN_AT = "_known_at"  # int64: time at which the label became known, UTC epoch microseconds
WHY = "_left_out"  # reason for a missing label, one of those below

NOT_MATURE, NULL_KEY, NO_LABEL, NULL_LABEL, KNOWN_BEFORE, NO_CONSENT = (
    "not_mature", "null_key", "no_label", "null_label", "known_before", "no_consent",
)  # fmt: skip
_WORDS = {
    NOT_MATURE: "not mature",
    NULL_KEY: "without a key of the label",
    NO_LABEL: "without a label",
    NULL_LABEL: "whose label is null",
    KNOWN_BEFORE: "whose label was known before the observation",
    NO_CONSENT: "without consent",
}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Observations without a label, or without consent, counted by reason.

    Attributes:
        counts: Reason -> number of observations, without zeros. For several labels the key is `reason.column`, with the
            first label in declaration order that an observation lacks.
        keys: The join columns.
        through: Time up to which label rows are known, for a label that matures, UTC epoch microseconds; `None` for
            others, and if there are no label rows.
        labels: Column -> the same for each of several labels.
    """

    counts: Mapping[str, int]
    keys: tuple[str, ...] = ()
    matures_us: int | None = None
    through: int | None = None
    labels: Mapping[str, LeftOut] = field(default_factory=dict)

    def and_without_consent(self, count: int) -> LeftOut:
        """Return the same with observations of subjects who have not consented."""
        return replace(self, counts=_ordered({**self.counts, NO_CONSENT: count})) if count else self

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def all_immature(self) -> bool:
        """True if every observation left out has not matured."""
        return self.total > 0 and all(reason.partition(".")[0] == NOT_MATURE for reason in self.counts)

    def __str__(self) -> str:
        if not self.total:
            return "no observation is left out"
        parts = [f"{count:,} {self._words(reason)}" for reason, count in self.counts.items()]
        return f"{self.total:,} {'observation is' if self.total == 1 else 'observations are'} left out: " + ", ".join(
            parts
        )

    def _words(self, reason: str) -> str:
        kind, _, column = reason.partition(".")
        if column in self.labels:
            return f"{self.labels[column]._words(kind)} [{column}]"
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
    """Join of observations with one label, as SQL over `observed`, which has `_at`, and the label's source.

    Attributes:
        keys: The join columns, present in both.
        kind: DuckDB type of `_label`; by default the column's.
        row: A unique column of `observed`.
        until: Label rows that became visible later are ignored; UTC epoch microseconds, `None` for no limit.
        feed: Relation with every row of the label's source, from which `through` is computed.
        labels: Relation of the label's source.
        complete: True if no further label rows are waited for, so that every observation counts as mature.
    """

    label: Label
    keys: Sequence[str]
    row: str
    until: int | None
    kind: str = ""
    feed: str = "labels"
    labels: str = "labels"
    complete: bool = False

    @property
    def sql(self) -> str:
        """SELECT of every row of `observed`, unordered, with `_label` (null if none), `_known_at` and `_left_out`."""
        return self._newest if self.label.matures_us is None else self._at_maturity(self.label.matures_us)

    @property
    def through(self) -> str:
        """SELECT of the time up to which label rows are known, UTC epoch microseconds; null if there are none."""
        return f"SELECT epoch_us(max({VISIBLE_AT})) FROM {self.feed} AS f {self._visible}"

    @property
    def _visible(self) -> str:
        return "" if self.until is None else f"WHERE epoch_us({VISIBLE_AT}) <= {self.until}"

    @property
    def _newest_versions(self) -> str:
        """`_visible`, and for versioned facts only the newest version, unless it retracts the fact."""
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
            f"SELECT {keys}, {self._value} AS {LABEL}, epoch_us({VISIBLE_AT}) AS {KNOWN_AT} FROM {self.labels} AS k "
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
        # the newest label row visible at each observation's maturity, as of then: later rows change nothing
        joined = (
            f"SELECT o.*, l._value, l._visible, ({self._no_key}) AS _no_key, {settled} AS _settled "
            f"FROM observed AS o LEFT JOIN (SELECT {keys}, {times}, {self._value} AS _value, "
            f"epoch_us({VISIBLE_AT}) AS _visible, {ended} AS _ended FROM {self.labels} AS k) AS l "
            f"ON {self._same} AND l._visible <= {settled} AND (l._ended IS NULL OR l._ended > {settled}) "
            f"QUALIFY row_number() OVER (PARTITION BY o.{quote_name(self.row)} ORDER BY {self._order('l')}) = 1"
        )
        waits = "false" if self.complete else "t._through IS NULL OR j._settled > t._through"
        why = (
            f"CASE WHEN {waits} THEN '{NOT_MATURE}' "
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


@dataclass(frozen=True, slots=True)
class Joins:
    """Join of observations with one label or with several, each with its own relation."""

    each: tuple[Join, ...]

    @property
    def sql(self) -> str:
        """SELECT with the schema of `Join.sql`; for several labels `_label` is a struct, and null if any of them is."""
        if len(self.each) == 1:
            return self.each[0].sql
        numbered = list(enumerate(self.each))
        complete = " AND ".join(f"l{number}.{LABEL} IS NOT NULL" for number, _ in numbered)
        values = ", ".join(f"{quote_name(join.label.column)} := l{number}.{LABEL}" for number, join in numbered)
        known_at = ", ".join(f"l{number}.{KNOWN_AT}" for number, _ in numbered)
        why = ", ".join(f"l{number}.{WHY} || {quote_text('.' + join.label.column)}" for number, join in numbered)
        row = quote_name(self.each[0].row)
        others = " ".join(
            f"JOIN ({join.sql}) AS l{number} ON l{number}.{row} = l0.{row}" for number, join in numbered[1:]
        )
        return (
            f"SELECT l0.* EXCLUDE ({LABEL}, {KNOWN_AT}, {WHY}), CASE WHEN {complete} THEN struct_pack({values}) END AS "
            f"{LABEL}, CASE WHEN {complete} THEN greatest({known_at}) END AS {KNOWN_AT}, coalesce({why}) AS {WHY} "
            f"FROM ({self.each[0].sql}) AS l0 {others}"
        )

    def open(self, con: Any, scan: Callable[[str], TableScan]) -> None:
        """Create the labels' relations on a connection.

        Raises:
            Invalid: A label's table was not ingested by the id that its source declares.
        """
        for join in self.each:
            open_versions(con, join.labels, scan(join.label.source.name), join.label.source)

    def left_out(self, con: Any, counts: Mapping[str, int]) -> LeftOut:
        """Return the counted reasons as a `LeftOut`, the most frequent first."""
        if len(self.each) == 1:
            return left_out_by(con, self.each[0], counts)
        of = {join.label.column: left_out_by(con, join, _of_label(counts, join.label.column)) for join in self.each}
        return LeftOut(_ordered(counts), tuple(self.each[0].keys), labels=of)


def joins_of(observations: Observations, labels: Sequence[Label], *, until: int | None) -> Joins:
    """Return the joins of a model's observations, which have `_seq`, with their labels."""
    tables = ["labels"] if len(labels) == 1 else [f"labels_{at}" for at in range(len(labels))]
    return Joins(
        tuple(
            Join(label, label_keys(observations, label), SEQUENCE, until, feed=table, labels=table)
            for label, table in zip(labels, tables, strict=True)
        )
    )


def left_out_by(con: Any, join: Join, counts: Mapping[str, int]) -> LeftOut:
    """Return one label's counted reasons as a `LeftOut`, the most frequent first."""
    matures = join.label.matures_us
    through = None if matures is None else duck.one_row(con, join.through)[0]
    return LeftOut(_ordered(counts), tuple(join.keys), matures, through)


def _ordered(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda each: (-each[1], each[0])))


def _of_label(counts: Mapping[str, int], column: str) -> dict[str, int]:
    """Return the counted reasons of one of several labels."""
    parts = {tuple(reason.split(".", 1)): count for reason, count in counts.items()}
    return {kind: count for (kind, of), count in parts.items() if of == column}


def label_numbers(column: pa.ChunkedArray[Any], labels: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return a numeric column `_label` as float64: shape (rows,), or (rows, labels) for several, in this order.

    Args:
        labels: Column names of several labels; empty for one.
    """
    if not labels:
        return np.asarray(column.cast(pa.float64()).to_numpy())
    found = [pc.struct_field(column, name).cast(pa.float64()).to_numpy() for name in labels]
    return np.column_stack(found)
