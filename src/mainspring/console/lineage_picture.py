"""Drawing of a lineage graph without a script: from left to right if there is room, else from top to bottom."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from mainspring.operations.data.lineage import ENDPOINT, MODEL, REQUEST, SOURCE, VIEW, Edge, Lineage, Node

WORDS = {SOURCE: "Source", VIEW: "Feature view", REQUEST: "On demand", MODEL: "Model", ENDPOINT: "Endpoint"}
_KINDS = (SOURCE, VIEW, REQUEST, MODEL, ENDPOINT)
_MOST = 9  # nodes shown of one kind; the others are counted
_WIDE, _TALL, _GAP, _PASSING, _HEAD = 214, 48, 14, 20, 26
_ROOM, _NEAREST, _FARTHEST = 1158, 50, 104  # the available width, and the gap between two columns
_NARROW, _RAIL, _STEP = 344, 60, 62

Href = Callable[[Node], str | None]


@dataclass(frozen=True, slots=True)
class Picture:
    """The graph drawn in both directions, and the number of omitted nodes of each kind."""

    across: Markup
    down: Markup
    left_out: Mapping[str, int]


def picture(graph: Lineage, here: str, href: Href) -> Picture:
    """Draw a graph.

    Args:
        here: Id of the node that the page shows; it is marked.
        href: Returns the address of a node's page, or `None`.
    """
    shown, left_out = _shown(graph, here)
    return Picture(_draw_across(shown, here, href), _draw_down(shown, here, href), left_out)


def _shown(graph: Lineage, here: str) -> tuple[Lineage, dict[str, int]]:
    kept: list[Node] = []
    left_out: dict[str, int] = {}
    for kind in _KINDS:
        nodes = sorted((node for node in graph.nodes if node.kind == kind), key=lambda node: node.id != here)
        kept += sorted(nodes[:_MOST], key=lambda node: node.name)
        if len(nodes) > _MOST:
            left_out[WORDS[kind]] = len(nodes) - _MOST
    ids = {node.id for node in kept}
    edges = tuple(edge for edge in graph.edges if {edge.start, edge.end} <= ids)
    return Lineage(tuple(kept), edges), left_out


# From left to right: one column per kind; an edge has a place in each column that it passes


@dataclass(frozen=True, slots=True)
class _Place:
    """Position of a node or of a passing edge: its left edge and the middle of its height."""

    x: float
    y: float


def _draw_across(graph: Lineage, here: str, href: Href) -> Markup:
    kinds = [kind for kind in _KINDS if any(node.kind == kind for node in graph.nodes)]
    if not kinds:
        return Markup("")
    between = max(_NEAREST, min(_FARTHEST, (_ROOM - len(kinds) * _WIDE) / max(1, len(kinds) - 1)))
    step = _WIDE + between
    column_of = {node.id: kinds.index(node.kind) for node in graph.nodes}
    paths = {edge: _stations(edge, column_of) for edge in graph.edges}
    columns = _ordered(graph, paths, len(kinds), column_of)
    heights = [
        sum(_TALL if "|" not in each else _PASSING for each in column) + _GAP * (len(column) - 1) for column in columns
    ]
    height = max(heights)
    places: dict[str, _Place] = {}
    for number, column in enumerate(columns):
        y = _HEAD + (height - heights[number]) / 2
        for each in column:
            tall = _PASSING if "|" in each else _TALL
            places[each] = _Place(number * step, y + tall / 2)
            y += tall + _GAP
    drawn = Markup("").join(_across_edge(edge, stations, places, here) for edge, stations in paths.items())
    for number, kind in enumerate(kinds):
        drawn += Markup('<text class="kind" x="{}" y="12">{}</text>').format(number * step, WORDS[kind])
    for node in graph.nodes:
        place = places[node.id]
        drawn += _box(node, place.x, place.y - _TALL / 2, _WIDE, here, href, node.note)
    width = len(kinds) * step - between
    return _svg("across", width, _HEAD + height + 2, drawn)


def _stations(edge: Edge, column_of: Mapping[str, int]) -> tuple[str, ...]:
    """The start node of an edge, a passing place in each column between, and the end node."""
    between = range(column_of[edge.start] + 1, column_of[edge.end])
    return (edge.start, *(f"{edge.start}|{edge.end}|{column}" for column in between), edge.end)


def _ordered(
    graph: Lineage, paths: Mapping[Edge, Sequence[str]], count: int, column_of: Mapping[str, int]
) -> list[list[str]]:
    """Return each column from top to bottom, ordered by the nodes that lead to it, so that few edges cross."""
    columns: list[list[str]] = [[] for _ in range(count)]
    for node in graph.nodes:
        columns[column_of[node.id]].append(node.id)
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


def _across_edge(edge: Edge, stations: Sequence[str], places: Mapping[str, _Place], here: str) -> Markup:
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
    drawn = _line(edge, " ".join(path), here) + _arrow(tip.x, tip.y, edge, here)
    if len(stations) > 2:
        middle = places[stations[1]]
        drawn += Markup('<text class="gives" x="{:g}" y="{:g}">{}</text>').format(
            middle.x + _WIDE / 2, middle.y - 4, edge.gives
        )
    return drawn


# From top to bottom: one column, with each edge an arc beside it


def _draw_down(graph: Lineage, here: str, href: Href) -> Markup:
    if not graph.nodes:
        return Markup("")
    y_of = {node.id: number * _STEP + _TALL / 2 for number, node in enumerate(graph.nodes)}
    drawn = Markup("")
    for edge in graph.edges:
        start, end = y_of[edge.start] + 6, y_of[edge.end] - 6
        bulge = _RAIL - 8 - 44 * min(1.0, (end - start) / (_STEP * 6)) ** 0.6
        path = f"M{_RAIL:g} {start:g}C{bulge - 14:g} {start:g} {bulge - 14:g} {end:g} {_RAIL - 7:g} {end:g}"
        drawn += _line(edge, path, here) + _arrow(_RAIL, end, edge, here)
    for node in graph.nodes:
        note = f"{WORDS[node.kind]}{' · ' if node.note else ''}{node.note}"
        drawn += _box(node, _RAIL, y_of[node.id] - _TALL / 2, _NARROW - _RAIL, here, href, note)
    return _svg("down", _NARROW, (len(graph.nodes) - 1) * _STEP + _TALL + 2, drawn)


# What both are made of


def _svg(name: str, width: float, height: float, inside: Markup) -> Markup:
    return Markup('<svg class="{}" viewBox="-1 -1 {:g} {:g}" width="{:g}" height="{:g}" role="group">{}</svg>').format(
        name, width + 2, height + 2, width + 2, height + 2, inside
    )


def _line(edge: Edge, path: str, here: str) -> Markup:
    return Markup('<path class="{}" d="{}"><title>{} from {} to {}</title></path>').format(
        _tone("edge", edge, here), path, edge.gives, _name(edge.start), _name(edge.end)
    )


def _arrow(x: float, y: float, edge: Edge, here: str) -> Markup:
    return Markup('<path class="{}" d="M{:g} {:g}l-8 -4.5v9z"/>').format(_tone("head", edge, here), x, y)


def _tone(word: str, edge: Edge, here: str) -> str:
    aside = " aside" if edge.gives in ("labels", "observations") else ""
    return f"{word}{aside}{' near' if here in (edge.start, edge.end) else ''}"


def _name(node_id: str) -> str:
    return node_id.partition(":")[2]


def _box(node: Node, x: float, y: float, width: float, here: str, href: Href, note: str) -> Markup:
    room = width - 26
    text = Markup('<title>{}</title><rect x="{:g}" y="{:g}" width="{:g}" height="{}" rx="7"/>').format(
        f"{WORDS[node.kind]} {node.name}{': ' if node.note else ''}{node.note}", x, y, width, _TALL
    )
    for class_, line, said, letter in (("name", 20 if note else 29, node.name, 7.7), ("note", 37, note, 6.1)):
        if said:
            text += Markup('<text class="{}" x="{:g}" y="{:g}">{}</text>').format(
                class_, x + 13, y + line, fitted(said, room / letter)
            )
    kinds = f"node {node.kind}{' live' if node.live else ''}{' here' if node.id == here else ''}"
    address = None if node.id == here else href(node)
    if address is None:
        current = Markup(' aria-current="page"') if node.id == here else ""
        return Markup('<g class="{}"{}>{}</g>').format(kinds, current, text)
    return Markup('<a class="{}" href="{}">{}</a>').format(kinds, address, text)


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
