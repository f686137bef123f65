"""Drawing of a pipeline's graph, alone or with the state of a run: a sign and a word on each step, not colour alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mainspring.console import formats
from mainspring.console.layered import Arrow, Box, across, down
from mainspring.jobs.model import Status
from mainspring.jobs.pipelines.graph import Graph, Node
from mainspring.jobs.pipelines.values import shown
from mainspring.operations.pipelines.control import RunState, StepState

MOST = 150  # steps of a graph that is drawn
_BROAD = 5  # columns that fit a page
SIGNS: Mapping[Status, str] = {
    Status.WAITING: "·",
    Status.QUEUED: "○",
    Status.RUNNING: "●",
    Status.DONE: "✓",
    Status.FAILED: "✗",
    Status.CANCELLED: "⊘",
    Status.SKIPPED: "–",
}


@dataclass(frozen=True, slots=True)
class GraphPicture:
    """A graph drawn in both directions; `broad` if it is wider than a page from left to right."""

    across: Markup
    down: Markup
    broad: bool


def took(step: StepState, now: int) -> int | None:
    """Return the duration (µs) of a step's newest attempt, until now if it is under way; `None` if it has not begun."""
    if step.started_at is None or step.status is Status.QUEUED:
        return None
    return max(0, (now if step.ended_at is None else step.ended_at) - step.started_at)


def is_asked(step: StepState) -> bool:
    """Return whether a step is an approval that is asked for now."""
    return step.kind == "approval" and step.status is Status.WAITING and step.started_at is not None


def word_of(step: StepState) -> str:
    """Return a step's status; a mapped step runs while its items do."""
    items_run = step.kind == "step" and step.status is Status.WAITING and step.started_at is not None
    return str(Status.RUNNING if items_run else step.status)


def declared(graph: Graph) -> GraphPicture | None:
    """Return the graph as it is declared; `None` if it has too many steps to be drawn."""
    return _drawn(graph, lambda node: (_about(node), node.kind, None))


def of_run(run: RunState, now: int, href: Callable[[str], str]) -> GraphPicture | None:
    """Return the graph with the state of a run's steps, each linked by `href`; `None` if it has too many steps."""
    states = {step.name: step for step in run.steps}
    items: dict[str, list[StepState]] = {}
    for step in run.steps:
        if "[" in step.name:
            items.setdefault(step.name.partition("[")[0], []).append(step)

    def look(node: Node) -> tuple[str, str, str | None]:
        step = states[node.name]
        kind = "asked" if is_asked(step) else word_of(step)
        return _state(step, items.get(node.name, ()), now), f"{node.kind} is-{kind}", href(node.name)

    return _drawn(run.graph, look)


def _drawn(graph: Graph, look: Callable[[Node], tuple[str, str, str | None]]) -> GraphPicture | None:
    if len(graph.nodes) > MOST:
        return None
    column: dict[str, int] = {}
    boxes = []
    for node in graph.nodes:
        column[node.name] = max((column[need] + 1 for need in node.needs), default=0)
        note, classes, href = look(node)
        about = _about(node)
        title = f"{node.name}: {note}" + (f"; {about}" if about and about != note else "")
        name = f"◇ {node.name}" if node.kind == "approval" else node.name
        boxes.append(Box(node.name, name, column[node.name], note, title, look=classes, href=href))
    arrows = [Arrow(start, end, f"{end} needs {start}") for start, end in graph.edges()]
    return GraphPicture(across(boxes, arrows), down(boxes, arrows), max(column.values(), default=0) >= _BROAD)


def _about(node: Node) -> str:
    told = [f"approval by {node.by}"] if node.kind == "approval" else []
    told += [] if node.over is None else [f"for each of {shown(node.over)}"]
    told += [f"if {shown(each)}" for each in node.when]
    told += [f"on {node.engine}"] if node.engine else []
    return "; ".join(told) or "step"


def _state(step: StepState, items: Sequence[StepState], now: int) -> str:
    if is_asked(step):
        return "◇ asks for approval"
    word = word_of(step)
    told = f"{SIGNS[Status(word)]} {word}"
    if items:
        counts = Counter(item.status for item in items)
        which = Status.FAILED if counts[Status.FAILED] else Status.DONE
        told = f"{SIGNS[Status(word)]} {counts[which]:,} of {len(items):,} {which}"
    if step.cache == "hit":
        return f"{told}, from the cache"
    spent = took(step, now) if word in (Status.DONE, Status.RUNNING, Status.FAILED) else None
    return told if spent is None else f"{told}, {formats.duration(spent)}"
