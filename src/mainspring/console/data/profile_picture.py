"""Summary of a column: a picture that fits in a table's cell, and a short text."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

from mainspring.console import formats
from mainspring.console.charts import small_bars
from mainspring.data.profile import ColumnProfile, Value

_SHOWN = 3
_LONGEST = 24


@dataclass(frozen=True, slots=True)
class ColumnPicture:
    """One column's profile. `words` say what the picture shows."""

    picture: Markup
    words: Markup
    nulls: float | None  # share of the rows
    distinct: int


def column_picture(column: ColumnProfile, rows: int) -> ColumnPicture:
    """Return the picture of a column of a table with `rows` rows."""
    nulls = (column.nulls + column.nans) / rows if rows else None
    if column.pii:
        return ColumnPicture(Markup(""), formats.missing("it identifies a person"), nulls, column.distinct)
    instant = column.dtype.startswith("timestamp")
    words = _range(column, instant) if column.histogram and not _few(column) else _tops(column, rows, instant)
    if column.histogram is not None and column.histogram.edges:
        return ColumnPicture(_histogram(column, instant), words, nulls, column.distinct)
    if not column.top:
        return ColumnPicture(Markup(""), words, nulls, column.distinct)
    counts = [count for _, count in column.top]
    titles = [f"{_plain(value, instant)}: {formats.share(count / rows)}" for value, count in column.top]
    return ColumnPicture(small_bars(counts, titles), words, nulls, column.distinct)


def _few(column: ColumnProfile) -> bool:
    """Return whether the column is a code rather than a measure: a few values that occur often."""
    return column.dtype.startswith("bool") or (column.distinct <= _SHOWN and bool(column.top))


def _histogram(column: ColumnProfile, instant: bool) -> Markup:
    histogram = column.histogram
    if histogram is None:
        return Markup("")
    edges = [_plain(edge, instant) for edge in histogram.edges]
    titles = [f"up to {edges[0]}"]
    titles += [f"{low} to {high}" for low, high in pairwise(edges)]
    titles.append(f"over {edges[-1]}")
    named = [f"{title}: {count:,}" for title, count in zip(titles, histogram.counts, strict=True)]
    return small_bars(histogram.counts, named)


def _range(column: ColumnProfile, instant: bool) -> Markup:
    if column.low is None or column.high is None:
        return formats.missing("no value")
    low, high = _shown(column.low, instant), _shown(column.high, instant)
    if instant or "p50" not in column.quantiles:
        return Markup("{} to {}").format(low, high)
    return Markup('{} to {}<span class="soft">, median about {}</span>').format(
        low, high, formats.number(column.quantiles["p50"], 2)
    )


def _tops(column: ColumnProfile, rows: int, instant: bool) -> Markup:
    if not column.top:
        if column.low is None:
            return formats.missing("no value")
        return Markup('<span class="soft">no value twice; such as</span> {}').format(_shown(column.low, instant))
    shown = [
        Markup('{} <span class="soft">{}</span>').format(_shown(value, instant), formats.share(count / rows, 0))
        for value, count in column.top[:_SHOWN]
    ]
    return Markup(", ").join(shown)


def _shown(value: Value, instant: bool) -> Markup:
    if instant:
        return escape(formats.instant(int(value)))
    if isinstance(value, str) and len(value) > _LONGEST:
        return Markup('<span title="{}">{}…</span>').format(value, value[:_LONGEST])
    return escape(formats.value(value))


def _plain(value: Value, instant: bool) -> str:
    if instant:
        return formats.minute(int(value))
    return value if isinstance(value, str) else str(formats.number(float(value)))
