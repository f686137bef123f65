"""Tree ensembles of scikit-learn in ONNX with float64 comparisons and sums: skl2onnx's own round to float32.

An estimator is normalised to one sum of trees, in its own float64. Estimators differ in whether they round their inputs
to float32 first (all but HistGradientBoosting do), in the base value of the sum, and in the link function applied to
it. The sum becomes one TreeEnsemble (ai.onnx.ml 5,
https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsemble.html). Inputs that scikit-learn rounds to float32 before
comparing are rounded in the graph too, so that a value near a threshold falls on the same side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mainspring.core.errors import NotConvertible
from mainspring.training.flavours.graph import Nodes
from mainspring.training.frames import Array

IDENTITY, SIGMOID, SOFTMAX, EXP = "identity", "sigmoid", "softmax", "exp"
_HISTOGRAM_LINKS = {"IdentityLink": IDENTITY, "LogLink": EXP, "LogitLink": SIGMOID, "MultinomialLogit": SOFTMAX}
_ONE = ("DecisionTree", "ExtraTree")
_AVERAGED = ("RandomForest", "ExtraTrees")
KINDS = tuple(
    f"{kind}{task}"
    for kind in (*_ONE, *_AVERAGED, "GradientBoosting", "HistGradientBoosting")
    for task in ("Classifier", "Regressor")
)
VERSION = 5  # of ai.onnx.ml
_LEAST_OR_EQUAL = 0  # node mode BRANCH_LEQ: left if at most the threshold
_OPERATORS = {SIGMOID: "Sigmoid", EXP: "Exp", SOFTMAX: "Softmax"}


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree as arrays over its nodes, root first: a row goes left if its feature is at most the threshold.

    Args:
        feature, threshold, left, right, null_left: Shape (nodes,), used for inner nodes.
        leaf: Whether each node is a leaf, shape (nodes,).
        value: Addend of a leaf to `target`, shape (nodes,).
    """

    feature: Array
    threshold: Array
    left: Array
    right: Array
    null_left: Array
    leaf: Array
    value: Array
    target: int = 0


@dataclass(frozen=True, slots=True)
class Forest:
    """A sum of trees.

    Args:
        base: Initial value of each target, shape (targets,).
        link: Function applied to the sum. With one target and two classes, it gives the second class's probability.
        narrow: Whether inputs are rounded to float32 before the comparison.
    """

    trees: tuple[Tree, ...]
    base: Array
    link: str
    narrow: bool


def read_forest(estimator: Any) -> Forest:
    """Return the trees of a fitted estimator of one of `KINDS`.

    Raises:
        NotConvertible: A classifier has several outputs, or boosting starts from another model.
    """
    kind = type(estimator).__name__
    several = getattr(estimator, "n_outputs_", 1)
    if several != 1 and kind.endswith("Classifier"):
        raise NotConvertible(f"{kind} predicts {several} labels at once.", fix="train one model per label.")
    if kind.startswith("Hist"):
        return _histogram(estimator)
    if kind.startswith("Gradient"):
        return _boosted(estimator)
    members = [estimator] if kind.startswith(_ONE) and not kind.startswith(_AVERAGED) else estimator.estimators_
    classes = () if kind.endswith("Regressor") else estimator.classes_
    targets = len(classes) if len(classes) > 2 else several
    trees = [tree for member in members for tree in _averaged(member.tree_, targets, 1 / len(members), kind)]
    return Forest(tuple(trees), np.zeros(targets), IDENTITY, narrow=True)


def _averaged(tree: Any, targets: int, share: float, kind: str) -> Iterator[Tree]:
    if kind.endswith("Regressor"):
        for target in range(targets):
            yield _plain(tree, tree.value[:, target, 0] * share, target)
        return
    values = tree.value[:, 0, :]
    shares = values / values.sum(axis=1, keepdims=True)
    if targets == 1:
        yield _plain(tree, shares[:, -1] * share)
        return
    for target in range(targets):  # a leaf in ONNX adds to only one target
        yield _plain(tree, shares[:, target] * share, target)


