"""Sums of trees in an ONNX graph made smaller: fewer trees, equal leaves merged, comparisons in FP32.

They are the TreeEnsemble (ai.onnx.ml 5) that the project's own conversion writes for scikit-learn, XGBoost, LightGBM
and CatBoost. ONNX Runtime compiles it into arrays of nodes as it loads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mainspring.core.errors import NotConvertible
from mainspring.training.optimise.onnx_models import Array, read, written

_PLACES = ("nodes_featureids", "nodes_truenodeids", "nodes_trueleafs", "nodes_falsenodeids", "nodes_falseleafs")

_LINKS, _BETWEEN = ("Sigmoid", "Softmax", "Exp"), ("Add", "Cast")


@dataclass(frozen=True, slots=True)
class _Nodes:
    """A TreeEnsemble as arrays: inner nodes, shape (nodes,), and leaves, shape (leaves,)."""

    roots: Array
    feature: Array
    split: Array
    yes: Array
    yes_leaf: Array
    no: Array
    no_leaf: Array
    null_yes: Array
    target: Array
    weight: Array


def cut(content: bytes, share: float, rows: Mapping[str, Array]) -> bytes:
    """Return the model with the first trees alone.

    A sum of boosted trees is that of its first stages; of averaged trees each one left counts for more. A sum whose
    link is a sigmoid, a softmax or an exponential is boosted. Of any other, the one of the two is taken that lies
    nearer to the model's own answers for `rows`.

    Args:
        share: Share of the trees to keep, of those of each output.
        rows: Graph input -> rows.

    Raises:
        NotConvertible: It is no sum of trees, or has too few to cut.
    """
    model, node, nodes = _only(content)
    targets = nodes.target[_first_leaf(nodes)]
    kept = np.zeros(len(nodes.roots), bool)
    for target in np.unique(targets):
        of_target = np.flatnonzero(targets == target)
        kept[of_target[: max(1, round(share * len(of_target)))]] = True
    if kept.all():
        raise NotConvertible(f"The model has {len(kept)} trees, which is too few to keep a share of {share:g}.")
    fewer = _compact(replace(nodes, roots=nodes.roots[kept]))
    boosted = _with(model, node, fewer)
    if _linked(model, node.output[0]):
        return boosted
    averaged = _with(model, node, replace(fewer, weight=fewer.weight * (len(kept) / kept.sum())))
    wanted, *found = (_answers(each, rows) for each in (content, boosted, averaged))
    return boosted if _distance(found[0], wanted) <= _distance(found[1], wanted) else averaged


def merged(content: bytes) -> bytes:
    """Return the model without splits both of whose sides give the same: the same answers, bit for bit.

    Raises:
        NotConvertible: It is no sum of trees, or no split is without effect.
    """
    model, node, nodes = _only(content)
    found = _merged(nodes)
    if len(found.feature) == len(nodes.feature):
        raise NotConvertible(f"None of the {len(nodes.feature):,} splits has equal leaves on both sides.")
    return _with(model, node, found)


def narrow(content: bytes) -> bytes:
    """Return the model with FP32 in place of FP64 in its trees.

    Thresholds are rounded down: a number that is exact in FP32 then falls on the same side as before.

    Raises:
        NotConvertible: It is no sum of trees, or is in FP32.
    """
    from onnx import TensorProto, helper

    model, node, nodes = _only(content)
    if _attribute(node, "nodes_splits").dtype == np.float32:
        raise NotConvertible("The trees of the model are in FP32 already.")
    with np.errstate(over="ignore"):
        split = nodes.split.astype(np.float32)
    split = np.where(split > nodes.split, np.nextafter(split, np.float32(-np.inf)), split).astype(np.float32)
    _set(node, replace(nodes, split=split, weight=nodes.weight.astype(np.float32)))
    place = next(at for at, each in enumerate(model.graph.node) if each.output[0] == node.output[0])
    given, answer = node.input[0], node.output[0]
    node.input[0], node.output[0] = f"{answer}__given", f"{answer}__narrow"
    model.graph.node.insert(place + 1, helper.make_node("Cast", [node.output[0]], [answer], to=TensorProto.DOUBLE))
    model.graph.node.insert(place, helper.make_node("Cast", [given], [node.input[0]], to=TensorProto.FLOAT))
    return written(model)


def trees_in(content: bytes) -> int:
    """Return the number of trees of a model; 0 if it is no sum of trees."""
    model = read(content, "Optimising trees")
    return sum(len(_attribute(each, "tree_roots")) for each in model.graph.node if each.op_type == "TreeEnsemble")


def _only(content: bytes) -> tuple[Any, Any, _Nodes]:
    model = read(content, "Optimising trees")
    found = [each for each in model.graph.node if each.op_type == "TreeEnsemble"]
    if len(found) != 1:
        kinds = sorted({each.op_type for each in model.graph.node if each.op_type.startswith("TreeEnsemble")})
        has = f"{len(found)} sums of trees" if found else f"{' and '.join(kinds)} of an older ONNX" if kinds else "none"
        raise NotConvertible(f"The model is not one sum of trees: it has {has}.")
    if _attribute(found[0], "nodes_modes").any():  # 0: at most
        raise NotConvertible("The model's trees have splits of other kinds than `at most`.")
    return model, found[0], _read(found[0])


def _linked(model: Any, name: str) -> bool:
    """Return whether a link function takes a sum as it is, or with a base added."""
    for each in model.graph.node:
        if name in each.input and each.op_type in _LINKS:
            return True
        if name in each.input and each.op_type in _BETWEEN:
            return _linked(model, each.output[0])
    return False


def _attribute(node: Any, name: str) -> Array:
    from onnx import numpy_helper

    for each in node.attribute:
        if each.name == name:
            return numpy_helper.to_array(each.t) if each.type == each.TENSOR else np.array(each.ints, np.int64)
    return np.zeros(0, np.int64)


def _read(node: Any) -> _Nodes:
    null = _attribute(node, "nodes_missing_value_tracks_true")
    feature, yes, yes_leaf, no, no_leaf = (_attribute(node, name) for name in _PLACES)
    return _Nodes(
        roots=_attribute(node, "tree_roots"),
        feature=feature,
        split=_attribute(node, "nodes_splits"),
        yes=yes,
        yes_leaf=yes_leaf.astype(bool),
        no=no,
        no_leaf=no_leaf.astype(bool),
        null_yes=null if len(null) else np.zeros(len(feature), np.int64),
        target=_attribute(node, "leaf_targetids"),
        weight=_attribute(node, "leaf_weights"),
    )


def _first_leaf(nodes: _Nodes) -> Array:
    """Return a leaf of each tree, shape (trees,)."""
    found = np.empty(len(nodes.roots), np.int64)
    for number, root in enumerate(nodes.roots.tolist()):
        place = root
        while not nodes.yes_leaf[place]:
            place = int(nodes.yes[place])
        found[number] = nodes.yes[place]
    return found


def _compact(nodes: _Nodes) -> _Nodes:
    """Return the nodes and leaves that the roots reach, numbered anew in the order in which they were."""
    reached, leaves = np.zeros(len(nodes.feature), bool), np.zeros(len(nodes.weight), bool)
    waiting = nodes.roots
    while waiting.size:
        reached[waiting] = True
        below = np.concatenate([nodes.yes[waiting], nodes.no[waiting]])
        is_leaf = np.concatenate([nodes.yes_leaf[waiting], nodes.no_leaf[waiting]])
        leaves[below[is_leaf]] = True
        waiting = np.unique(below[~is_leaf])
        waiting = waiting[~reached[waiting]]
    inner, outer = np.cumsum(reached) - 1, np.cumsum(leaves) - 1
    return _Nodes(
        roots=inner[nodes.roots],
        feature=nodes.feature[reached],
        split=nodes.split[reached],
        yes=_moved(nodes.yes, nodes.yes_leaf, inner, outer)[reached],
        yes_leaf=nodes.yes_leaf[reached],
        no=_moved(nodes.no, nodes.no_leaf, inner, outer)[reached],
        no_leaf=nodes.no_leaf[reached],
        null_yes=nodes.null_yes[reached],
        target=nodes.target[leaves],
        weight=nodes.weight[leaves],
    )


def _moved(below: Array, leaf: Array, inner: Array, outer: Array) -> Array:
    places = np.empty_like(below)
    places[leaf], places[~leaf] = outer[below[leaf]], inner[below[~leaf]]
    return places


def _merged(nodes: _Nodes) -> _Nodes:
    yes, yes_leaf, no, no_leaf = nodes.yes.copy(), nodes.yes_leaf.copy(), nodes.no.copy(), nodes.no_leaf.copy()
    is_root = np.zeros(len(nodes.feature), bool)
    is_root[nodes.roots] = True
    while True:
        both = np.flatnonzero(yes_leaf & no_leaf & ~is_root)  # a tree needs one split
        left, right = yes[both], no[both]
        equal = (nodes.weight[left] == nodes.weight[right]) & (nodes.target[left] == nodes.target[right])
        gone = np.zeros(len(yes), bool)
        gone[both[equal]] = True
        leaf_of = np.where(gone, yes, -1)
        changed = False
        for below, leaf in ((yes, yes_leaf), (no, no_leaf)):
            above = np.flatnonzero(~leaf)
            above = above[gone[below[above]]]
            below[above], leaf[above] = leaf_of[below[above]], True
            changed |= bool(above.size)
        if not changed:
            return _compact(replace(nodes, yes=yes, yes_leaf=yes_leaf, no=no, no_leaf=no_leaf))


def _with(model: Any, node: Any, nodes: _Nodes) -> bytes:
    """Return the model's file with other trees; the model stays."""
    copied = type(model)()
    copied.CopyFrom(model)
    _set(next(each for each in copied.graph.node if each.output[0] == node.output[0]), nodes)
    return written(copied)


