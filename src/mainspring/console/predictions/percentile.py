"""Position of a feature's value in its training distribution."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from markupsafe import Markup

from mainspring.console import formats
from mainspring.core.errors import Corrupt
from mainspring.ledger.model import Value
from mainspring.registry.bundles import REFERENCE
from mainspring.registry.model import Bundle
from mainspring.stats.reference import CATEGORICAL, ColumnReference, Reference

_WIDTH, _HEIGHT, _COLUMNS = 168, 30, 28
_RARE = 0.01  # a value with a smaller share beside or beyond it is flagged


@dataclass(frozen=True, slots=True)
class Place:
    """Position of a value. `text` describes it, `picture` draws the reference with the value marked, `unusual` flags
    it.
    """

    text: str | Markup
    picture: Markup
    unusual: bool


def places(bundle: Bundle, features: Mapping[str, Value]) -> dict[str, Place]:
    """Return the position of each feature that the bundle's reference contains.

    Raises:
        Corrupt: The bundle's reference cannot be decoded.
    """
    content = bundle.files.get(REFERENCE)
    if content is None:
        return {}
    try:
        reference = msgspec.json.decode(content, type=Reference)
    except msgspec.DecodeError as error:
        raise Corrupt(f"The reference of bundle {bundle.digest[:12]} cannot be read: {error}.") from error
    known = reference.columns
    return {name: place(known[name], value) for name, value in features.items() if name in known}


def place(column: ColumnReference, value: Value) -> Place:
    """Return the position of `value` in the column's reference."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return _null(column)
    if not column.n:
        return Place("only nulls in training", Markup(""), True)
    if column.kind == CATEGORICAL:
        return _category(column, str(value))
    return (
        Place("text, but numbers in training", Markup(""), True) if isinstance(value, str) else _number(column, value)
    )


def _null(column: ColumnReference) -> Place:
    share = (column.nulls + column.nans) / column.count if column.count else 0.0
    text = f"null, like {formats.share(share)} in training" if share else "null, which did not occur in training"
    picture = _categories(column, None) if column.kind == CATEGORICAL else _silhouette(column, None)
    return Place(text, picture if column.n else Markup(""), share < _RARE)


def _number(column: ColumnReference, value: float) -> Place:
    bin_ = bisect.bisect_left(column.edges, value)
    inside, below = column.bins[bin_] / column.n, sum(column.bins[:bin_]) / column.n
    picture = _silhouette(column, float(value))
    if bin_ == 0 or bin_ == len(column.edges):
        where = "lowest" if bin_ == 0 else "highest"
        beyond = inside < 1 / 256  # the bin holds a 64th, unless no training value was there
        side = "below" if bin_ == 0 else "above"
        text = f"{side} everything in training" if beyond else f"among the {where} {formats.share(inside)}"
        return Place(text, picture, beyond or not _thin(column, bin_))
    if _thin(column, bin_):
        return Place(f"the same as {formats.share(inside)} of training", picture, inside < _RARE)
    low, high = column.edges[bin_ - 1], column.edges[bin_]
    rank = below + inside * (value - low) / (high - low)
    return Place(f"{_ordinal(min(99, max(1, round(100 * rank))))} percentile", picture, False)


def _thin(column: ColumnReference, bin_: int) -> bool:
    """Return whether the bin holds one value only."""
    if not 0 < bin_ < len(column.edges):
        return False
    low, high = column.edges[bin_ - 1], column.edges[bin_]
    return high <= math.nextafter(low, math.inf)


def _ordinal(rank: int) -> str:
    suffix = "th" if 10 <= rank % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(rank % 10, "th")
    return f"{rank}{suffix}"


def _category(column: ColumnReference, value: str) -> Place:
    if value in column.categories:
        share = column.bins[column.categories.index(value)] / column.binned
        return Place(f"{formats.share(share)} of training", _categories(column, value), share < _RARE)
    others = column.others / column.n
    text = f"rare: not among the {len(column.categories)} most frequent" if others else "did not occur in training"
    return Place(text, _categories(column, value), True)


