"""Drawings of acyclic graphs without a script: from left to right in columns, or from top to bottom."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

_WIDE, _TALL, _GAP, _PASSING, _HEAD = 214, 48, 14, 20, 26
_ROOM, _NEAREST, _FARTHEST = 1158, 50, 104  # the available width, and the gap between two columns
_NARROW, _RAIL, _STEP = 344, 60, 62


@dataclass(frozen=True, slots=True)
class Box:
    """A node. `note` is a line below its name, `title` all that is known; `href` leads to its page."""

    id: str
    name: str
    column: int
    note: str = ""
    title: str = ""
    down_note: str = ""  # the note where the graph is drawn from top to bottom
    look: str = ""  # CSS classes
    href: str | None = None
    current: bool = False  # whether it is what the page shows


@dataclass(frozen=True, slots=True)
class Arrow:
    """An edge between two boxes, by their ids. `label` is written on it if it passes a column."""

    start: str
    end: str
    title: str = ""
    label: str = ""
    look: str = ""  # CSS classes


@dataclass(frozen=True, slots=True)
class _Place:
    """Position of a box or of a passing edge: its left edge and the middle of its height."""

    x: float
    y: float


# From left to right: an edge has a place in each column that it passes


def across(boxes: Sequence[Box], arrows: Sequence[Arrow], heads: Sequence[str] = ()) -> Markup:
    """Draw a graph from left to right, with `heads` above its columns."""
    if not boxes:
        return Markup("")
    count = 1 + max(box.column for box in boxes)
    between = max(_NEAREST, min(_FARTHEST, (_ROOM - count * _WIDE) / max(1, count - 1)))
    step, top = _WIDE + between, _HEAD if heads else 0
    column_of = {box.id: box.column for box in boxes}
    paths = {arrow: _stations(arrow, column_of) for arrow in arrows}
    columns = _ordered(boxes, paths, count)
    heights = [
        sum(_TALL if "|" not in each else _PASSING for each in column) + _GAP * (len(column) - 1) for column in columns
    ]
    height = max(heights)
    places: dict[str, _Place] = {}
    for number, column in enumerate(columns):
        y = top + (height - heights[number]) / 2
        for each in column:
            tall = _PASSING if "|" in each else _TALL
            places[each] = _Place(number * step, y + tall / 2)
            y += tall + _GAP
    drawn = Markup("").join(_across_edge(arrow, stations, places) for arrow, stations in paths.items())
    for number, head in enumerate(heads):
        drawn += Markup('<text class="kind" x="{}" y="12">{}</text>').format(number * step, head)
    for box in boxes:
        place = places[box.id]
        drawn += _drawn_box(box, place.x, place.y - _TALL / 2, _WIDE, box.note)
    return _svg("across", count * step - between, top + height + 2, drawn)


def _stations(arrow: Arrow, column_of: Mapping[str, int]) -> tuple[str, ...]:
    """The start of an edge, a passing place in each column between, and its end."""
    between = range(column_of[arrow.start] + 1, column_of[arrow.end])
    return (arrow.start, *(f"{arrow.start}|{arrow.end}|{column}" for column in between), arrow.end)


def _ordered(boxes: Sequence[Box], paths: Mapping[Arrow, Sequence[str]], count: int) -> list[list[str]]:
    """Return each column from top to bottom, ordered by the boxes that lead to it, so that few edges cross."""
    columns: list[list[str]] = [[] for _ in range(count)]
    for box in boxes:
        columns[box.column].append(box.id)
    before: dict[str, list[str]] = {}
    for stations in paths.values():
        for left, right in pairwise(stations):
            before.setdefault(right, []).append(left)
        for place in stations[1:-1]:
            column = columns[int(place.rpartition("|")[2])]
            if place not in column:
                column.append(place)
    for number in range(1, count):
        above = {each: rank / max(1, len(columns[number - 1]) - 1) for rank, each in enumerate(columns[number - 1])}
        ranks = {
            each: [above[one] for one in before.get(each, ()) if one in above] or [0.5] for each in columns[number]
        }
        columns[number].sort(key=lambda each: (sum(ranks[each]) / len(ranks[each]), "|" in each))
    return columns


def _across_edge(arrow: Arrow, stations: Sequence[str], places: Mapping[str, _Place]) -> Markup:
    x, y = places[stations[0]].x + _WIDE, places[stations[0]].y
    path = [f"M{x:g} {y:g}"]
    for each in stations[1:]:
        to = places[each]
        end = to.x - (7 if each == stations[-1] else 0)
        half = (end - x) / 2
        path.append(f"C{x + half:g} {y:g} {end - half:g} {to.y:g} {end:g} {to.y:g}")
        x, y = end, to.y
        if each != stations[-1]:
            x = to.x + _WIDE
            path.append(f"H{x:g}")
    tip = places[stations[-1]]
    drawn = _line(arrow, " ".join(path)) + _head(tip.x, tip.y, arrow)
    if len(stations) > 2 and arrow.label:
        middle = places[stations[1]]
        drawn += Markup('<text class="gives" x="{:g}" y="{:g}">{}</text>').format(
            middle.x + _WIDE / 2, middle.y - 4, arrow.label
        )
    return drawn


# From top to bottom: one column, with each edge an arc beside it


def down(boxes: Sequence[Box], arrows: Sequence[Arrow]) -> Markup:
    """Draw a graph from top to bottom, its boxes in this order."""
    if not boxes:
        return Markup("")
    y_of = {box.id: number * _STEP + _TALL / 2 for number, box in enumerate(boxes)}
    drawn = Markup("")
    for arrow in arrows:
        start, end = y_of[arrow.start] + 6, y_of[arrow.end] - 6
        bulge = _RAIL - 8 - 44 * min(1.0, (end - start) / (_STEP * 6)) ** 0.6
        path = f"M{_RAIL:g} {start:g}C{bulge - 14:g} {start:g} {bulge - 14:g} {end:g} {_RAIL - 7:g} {end:g}"
        drawn += _line(arrow, path) + _head(_RAIL, end, arrow)
    for box in boxes:
        drawn += _drawn_box(box, _RAIL, y_of[box.id] - _TALL / 2, _NARROW - _RAIL, box.down_note or box.note)
    return _svg("down", _NARROW, (len(boxes) - 1) * _STEP + _TALL + 2, drawn)


# Parts of both drawings


def _svg(name: str, width: float, height: float, inside: Markup) -> Markup:
    return Markup('<svg class="{}" viewBox="-1 -1 {:g} {:g}" width="{:g}" height="{:g}" role="group">{}</svg>').format(
        name, width + 2, height + 2, width + 2, height + 2, inside
    )


def _line(arrow: Arrow, path: str) -> Markup:
    return Markup('<path class="{}" d="{}"><title>{}</title></path>').format(
        f"edge {arrow.look}".rstrip(), path, arrow.title
    )


def _head(x: float, y: float, arrow: Arrow) -> Markup:
    return Markup('<path class="{}" d="M{:g} {:g}l-8 -4.5v9z"/>').format(f"head {arrow.look}".rstrip(), x, y)


def _drawn_box(box: Box, x: float, y: float, width: float, note: str) -> Markup:
    room = width - 26
    text = Markup('<title>{}</title><rect x="{:g}" y="{:g}" width="{:g}" height="{}" rx="7"/>').format(
        box.title, x, y, width, _TALL
    )
    for class_, line, said, letter in (("name", 20 if note else 29, box.name, 7.7), ("note", 37, note, 6.1)):
        if said:
            text += Markup('<text class="{}" x="{:g}" y="{:g}">{}</text>').format(
                class_, x + 13, y + line, fitted(said, room / letter)
            )
    look = f"node {box.look}".rstrip()
    if box.href is None or box.current:
        current = Markup(' aria-current="page"') if box.current else ""
        return Markup('<g class="{}"{}>{}</g>').format(look, current, text)
    return Markup('<a class="{}" href="{}">{}</a>').format(look, box.href, text)


def fitted(text: str, room: float) -> str:
    """Return the text, or its beginning with an ellipsis, within a width counted in narrow letters."""
    used = 0.0
    for index, letter in enumerate(text):
        used += (
            1.9 if unicodedata.east_asian_width(letter) in "WF" else 1.25 if letter.isupper() or letter in "mwMW" else 1
        )
        if used > room and index < len(text):
            return f"{text[: max(1, index - 1)].rstrip()}…"
    return text
