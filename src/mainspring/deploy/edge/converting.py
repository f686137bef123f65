"""The ONNX model of a bundle: its own, or made from the trees of another library, and proved on its golden rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import msgspec
import numpy as np

from mainspring.core.errors import NotConvertible
from mainspring.core.schema import DType
from mainspring.deploy.edge.golden import arrays_of, recorded_rows, worst_difference
from mainspring.deploy.edge.package import MODEL
from mainspring.deploy.edge.signature import FINITE
from mainspring.deploy.edge.trees import ZERO, Columns, Derived, read_trees
from mainspring.registry.flavours import MODEL_FILES
from mainspring.registry.model import Bundle, Manifest
from mainspring.training.flavours import Artefact
from mainspring.training.flavours.calibration import with_curve
from mainspring.training.flavours.estimators import imported
from mainspring.training.flavours.graph import Nodes, content_of, name_outputs
from mainspring.training.flavours.scoring import artefact_scores, open_session
from mainspring.training.flavours.tree_graph import VERSION, Forest, sum_of_trees
from mainspring.training.frames import Array

_REFUSE_INFINITE = ("xgboost", "lightgbm")  # as their executors do; CatBoost answers
_LARGEST = 64 << 20  # bytes of a table of categories
_INSTEAD: Mapping[str, str] = {
    "function": "serve it from a gateway: a device has none of the project's code.",
    "graph": "build a package of each of its models.",
    "lora": "serve it from an engine with its base.",
    "answers": "answers need their collection and a language model.",
}


def in_onnx(bundle: Bundle, name: str) -> Bundle:
    """Return a bundle whose model is ONNX: the same, or a copy with its trees converted.

    Args:
        name: The model's name in messages.

    Raises:
        NotConvertible: The model is a function or a graph, a part of its trees has no exact counterpart, or they differ
            from the golden rows by more than the bundle's tolerance.
        MissingExtra: A library that the conversion needs is not installed.
        Corrupt: The bundle has no golden rows.
    """
    manifest = bundle.manifest
    if manifest.flavour == "onnx":
        return bundle
    if manifest.flavour in _INSTEAD:
        raise NotConvertible(
            f"{name} has the flavour {manifest.flavour!r}, which no device runs.", fix=_INSTEAD[manifest.flavour]
        )
    content = tree_model(bundle, name)
    worst = worst_difference(_scores(content, manifest, recorded_rows(bundle)[0]), _recorded(bundle))
    if not worst <= manifest.tolerance:
        raise NotConvertible(
            f"{name} in ONNX differs by {worst:.2g} from the answers that training recorded; its tolerance is "
            f"{manifest.tolerance:g}.",
            fix="train it again with fewer or shallower trees, or with scikit-learn.",
        )
    files = {each: kept for each, kept in bundle.files.items() if each not in MODEL_FILES}
    return replace(
        bundle,
        manifest=msgspec.structs.replace(manifest, flavour="onnx", curve=None),
        files={**files, MODEL: content},
    )


def _recorded(bundle: Bundle) -> Array:
    _, outputs = recorded_rows(bundle)
    return np.concatenate([_flat(values) for values in outputs.values()], axis=1)


def _scores(content: bytes, manifest: Manifest, inputs: Mapping[str, Sequence[Any]]) -> Array:
    if not manifest.tensors:
        features = {name: list(values) for name, values in inputs.items()}
        return artefact_scores(Artefact("onnx", MODEL, content), arrays_of(features, manifest), list(features))
    session = open_session(content)
    kind = np.float32 if session.get_inputs()[0].type == "tensor(float)" else np.float64
    (answers,) = session.run(None, {name: np.array(values, kind) for name, values in inputs.items()})
    return _flat(answers)


def _flat(values: Any) -> Array:
    return np.array(values, np.float64).reshape(len(values), -1)


class _Graph(Nodes):
    """Nodes and constants of a graph of its own. Their names begin with `__`."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, inputs: list[str], *, domain: str = "", output: str = "", **attributes: Any) -> str:
        from onnx import helper

        output = output or f"__{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], domain=domain, **attributes))
        return output

    def constant(self, values: Any) -> str:
        from onnx import numpy_helper

        name = f"__constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name