def _categories(column: ColumnReference, value: str | None) -> Markup:
    """The most frequent categories as bars; the value's own is marked and always shown."""
    ranked = sorted(zip(column.bins, column.categories, strict=False), reverse=True)
    shown = ranked[:14]
    if value is not None and value not in (name for _, name in shown):
        shown[13:] = [(count, name) for count, name in ranked if name == value] or [(0, value)]
    highest, step = max(count for count, _ in shown) or 1, _WIDTH / max(8, len(shown))
    bars = Markup("")
    for index, (count, name) in enumerate(shown):
        height = max(1.0, (_HEIGHT - 2) * count / highest)
        bars += Markup(
            '<rect{} x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}: {}</title></rect>'
        ).format(
            Markup(' class="here"') if name == value else "",
            index * step,
            _HEIGHT - height,
            max(1.0, step - 2),
            height,
            name,
            formats.share(count / column.binned),
        )
    return _svg(bars)


def _silhouette(column: ColumnReference, value: float | None) -> Markup:
    """The reference's density between its outer edges, with a line at the value, or an arrow if it lies outside."""
    low, high = column.edges[0], column.edges[-1]
    heights = _density(column, low, high)
    highest, step = max(heights) or 1.0, _WIDTH / _COLUMNS
    points = [f"0,{_HEIGHT}"]
    for index, height in enumerate(heights):
        y = _HEIGHT - (_HEIGHT - 3) * height / highest
        points += [f"{index * step:.1f},{y:.1f}", f"{(index + 1) * step:.1f},{y:.1f}"]
    shape = Markup('<polygon points="{}"/>').format(" ".join([*points, f"{_WIDTH},{_HEIGHT}"]))
    return _svg(shape + (Markup("") if value is None else _marker(value, low, high)))


def _density(column: ColumnReference, low: float, high: float) -> list[float]:
    """Return the reference's mass in equally wide columns between `low` and `high`."""
    heights = [0.0] * _COLUMNS
    width = (high - low) / _COLUMNS
    bounds = [low, *column.edges, high]
    for bin_, mass in enumerate(column.bins):
        if bin_ in (0, len(column.edges)) and mass < 1.5 * column.n / len(column.bins):
            continue  # a tail of unknown length, which would look like a peak at the edge
        begin, end = bounds[bin_], bounds[bin_ + 1]
        if width <= 0:
            heights[_COLUMNS // 2] += mass
            continue
        first = min(_COLUMNS - 1, int((begin - low) / width))
        last = min(_COLUMNS - 1, int((end - low) / width))
        for index in range(first, last + 1):
            overlap = min(end, low + (index + 1) * width) - max(begin, low + index * width)
            heights[index] += mass * (max(0.0, overlap) / (end - begin) if last > first else 1.0)
    return heights


def _marker(value: float, low: float, high: float) -> Markup:
    if value < low or value > high:
        left = value < low
        tip, back = (1, 9) if left else (_WIDTH - 1, _WIDTH - 9)
        middle = _HEIGHT / 2
        return Markup('<polygon class="here" points="{},{} {},{} {},{}"/>').format(
            tip, middle, back, middle - 6, back, middle + 6
        )
    x = _WIDTH * ((value - low) / (high - low) if high > low else 0.5)
    return Markup('<line class="here" x1="{0:.1f}" x2="{0:.1f}" y1="0" y2="{1}"/>').format(x, _HEIGHT)


def _svg(inside: Markup) -> Markup:
    return Markup(
        '<svg class="reference" viewBox="-2 0 {} {}" width="{}" height="{}" aria-hidden="true" focusable="false">'
        "{}</svg>"
    ).format(_WIDTH + 4, _HEIGHT, _WIDTH + 4, _HEIGHT, inside)
