"""Tree ensembles in ONNX with float64 comparisons and sums: skl2onnx's own converters round to float32.

One TreeEnsemble (ai.onnx.ml 5, https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsemble.html) per estimator. Inputs
that scikit-learn rounds to float32 before comparing are rounded in the graph too, so that a value near a threshold
falls on the same side.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mainspring.training.flavours import forests
from mainspring.training.flavours.forests import Forest, Tree, read_forest
from mainspring.training.flavours.nodes import Nodes
from mainspring.training.frames import Array

VERSION = 5  # of ai.onnx.ml
_LEAST_OR_EQUAL = 0  # node mode BRANCH_LEQ: left if at most the threshold
_OPERATORS = {forests.SIGMOID: "Sigmoid", forests.EXP: "Exp", forests.SOFTMAX: "Softmax"}


def tree_types() -> list[type]:
    """Return the scikit-learn classes that this module converts."""
    from sklearn import ensemble, tree

    return [getattr(ensemble, kind, None) or getattr(tree, kind) for kind in forests.KINDS]


def regressor_shape(operator: Any) -> None:
    """Shape calculator of tree regressors for skl2onnx: float64, one value per row and label."""
    from skl2onnx.common.data_types import DoubleTensorType

    operator.outputs[0].type = DoubleTensorType(
        [operator.inputs[0].type.shape[0], getattr(operator.raw_operator, "n_outputs_", 1)]
    )


def tree_converter(scope: Any, operator: Any, container: Any) -> None:
    """Converter of the classes in `tree_types` for skl2onnx."""
    from onnx import TensorProto
    from skl2onnx.common.data_types import DoubleTensorType

    estimator = operator.raw_operator
    forest = read_forest(estimator)
    nodes = Nodes(scope, container)
    given = operator.inputs[0].full_name
    if forest.narrow:
        given = nodes.add("Cast", [given], to=TensorProto.FLOAT)
    wide = nodes.add("Cast", [given], to=TensorProto.DOUBLE)
    summed = nodes.add("TreeEnsemble", [wide], domain="ai.onnx.ml", **ensemble(forest))
    if forest.base.any():
        summed = nodes.add("Add", [summed, nodes.constant(forest.base)])
    # A surrounding estimator may need the value before the link, as CalibratedClassifierCV does.
    raw = bool((container.get_options(estimator, fail=False) or {}).get("raw_scores"))
    if forest.link != forests.IDENTITY and not raw:
        summed = nodes.add(_OPERATORS[forest.link], [summed])
    classifier = hasattr(estimator, "classes_")
    if classifier and len(forest.base) == 1:  # the first class has the negated score, or 1 minus the probability
        other = nodes.add("Sub", [nodes.constant(np.zeros(1) if raw else np.ones(1)), summed])
        summed = nodes.add("Concat", [other, summed], axis=1)
    answer = operator.outputs[-1]
    kind = TensorProto.DOUBLE if isinstance(answer.type, DoubleTensorType) else TensorProto.FLOAT
    nodes.add("Cast", [summed], output=answer.full_name, to=kind)
    if classifier:
        likeliest = nodes.add("ArgMax", [summed], axis=1, keepdims=0)
        classes = nodes.constant(_labels(estimator.classes_))
        nodes.add("Gather", [classes, likeliest], output=operator.outputs[0].full_name)


def newest_trees(model: Any) -> None:
    """Raise the ai.onnx.ml version of a model with a TreeEnsemble, which skl2onnx does not know."""
    if any(node.op_type == "TreeEnsemble" for node in model.graph.node):
        for operators in model.opset_import:
            if operators.domain == "ai.onnx.ml":
                operators.version = VERSION


def ensemble(forest: Forest) -> dict[str, Any]:
    """Return the attributes of one TreeEnsemble, which numbers inner nodes and leaves separately across all trees."""
    from onnx import numpy_helper

    parts, inner, leaves = [], 0, 0
    for tree in map(_with_inner_root, forest.trees):
        part = _attributes(tree, inner, leaves)
        inner, leaves = inner + len(part["nodes_featureids"]), leaves + len(part["leaf_targetids"])
        parts.append(part)
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    numbers = {
        "nodes_splits": whole.pop("nodes_splits"),
        "leaf_weights": whole.pop("leaf_weights"),
        "nodes_modes": np.full(inner, _LEAST_OR_EQUAL, np.uint8),
    }
    return {
        "n_targets": len(forest.base),
        "aggregate_function": 1,  # their sum
        "post_transform": 0,  # none
        **{name: values.tolist() for name, values in whole.items()},
        **{name: numpy_helper.from_array(values, name) for name, values in numbers.items()},
    }


def _attributes(tree: Tree, inner: int, leaves: int) -> dict[str, Array]:
    """Return the attributes of one tree, numbered after `inner` inner nodes and `leaves` leaves of earlier trees."""
    leaf = tree.leaf
    place = np.where(leaf, np.cumsum(leaf) - 1 + leaves, np.cumsum(~leaf) - 1 + inner)
    left, right = tree.left[~leaf], tree.right[~leaf]
    return {
        "tree_roots": place[:1],
        "nodes_featureids": tree.feature[~leaf],
        "nodes_splits": tree.threshold[~leaf],
        "nodes_truenodeids": place[left],
        "nodes_trueleafs": leaf[left].astype(np.int64),
        "nodes_falsenodeids": place[right],
        "nodes_falseleafs": leaf[right].astype(np.int64),
        "nodes_missing_value_tracks_true": tree.null_left[~leaf].astype(np.int64),
        "leaf_targetids": np.full(int(leaf.sum()), tree.target),
        "leaf_weights": tree.value[leaf],
    }


def _with_inner_root(tree: Tree) -> Tree:
    """Return the tree; a single leaf becomes a split into two equal leaves, as ONNX needs at least one split."""
    if not tree.leaf[0]:
        return tree
    return Tree(
        feature=np.zeros(3, np.int64),
        threshold=np.zeros(3),
        left=np.array([1, -1, -1]),
        right=np.array([2, -1, -1]),
        null_left=np.zeros(3, bool),
        leaf=np.array([False, True, True]),
        value=np.full(3, tree.value[0]),
        target=tree.target,
    )


def _labels(classes: Array) -> Array:
    return classes.astype(object) if classes.dtype.kind in "OU" else classes.astype(np.int64)
