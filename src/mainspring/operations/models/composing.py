"""Registration of a graph of versions as a version: each node names a version, which is pinned by its digest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.json_content import decoded
from mainspring.operations.models.adding import TENSORS, Added, Made, check_name, read_golden, register
from mainspring.operations.models.curating import expect_kept
from mainspring.project import Project
from mainspring.registry.bundles import FEATURES, GOLDEN
from mainspring.registry.graph import check_graph, check_shapes
from mainspring.registry.model import Bundle, Graph, Input, Node, TensorSpec
from mainspring.serving.plane.executor import by_name, column_specs


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One node as written in the file: `model` is `name@version` or `name@alias`."""

    name: str
    inputs: dict[str, str]
    model: str = ""
    combine: str = ""
    weights: tuple[float, ...] = ()


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A graph as written in the file. `outputs` maps each output of the graph to a `node.output`."""

    nodes: tuple[Step, ...]
    outputs: dict[str, str]


def read_plan(path: Path) -> Plan:
    """Return the graph in a JSON file.

    Raises:
        Invalid: It is not a valid graph; the message names the place.
    """
    try:
        return decoded(path.read_bytes(), Plan)
    except msgspec.DecodeError as error:
        raise Invalid(
            f"{path.name} does not contain a graph: {error}.", fix="docs/howto/serve-any-model.md shows an example."
        ) from error


def compose(project: Project, model: str, plan: Plan, *, golden: Path | None = None, alias: str | None = None) -> Added:
    """Register a graph of versions. Its inputs follow from the inputs of its nodes.

    If a node is a model of features, the graph is one too: it is requested by entity key like the node.

    Raises:
        NotFound: There is no such version.
        Invalid: Names, types or shapes do not match, or the nodes use different features.
        Corrupt: It has a cycle, or a node's bundle is damaged.
        Conflict: The project trains a model of this name.
    """
    check_name(project, model)
    members: dict[str, Bundle] = {}
    nodes = []
    for step in plan.nodes:
        digest = _digest(project, step, members)
        nodes.append(
            Node(name=step.name, inputs=step.inputs, bundle=digest, combine=step.combine, weights=step.weights)
        )
    graph = Graph(tuple(nodes), plan.outputs)
    known = {node.name for node in nodes}
    entries = [
        (source, name, members[node.bundle])
        for node in nodes
        if node.bundle
        for name, source in node.inputs.items()
        if source.partition(".")[0] not in known
    ]
    origin = {f"node.{step.name}": step.model or step.combine for step in plan.nodes}
    rows = None if golden is None else read_golden(golden)
    features = any(not bundle.manifest.tensors for _, _, bundle in entries)
    made = _of_columns(graph, entries, origin, rows) if features else _of_tensors(graph, entries, members, origin, rows)
    return register(project, model, made, alias)


def _digest(project: Project, step: Step, members: dict[str, Bundle]) -> str:
    if not step.model:
        return ""
    name, _, reference = step.model.partition("@")
    if not reference:
        raise Invalid(
            f"The node {step.name!r} refers to {step.model!r}.", fix=f"write {step.model}@champion or {step.model}@1."
        )
    version = project.versions.get(name, reference)
    expect_kept(project, version)
    digest = version.digest
    members[digest] = project.bundles.load(digest)
    return digest


def specs_of(bundle: Bundle) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
    """Return the inputs and outputs of a bundle's model, from its manifest."""
    manifest = bundle.manifest
    if manifest.tensors:
        return by_name(manifest.tensors), by_name(manifest.output_tensors)
    kind = "FP64" if manifest.flavour in ("lightgbm", "catboost") else str(manifest.extra.get("answers", "FP32"))
    return column_specs(manifest.inputs), {name: TensorSpec(name, kind, (-1,)) for name in manifest.outputs}


def _of_tensors(
    graph: Graph,
    entries: list[tuple[str, str, Bundle]],
    members: Mapping[str, Bundle],
    origin: Mapping[str, str],
    golden: Mapping[str, Any] | None,
) -> Made:
    inputs: dict[str, TensorSpec] = {}
    for source, name, bundle in entries:
        spec = specs_of(bundle)[0].get(name)
        if spec is not None:
            inputs.setdefault(source, TensorSpec(source, spec.datatype, spec.shape))
    check_graph(graph, (list(inputs), list(graph.outputs)))
    outputs = check_shapes(graph, inputs, lambda digest: specs_of(members[digest]))
    fields = {
        "task": TENSORS,
        "graph": graph,
        "tensors": tuple(inputs.values()),
        "output_tensors": tuple(outputs.values()),
        "outputs": tuple(outputs),
    }
    return Made("graph", {}, fields, origin, golden)


def _of_columns(
    graph: Graph,
    entries: list[tuple[str, str, Bundle]],
    origin: Mapping[str, str],
    golden: Mapping[str, Any] | None,
) -> Made:
    """Return a graph of features: those of its nodes, which must have the same definitions."""
    feature_models = [bundle for _, _, bundle in entries if not bundle.manifest.tensors]
    first = feature_models[0]
    odd = next(
        (candidate for candidate in feature_models if candidate.files.get(FEATURES) != first.files.get(FEATURES)), None
    )
    if odd is not None or FEATURES not in first.files:
        models = f"{first.manifest.model!r} and {odd.manifest.model!r}" if odd else f"{first.manifest.model!r}"
        raise Invalid(
            f"The features of {models} differ, so no request can provide both.", fix="train them on the same features."
        )
    inputs: dict[str, Input] = {}
    for source, name, bundle in entries:
        declared = next((feature for feature in bundle.manifest.inputs if feature.name == name), None)
        if declared is None or source != name:
            raise Invalid(f"The input {source!r} is renamed to {name!r}, but a feature must keep its name.")
        inputs[source] = declared
    check_graph(graph, (list(inputs), list(graph.outputs)))
    fields = {
        "task": first.manifest.task,
        "graph": graph,
        "inputs": tuple(inputs.values()),
        "outputs": tuple(graph.outputs),
        "features_digest": first.manifest.features_digest,
    }
    if golden is None and GOLDEN in first.files:
        golden_inputs = msgspec.json.decode(first.files[GOLDEN], type=dict[str, dict[str, Any]])["inputs"]
        golden = {"inputs": {name: golden_inputs[name] for name in inputs if name in golden_inputs}, "outputs": {}}
    return Made("graph", {FEATURES: first.files[FEATURES]}, fields, origin, golden)