def _boosted(estimator: Any) -> Forest:
    kind, start = type(estimator).__name__, estimator.init_
    if start != "zero" and not type(start).__name__.startswith("Dummy"):
        raise NotConvertible(
            f"{kind}(init={type(start).__name__}()) starts from another model's predictions.", fix="leave init out."
        )
    stages = estimator.estimators_  # (stages, targets)
    base = np.asarray(estimator._raw_predict_init(np.zeros((1, estimator.n_features_in_), np.float32)), np.float64)
    factor = 2.0 if getattr(estimator, "loss", "") == "exponential" else 1.0  # the probability is of twice the sum
    found = [
        _plain(member.tree_, member.tree_.value[:, 0, 0] * estimator.learning_rate * factor, target)
        for stage in stages
        for target, member in enumerate(stage)
    ]
    link = IDENTITY if kind.endswith("Regressor") else SIGMOID if stages.shape[1] == 1 else SOFTMAX
    return Forest(tuple(found), base.reshape(-1) * factor, link, narrow=True)


def _histogram(estimator: Any) -> Forest:
    link = type(estimator._loss.link).__name__
    if link not in _HISTOGRAM_LINKS:
        raise NotConvertible(f"{type(estimator).__name__} has the unknown link {link}.")
    found = [
        Tree(
            feature=tree.nodes["feature_idx"].astype(np.int64),
            threshold=tree.nodes["num_threshold"].astype(np.float64),
            left=tree.nodes["left"].astype(np.int64),
            right=tree.nodes["right"].astype(np.int64),
            null_left=tree.nodes["missing_go_to_left"].astype(bool),
            leaf=tree.nodes["is_leaf"].astype(bool),
            value=tree.nodes["value"].astype(np.float64),
            target=target,
        )
        for stage in estimator._predictors
        for target, tree in enumerate(stage)
    ]
    base = np.asarray(estimator._baseline_prediction, np.float64).reshape(-1)
    return Forest(tuple(found), base, _HISTOGRAM_LINKS[link], narrow=False)


def _plain(tree: Any, value: Array, target: int = 0) -> Tree:
    return Tree(
        feature=tree.feature.astype(np.int64),
        threshold=tree.threshold.astype(np.float64),
        left=tree.children_left.astype(np.int64),
        right=tree.children_right.astype(np.int64),
        null_left=np.asarray(tree.missing_go_to_left).astype(bool),
        leaf=tree.children_left == -1,
        value=value,
        target=target,
    )


def tree_types() -> list[type]:
    """Return the scikit-learn classes that this module converts."""
    from sklearn import ensemble, tree

    return [getattr(ensemble, kind, None) or getattr(tree, kind) for kind in KINDS]


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
    # A surrounding estimator may need the value before the link, as CalibratedClassifierCV does.
    raw = bool((container.get_options(estimator, fail=False) or {}).get("raw_scores"))
    summed = sum_of_trees(nodes, operator.inputs[0].full_name, replace(forest, link=IDENTITY) if raw else forest)
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


def sum_of_trees(nodes: Nodes, given: str, forest: Forest) -> str:
    """Add a forest's nodes and return the name of its answers, float64 of shape (rows, targets)."""
    from onnx import TensorProto

    if forest.narrow:
        given = nodes.add("Cast", [given], to=TensorProto.FLOAT)
    wide = nodes.add("Cast", [given], to=TensorProto.DOUBLE)
    summed = nodes.add("TreeEnsemble", [wide], domain="ai.onnx.ml", **ensemble(forest))
    if forest.base.any():
        summed = nodes.add("Add", [summed, nodes.constant(forest.base)])
    return summed if forest.link == IDENTITY else nodes.add(_OPERATORS[forest.link], [summed])


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
    combined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    numbers = {
        "nodes_splits": combined.pop("nodes_splits"),
        "leaf_weights": combined.pop("leaf_weights"),
        "nodes_modes": np.full(inner, _LEAST_OR_EQUAL, np.uint8),
    }
    return {
        "n_targets": len(forest.base),
        "aggregate_function": 1,  # their sum
        "post_transform": 0,  # none
        **{name: values.tolist() for name, values in combined.items()},
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