def tree_model(bundle: Bundle, owner: str) -> bytes:
    """Return the ONNX model of a native bundle, calibrated as it is.

    Raises as `in_onnx` does.
    """
    onnx = imported("onnx", "A package of trees", "sklearn")
    helper, types, manifest = onnx.helper, onnx.TensorProto, bundle.manifest
    narrow = manifest.flavour == "xgboost"  # the type of its answers
    kind, graph = (types.FLOAT if narrow else types.DOUBLE), _Graph()
    if manifest.tensors:
        (spec,) = manifest.tensors
        columns = Columns([str(number) for number in range(spec.shape[1])])
        given, matrix = [(spec.name, kind, [None, *spec.shape[1:]])], spec.name
    else:
        columns = Columns([each.name for each in manifest.inputs])
        texts = {each.name: each.categories for each in manifest.inputs if each.dtype == DType.String}
        given = [(name, types.STRING if name in texts else types.DOUBLE, [None, 1]) for name in columns.names]
    forest = read_trees(bundle, columns, owner)
    if not manifest.tensors:
        matrix = _matrix(graph, columns.names, texts)
    if forest.narrow:
        matrix = graph.add("Cast", [matrix], to=types.FLOAT)
    matrix = graph.add("Cast", [matrix], to=types.DOUBLE)
    matrix, forest = _with_derived(graph, matrix, columns, forest, owner)
    answer = sum_of_trees(graph, matrix, replace(forest, narrow=False))
    outputs = []
    if manifest.tensors:
        (made,) = manifest.output_tensors
        shaped = graph.add("Reshape", [answer, graph.constant(np.array([-1, *made.shape[1:]]))])
        graph.add("Cast", [shaped], output=made.name, to=kind)
        outputs = [helper.make_tensor_value_info(made.name, kind, [None, *made.shape[1:]])]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "model",
            [helper.make_tensor_value_info(*each) for each in given],
            outputs,
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", VERSION)],
        ir_version=10,
    )
    if manifest.flavour in _REFUSE_INFINITE:
        helper.set_model_props(model, {FINITE: "float32" if forest.narrow else "float64"})
    if not manifest.tensors:
        name_outputs(model, answer, range(len(manifest.outputs)), manifest.outputs, double=not narrow)
    content = content_of(model)
    return content if manifest.curve is None else with_curve(content, manifest.curve)


def _matrix(graph: _Graph, names: Sequence[str], texts: Mapping[str, Sequence[str]]) -> str:
    """Return the columns side by side: a text as its position among its categories, or NaN."""
    from onnx import TensorProto

    beside = []
    for name in names:
        column = name
        if name in texts:
            codes = [float(code) for code in range(len(texts[name]))]
            column = graph.add(
                "LabelEncoder",
                [name],
                domain="ai.onnx.ml",
                keys_strings=list(texts[name]),
                values_floats=codes,
                default_float=float("nan"),
            )
            column = graph.add("Cast", [column], to=TensorProto.DOUBLE)
        beside.append(column)
    return graph.add("Concat", beside, axis=1)


def _with_derived(graph: _Graph, matrix: str, columns: Columns, forest: Forest, owner: str) -> tuple[str, Forest]:
    """Return the matrix with the derived columns, and the forest that compares them by their places there."""
    own = len(columns.names)
    derived = sorted(columns.derived, key=lambda each: (each.codes is not None, each.feature))
    if not derived:
        return matrix, forest
    places = np.arange(own + len(derived))
    for rank, column in enumerate(derived):
        places[columns.derived[column]] = own + rank
    blocks = [matrix]
    zeros = [each.feature for each in derived if each.codes is None]
    if zeros:
        blocks.append(_null_for_zero(graph, matrix, zeros))
    sets = [each for each in derived if each.codes is not None]
    for feature, group in groupby(sets, key=lambda each: each.feature):
        blocks.append(_sides(graph, matrix, list(group), f"{columns.names[feature]!r} of {owner}"))
    trees = tuple(replace(tree, feature=places[tree.feature]) for tree in forest.trees)
    return graph.add("Concat", blocks, axis=1), replace(forest, trees=trees)


def _null_for_zero(graph: _Graph, matrix: str, features: Sequence[int]) -> str:
    chosen = graph.add("Gather", [matrix, graph.constant(np.array(features))], axis=1)
    near = graph.add("LessOrEqual", [graph.add("Abs", [chosen]), graph.constant(ZERO)])
    return graph.add("Where", [near, graph.constant(np.nan), chosen])


def _sides(graph: _Graph, matrix: str, sets: Sequence[Derived], what: str) -> str:
    """Return where rows go by each set of one column's codes, shape (rows, sets), looked up in a table."""
    from onnx import TensorProto

    most = max((code for each in sets for code in each.codes or ()), default=0)
    if (most + 3) * len(sets) > _LARGEST:
        raise NotConvertible(
            f"The categories of {what} would take {(most + 3) * len(sets) >> 20:,} MB on a device.",
            fix="derive coarser categories in a feature.",
        )
    table = np.empty((most + 3, len(sets)), np.uint8)  # a row for each code, for any other number, and for null
    for place, each in enumerate(sets):
        table[:, place] = each.inside_left
        table[list(each.codes or ()), place] = not each.inside_left
        table[-1, place] = not each.null_left
    feature, above = sets[0].feature, sets[0].above
    number = graph.add("Gather", [matrix, graph.constant(feature)], axis=1)
    known = graph.add(
        "And",
        [
            graph.add("Greater", [number, graph.constant(above)]),
            graph.add("Less", [number, graph.constant(most + 1.0)]),
        ],
    )
    other = graph.add("Where", [known, number, graph.constant(most + 1.0)])
    row = graph.add("Where", [graph.add("IsNaN", [number]), graph.constant(most + 2.0), other])
    whole = graph.add("Cast", [row], to=TensorProto.INT64)
    return graph.add("Cast", [graph.add("Gather", [graph.constant(table), whole], axis=0)], to=TensorProto.DOUBLE)
