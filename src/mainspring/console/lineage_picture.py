"""Drawing of a lineage graph without a script: from left to right if there is room, else from top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from markupsafe import Markup

from mainspring.console.layered import Arrow, Box, across, down
from mainspring.operations.data.lineage import ENDPOINT, MODEL, REQUEST, SOURCE, VIEW, Edge, Lineage, Node

WORDS = {SOURCE: "Source", VIEW: "Feature view", REQUEST: "On demand", MODEL: "Model", ENDPOINT: "Endpoint"}
_KINDS = (SOURCE, VIEW, REQUEST, MODEL, ENDPOINT)
_MOST = 9  # nodes shown of one kind; the others are counted

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
    kinds = [kind for kind in _KINDS if any(node.kind == kind for node in shown.nodes)]
    boxes = [_box(node, kinds.index(node.kind), here, href) for node in shown.nodes]
    arrows = [_arrow(edge, here) for edge in shown.edges]
    return Picture(across(boxes, arrows, [WORDS[kind] for kind in kinds]), down(boxes, arrows), left_out)


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


def _box(node: Node, column: int, here: str, href: Href) -> Box:
    return Box(
        id=node.id,
        name=node.name,
        column=column,
        note=node.note,
        title=f"{WORDS[node.kind]} {node.name}{': ' if node.note else ''}{node.note}",
        down_note=f"{WORDS[node.kind]}{' · ' if node.note else ''}{node.note}",
        look=f"{node.kind}{' live' if node.live else ''}{' here' if node.id == here else ''}",
        href=None if node.id == here else href(node),
        current=node.id == here,
    )


def _arrow(edge: Edge, here: str) -> Arrow:
    aside = "aside" if edge.gives in ("labels", "observations", "consent") else ""
    near = "near" if here in (edge.start, edge.end) else ""
    title = f"{edge.gives} from {_name(edge.start)} to {_name(edge.end)}"
    return Arrow(edge.start, edge.end, title, edge.gives, f"{aside} {near}".strip())


def _name(node_id: str) -> str:
    return node_id.partition(":")[2]
