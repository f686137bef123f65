"""The graph of a pipeline: nodes, their inputs, order and conditions. Data that JSON can represent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mainspring.core.errors import Corrupt, Invalid, NotFound
from mainspring.core.nearest import meant
from mainspring.jobs.pipelines.values import Value, outputs, read, shown, written
from mainspring.jobs.plain import Plain

Kind = Literal["step", "approval"]
TRIGGERS = ("landed", "drifted", "incident", "webhook")
MOST_ITEMS = 1_000  # default bound of a mapped step
RESOURCES = ("cpu", "memory", "gpu")
STEP, APPROVAL = "pipeline-step", "pipeline-approval"  # names under which parts of runs are jobs
JOB = "job:"  # begins the `function` of a node that runs one of the built-in jobs, such as "job:train"


@dataclass(frozen=True, slots=True)
class Trigger:
    """An event that starts a pipeline: new data in a source, drift or an incident of an endpoint, or a webhook's
    delivery.
    """

    kind: str  # of TRIGGERS
    name: str  # of the source, the endpoint or the webhook; of an incident also `ENDPOINT/CHANNEL`


@dataclass(frozen=True, slots=True)
class Node:
    """A step of a pipeline, or a wait for approval.

    A node runs when all `needs` are done. If one of them failed or was skipped, or a condition is false, the node is
    skipped.

    Args:
        name: Unique in its graph.
        function: `module:name` of the step's function, or `job:NAME` of a built-in job; empty for an approval.
        inputs: The function's arguments by name.
        over: For a mapped step the list it runs over, one item at a time; `Item` in `inputs` is the element.
        most: Largest number of items of a mapped step.
        when: Conditions, all of which must be true.
        after: Nodes that must be done before, without a value of theirs being used.
        retries: Further attempts after a failed one.
        timeout_us: Longest time of an attempt (µs), which is then killed.
        cache: Whether a result may be reused where function, inputs and data are the same.
        engine: Where it runs: "" is a process of the worker's machine; else "ray", "spark" or "kubernetes".
        group: Steps of one group share its limit.
        group_limit: How many steps of the group may run at once, in all runs of all pipelines.
        by: For an approval, how many people must approve.
        cpu: Processors that it needs, where the engine gives them out.
        memory: Memory (bytes) that it needs, likewise.
        gpu: GPUs that it needs, likewise.
    """

    name: str
    kind: Kind = "step"
    function: str = ""
    inputs: tuple[tuple[str, Value], ...] = ()
    over: Value | None = None
    most: int = MOST_ITEMS
    when: tuple[Value, ...] = ()
    after: tuple[str, ...] = ()
    retries: int = 0
    timeout_us: int | None = None
    cache: bool = False
    engine: str = ""
    group: str = ""
    group_limit: int | None = None
    by: int = 0
    cpu: float | None = None
    memory: int | None = None
    gpu: int = 0

    @property
    def resources(self) -> dict[str, float]:
        """The step's needs of `cpu`, `memory` (bytes) and `gpu`."""
        return {name: value for name in RESOURCES if (value := getattr(self, name))}

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the nodes that must be done before this one, without duplicates."""
        values = [value for _, value in self.inputs] + list(self.when)
        if self.over is not None:
            values.append(self.over)
        return tuple(dict.fromkeys([*(name for value in values for name in outputs(value)), *self.after]))


@dataclass(frozen=True, slots=True)
class Graph:
    """A pipeline as data. Nodes are in an order in which they can run.

    Args:
        parameters: Defaults by name.
        result: The value of a whole run.
        limit: How many runs may be under way at once; `None` for any number.
        schedule: When it runs: a duration or a cron expression; empty for no schedule.
        triggers: Events that start it.
        priority: Priority of its runs and their steps; see `NewJob`.
    """

    name: str
    nodes: tuple[Node, ...]
    parameters: tuple[tuple[str, Plain], ...] = ()
    result: Value | None = None
    limit: int | None = 1
    schedule: str = ""
    triggers: tuple[Trigger, ...] = ()
    description: str = ""
    priority: int = 0

    def __post_init__(self) -> None:
        known: set[str] = set()
        for node in self.nodes:
            if node.name in known:
                raise Invalid(f"Pipeline {self.name!r} has two steps {node.name!r}.", fix="give one another name.")
            missing = [need for need in node.needs if need not in known]
            if missing:
                raise _unordered(self, node, missing[0])
            known.add(node.name)

    def node(self, name: str) -> Node:
        """Return a node.

        Raises:
            NotFound: There is none of this name.
        """
        found = {node.name: node for node in self.nodes}
        if name not in found:
            raise NotFound(f"Pipeline {self.name!r} has no step {name!r}.", fix=meant(name, found))
        return found[name]

    def edges(self) -> Iterator[tuple[str, str]]:
        """Yield (from, to) of each edge."""
        for node in self.nodes:
            yield from ((need, node.name) for need in node.needs)

    def following(self, names: Iterable[str]) -> frozenset[str]:
        """Return the nodes that need one of these, directly or not."""
        found = set(names)
        begun = frozenset(found)
        for node in self.nodes:
            if found.intersection(node.needs):
                found.add(node.name)
        return frozenset(found - begun)

    def bound(self, given: Mapping[str, Plain]) -> dict[str, Plain]:
        """Return the parameters of a run: the given ones, else the defaults.

        Raises:
            Invalid: The pipeline has no such parameter.
        """
        defaults = dict(self.parameters)
        for name in given:
            if name not in defaults:
                raise Invalid(f"Pipeline {self.name!r} has no parameter {name!r}.", fix=meant(name, defaults))
        return {**defaults, **given}

    def document(self) -> dict[str, Plain]:
        """Return the graph as a JSON object. Fields with their defaults are left out of nodes."""
        return {
            "name": self.name,
            "description": self.description,
            "parameters": dict(self.parameters),
            "nodes": [_node_document(node) for node in self.nodes],
            "result": None if self.result is None else written(self.result),
            "limit": self.limit,
            "priority": self.priority,
            "schedule": self.schedule,
            "triggers": [{"kind": each.kind, "name": each.name} for each in self.triggers],
        }

    def mermaid(self) -> str:
        """Return the graph as a Mermaid flowchart."""
        number = {node.name: f"n{at}" for at, node in enumerate(self.nodes)}
        lines = ["flowchart TD"]
        for node in self.nodes:
            text = node.name + (f"<br/>over {shown(node.over)}" if node.over is not None else "")
            text += "".join(f"<br/>if {shown(each)}" for each in node.when)
            text = text.replace('"', "#quot;").replace("'", "#39;")
            opened, closed = ('{{"', '"}}') if node.kind == "approval" else ('["', '"]')
            lines.append(f"  {number[node.name]}{opened}{text}{closed}")
        lines += [f"  {number[before]} --> {number[after]}" for before, after in self.edges()]
        return "\n".join(lines)


def graph_of(document: Mapping[str, Any]) -> Graph:
    """Return the graph of `Graph.document`.

    Raises:
        Invalid: Steps need each other in a cycle, or need one that is not there.
        Corrupt: The document is not a graph.
    """
    try:
        result = document["result"]
        nodes = tuple(node_of(each) for each in document["nodes"])
        return Graph(
            document["name"],
            _ordered(nodes),
            tuple(document["parameters"].items()),
            None if result is None else read(result),
            document["limit"],
            document["schedule"],
            tuple(Trigger(each["kind"], each["name"]) for each in document["triggers"]),
            document["description"],
            document.get("priority", 0),  # absent in a run from before there were priorities
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise Corrupt(f"The document is not a pipeline: {error!r}.", fix="declare the pipeline again.") from error


def _ordered(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """Return nodes so that each comes after those it needs; nodes of a cycle stay where they were, for the refusal."""
    there, placed, found = {node.name for node in nodes}, set[str](), list[Node]()
    rest, before = list(nodes), -1
    while rest and len(rest) != before:
        before, waiting = len(rest), list[Node]()
        for node in rest:  # at once, so that an order that is right already stays as it is
            if placed.issuperset(there.intersection(node.needs)):
                found.append(node)
                placed.add(node.name)
            else:
                waiting.append(node)
        rest = waiting
    return (*found, *rest)


def _unordered(graph: Graph, node: Node, need: str) -> Invalid:
    """Return the error for a node whose need does not come before it."""
    named = f"pipeline {graph.name!r}"
    by_name = {each.name: each for each in graph.nodes}
    path, at = [node.name], need
    while at not in path:
        if at not in by_name:
            return Invalid(f"Step {path[-1]!r} of {named} needs {at!r}, which is not a step.", fix="correct the name.")
        path.append(at)
        later = [each for each in by_name[at].needs if each in path] or list(by_name[at].needs)
        if not later:
            what = f"Step {node.name!r} of {named} comes before {need!r}, which it needs."
            return Invalid(what, fix="put steps behind those that they need.")
        at = later[0]
    cycle = " needs ".join([*path[path.index(at) :], at])
    return Invalid(f"P{named[1:]} has a cycle: {cycle}.", fix="remove one of these dependencies.")


_PLAIN = (
    "function",
    "most",
    "retries",
    "timeout_us",
    "cache",
    "engine",
    "group",
    "group_limit",
    "by",
    "cpu",
    "memory",
    "gpu",
)


def _node_document(node: Node) -> dict[str, Plain]:
    empty = Node(node.name)
    found: dict[str, Plain] = {"name": node.name, "kind": node.kind}
    found |= {name: getattr(node, name) for name in _PLAIN if getattr(node, name) != getattr(empty, name)}
    if node.inputs:
        found["inputs"] = {name: written(value) for name, value in node.inputs}
    if node.over is not None:
        found["over"] = written(node.over)
    if node.when:
        found["when"] = [written(value) for value in node.when]
    if node.after:
        found["after"] = list(node.after)
    return found


def node_of(document: Mapping[str, Any]) -> Node:
    """Return the node of one of `Graph.document`'s nodes."""
    over = document.get("over")
    return Node(
        name=document["name"],
        kind=document["kind"],
        inputs=tuple((name, read(value)) for name, value in document.get("inputs", {}).items()),
        over=None if over is None else read(over),
        when=tuple(read(value) for value in document.get("when", ())),
        after=tuple(document.get("after", ())),
        **{name: document[name] for name in _PLAIN if name in document},
    )