def _set(node: Any, nodes: _Nodes) -> None:
    from onnx import helper, numpy_helper

    values = {
        "tree_roots": nodes.roots,
        "nodes_featureids": nodes.feature,
        "nodes_truenodeids": nodes.yes,
        "nodes_trueleafs": nodes.yes_leaf.astype(np.int64),
        "nodes_falsenodeids": nodes.no,
        "nodes_falseleafs": nodes.no_leaf.astype(np.int64),
        "nodes_missing_value_tracks_true": nodes.null_yes,
        "leaf_targetids": nodes.target,
    }
    tensors = {
        "nodes_splits": nodes.split,
        "leaf_weights": nodes.weight,
        "nodes_modes": np.zeros(len(nodes.feature), np.uint8),  # at most: `_only` has seen that
    }
    rest = [each for each in node.attribute if each.name not in {*values, *tensors}]
    made = [helper.make_attribute(name, each.tolist()) for name, each in values.items()]
    made += [helper.make_attribute(name, numpy_helper.from_array(each, name)) for name, each in tensors.items()]
    del node.attribute[:]
    node.attribute.extend([*rest, *made])


def _answers(content: bytes, rows: Mapping[str, Array]) -> Array:
    from mainspring.training.flavours.scoring import open_session

    session = open_session(content)
    found = session.run(None, dict(rows))
    numbers = [np.asarray(each) for each in found if np.asarray(each).dtype.kind == "f"]
    return np.concatenate([each.reshape(len(each), -1).astype(np.float64) for each in numbers], axis=1)


def _distance(found: Array, wanted: Array) -> float:
    return float(np.nanmean(np.abs(found - wanted)))
