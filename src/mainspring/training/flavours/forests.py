"""scikit-learn's tree estimators, normalised to one sum of trees: the comparisons and the leaf values.

All numbers stay in the estimator's float64. The estimators differ in whether they round their inputs to float32 first
(all but HistGradientBoosting do), in the base value of the sum, and in the link function applied to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mainspring.core.errors import NotConvertible
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
        raise NotConvertible(f"{kind} answers {several} labels at once.", fix="train one model a label.")
    if kind.startswith("Hist"):
        return _histogram(estimator)
    if kind.startswith("Gradient"):
        return _boosted(estimator)
    members = [estimator] if kind.startswith(_ONE) and not kind.startswith(_AVERAGED) else estimator.estimators_
    classes = () if kind.endswith("Regressor") else estimator.classes_
    targets = len(classes) if len(classes) > 2 else several
    found = [tree for each in members for tree in _averaged(each.tree_, targets, 1 / len(members), kind)]
    return Forest(tuple(found), np.zeros(targets), IDENTITY, narrow=True)


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
            f"{kind}(init={type(start).__name__}()) starts from another model's answers.", fix="leave init out."
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
        raise NotConvertible(f"{type(estimator).__name__} has the link {link}, which is not known.")
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
