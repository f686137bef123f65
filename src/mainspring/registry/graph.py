"""Validation of model graphs: by names in `check_graph`, by types and shapes in `check_shapes`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from mainspring.core.errors import Corrupt, Invalid
from mainspring.registry.model import Graph, Node, TensorSpec

COMBINE = ("mean", "weighted", "vote")
VALUE = "value"  # output name of a combining node
MOST_NODES = 64
_NAME = re.compile(r"[A-Za-z_][\w-]*", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FLOATS = ("FP32", "FP64")

Specs = Mapping[str, TensorSpec]


def check_graph(graph: Graph, names: tuple[Sequence[str], Sequence[str]], owner: str = "") -> None:
    """Raise if a node is malformed, an input has no source, or the graph has a cycle.

    Args:
        names: Names of the graph's inputs, and of its outputs.

    Raises:
        Corrupt: The graph is inconsistent; the message names the node.
    """
    inputs, outputs = names
    nodes = {node.name: node for node in graph.nodes}
    if not 0 < len(graph.nodes) <= MOST_NODES or len(nodes) != len(graph.nodes):
        raise Corrupt(
            f"The graph{owner} has {len(graph.nodes)} nodes; it can have at most {MOST_NODES}, with unique names."
        )
    for node in graph.nodes:
        _check_node(node, set(inputs), set(nodes), owner)
    if sorted(graph.outputs) != sorted(outputs) or not outputs:
        raise Corrupt(f"The graph{owner} returns {sorted(graph.outputs)}, but its manifest declares {sorted(outputs)}.")
    for output, source in graph.outputs.items():
        node_name, _, value = source.partition(".")
        if node_name not in nodes or not value:
            raise Corrupt(f"The output {output!r} of the graph{owner} is {source!r}, which no node returns.")
    used = {source for node in graph.nodes for source in node.inputs.values()}
    idle = [name for name in inputs if name not in used]
    if idle:
        raise Corrupt(f"The inputs {idle} of the graph{owner} are not used.")
    in_order(graph, owner)


def _check_node(node: Node, inputs: set[str], nodes: set[str], owner: str) -> None:
    what = f"The node {node.name[:80]!r} of the graph{owner}"
    if not _NAME.fullmatch(node.name) or node.name in inputs:
        raise Corrupt(f"{what} needs a name of letters and digits that no input has.")
    if bool(node.bundle) == bool(node.combine):
        raise Corrupt(f"{what} must be either a bundle or a combination.")
    if node.bundle and not _DIGEST.fullmatch(node.bundle):
        raise Corrupt(f"{what} refers to the bundle {node.bundle[:80]!r}, which is not a digest.")
    if node.combine and node.combine not in COMBINE:
        raise Corrupt(f"{what} combines by {node.combine[:40]!r}; use one of {', '.join(COMBINE)}.")
    weighs = node.combine == "weighted"
    if (weighs and len(node.weights) != len(node.inputs)) or (not weighs and node.weights):
        raise Corrupt(f"{what} has {len(node.weights)} weights for {len(node.inputs)} inputs.")
    if weighs and not (all(weight >= 0 for weight in node.weights) and 0 < sum(node.weights) < float("inf")):
        raise Corrupt(f"{what} has the weights {list(node.weights)}; they must be at least 0, and not all 0.")
    if not node.inputs:
        raise Corrupt(f"{what} has no inputs.")
    for name, source in node.inputs.items():
        if source not in inputs and source.partition(".")[0] not in nodes:
            raise Corrupt(f"{what} takes {name!r} from {source[:80]!r}, which is neither an input nor a node's output.")


def in_order(graph: Graph, owner: str = "") -> list[Node]:
    """Return the nodes in topological order.

    Raises:
        Corrupt: The graph has a cycle.
    """
    nodes = {node.name: node for node in graph.nodes}
    needs = {
        node.name: [source.partition(".")[0] for source in node.inputs.values() if source.partition(".")[0] in nodes]
        for node in graph.nodes
    }
    try:
        return [nodes[name] for name in TopologicalSorter(needs).static_order()]
    except CycleError as error:
        raise Corrupt(f"The graph{owner} has a cycle: {' -> '.join(error.args[1])}.") from None


def check_shapes(graph: Graph, inputs: Specs, member: Callable[[str], tuple[Specs, Specs]]) -> dict[str, TensorSpec]:
    """Return the graph's output specifications, if the tensors into every node match its inputs.

    Args:
        inputs: The graph's inputs, by name.
        member: Returns the inputs and outputs of a bundle, by its digest.

    Raises:
        Invalid: A name, a type or a shape does not fit; the message names node and input.
    """
    known: dict[str, TensorSpec] = dict(inputs)
    for node in in_order(graph):
        given = {name: _source(known, node, name, source) for name, source in node.inputs.items()}
        if node.combine:
            known[f"{node.name}.{VALUE}"] = _combined(node, list(given.values()))
            continue
        takes, gives = member(node.bundle)
        if sorted(takes) != sorted(given):
            raise Invalid(f"The node {node.name!r} takes {sorted(takes)} but receives {sorted(given)}.")
        for name, spec in takes.items():
            if not _fits(given[name], spec):
                raise Invalid(f"The node {node.name!r} takes {_shown(spec)} but receives {_shown(given[name])}.")
        known.update({f"{node.name}.{name}": spec for name, spec in gives.items()})
    for output, source in graph.outputs.items():
        if source not in known:
            raise Invalid(f"The output {output!r} is {source!r}; the nodes return {sorted(set(known) - set(inputs))}.")
    return {
        output: TensorSpec(output, known[source].datatype, known[source].shape)
        for output, source in graph.outputs.items()
    }


def _source(known: Specs, node: Node, name: str, source: str) -> TensorSpec:
    if source not in known:
        raise Invalid(f"The node {node.name!r} takes {name!r} from {source!r}; available are {sorted(known)}.")
    return known[source]


def _combined(node: Node, given: Sequence[TensorSpec]) -> TensorSpec:
    first = given[0]
    odd = next((spec for spec in given if spec.shape != first.shape or spec.datatype != first.datatype), None)
    if odd is not None:
        raise Invalid(f"The node {node.name!r} combines {_shown(first)} with {_shown(odd)}.")
    if node.combine != "vote" and first.datatype not in _FLOATS:
        raise Invalid(f"The node {node.name!r} combines {_shown(first)} by {node.combine}, which needs floats.")
    return TensorSpec(VALUE, first.datatype, first.shape)


def _fits(given: TensorSpec, taken: TensorSpec) -> bool:
    return (
        given.datatype == taken.datatype
        and len(given.shape) == len(taken.shape)
        and all(want in (-1, have) for want, have in zip(taken.shape, given.shape, strict=True))
    )


def _shown(spec: TensorSpec) -> str:
    return f"{spec.name!r} {spec.datatype}{list(spec.shape)}"
