"""Charts of one feature over time: the distribution of its values, and the share of nulls."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup

from mainspring.console import formats
from mainspring.console.charts import Chart, Line, Table, spark
from mainspring.features.describe.distributions import NUMBERS, QUANTILES, SHARES, Distribution, Period

_TONES = ("first", "second", "third", "fourth", "fifth")
_NAMES = tuple("median" if quantile == 0.5 else f"p{100 * quantile:g}" for quantile in QUANTILES)


def charts(feature: Distribution) -> tuple[Chart, ...]:
    """Return a chart of the values, if they may be shown, and one of the nulls."""
    return (*_values(feature), _nulls(feature))


def median_spark(feature: Distribution) -> Markup:
    """Return the median over time as a sparkline; nothing for a feature that is not a number."""
    medians = [period.quantiles[2] if period.quantiles else None for period in feature.periods]
    known = [median for median in medians if median is not None]
    if not known:
        return Markup("")
    low, span = min(known), max(known) - min(known)
    return spark([None if m is None else (m - low) / span if span else 0.5 for m in medians], 1.0)


def _values(feature: Distribution) -> Sequence[Chart]:
    if feature.kind == NUMBERS:
        return [_numbers(feature)]
    return [_shares(feature)] if feature.kind == SHARES else []


def _numbers(feature: Distribution) -> Chart:
    lines = tuple(
        Line(name, tuple(period.quantiles[n] if period.quantiles else None for period in feature.periods), tone)
        for n, (name, tone) in enumerate(zip(_NAMES, ("outer", "inner", "first", "inner", "outer"), strict=True))
    )
    known = [value for line in lines for value in line.values if value is not None]
    strange = sum(period.strange for period in feature.periods)
    return _chart(
        feature,
        "values",
        f"{feature.feature}: its values",
        "bands",
        "number",
        lines,
        note="ranges that contain 50% and 90% of the values"
        + (f"; {strange:,} NaN or infinite values left out" if strange else ""),
        from_zero=bool(known) and min(known) >= 0 and min(known) <= 0.5 * max(known),
        empty="No period has a number.",
        table=_table(feature, _NAMES, lambda period: [formats.number(q) for q in period.quantiles or ()]),
    )


def _shares(feature: Distribution) -> Chart:
    names = [name or "(an empty text)" for name in feature.categories]
    others = any(period.shares and period.shares[-1] > 0 for period in feature.periods)
    lines = [
        Line(name, tuple(period.shares[n] if period.shares else None for period in feature.periods), _TONES[n])
        for n, name in enumerate(names)
    ]
    if others:
        shares = tuple(period.shares[-1] if period.shares else None for period in feature.periods)
        lines.append(Line("all others", shares, "rest"))
    return _chart(
        feature,
        "values",
        f"{feature.feature}: its values",
        "bars",
        "share",
        tuple(lines),
        stacked=True,
        note="share of each value among those that are not null",
        empty="No period has a value.",
        table=_table(
            feature,
            tuple(line.name for line in lines),
            lambda period: [formats.share(share) for share in period.shares[: len(lines)]],
        ),
    )


def _nulls(feature: Distribution) -> Chart:
    shares = tuple(period.nulls / period.reads if period.reads else None for period in feature.periods)
    return _chart(
        feature,
        "nulls",
        f"{feature.feature}: null",
        "bars",
        "share",
        (Line("null", shares, "second"),),
        note="share of the reads that returned null",
        empty="No values were read.",
        table=_table(
            feature, ("Null", "Reads"), lambda period: [formats.share(_share(period)), formats.whole(period.reads)]
        ),
    )


def _share(period: Period) -> float | None:
    return period.nulls / period.reads if period.reads else None


def _chart(
    feature: Distribution, id_: str, title: str, kind: str, unit: str, lines: tuple[Line, ...], **more: object
) -> Chart:
    starts = tuple(period.start for period in feature.periods)
    ends = tuple(period.end for period in feature.periods)
    return Chart(id_, title, kind, unit, starts, ends, lines, pieces="periods", **more)  # type: ignore[arg-type]


def _table(feature: Distribution, head: tuple[str, ...], cells: Callable[[Period], Sequence[str | Markup]]) -> Table:
    def row(period: Period) -> tuple[str | Markup, ...]:
        found = cells(period)
        return (formats.span(period.start, period.end), *(found or [formats.missing("no value")] * len(head)))

    return Table(("Period", *head), tuple(row(period) for period in reversed(feature.periods)))
