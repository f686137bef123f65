"""Trees of XGBoost, LightGBM and CatBoost as read from a bundle: one sum, whose splits are all `x <= threshold`.

A split has the library's answer for every number and for null:

- XGBoost's `x < t` on float32 is `x <= s`, with `s` the float32 before `t`.
- LightGBM takes numbers within 1e-35 of 0 as 0, and null as 0, as null, or 0 as null, by split.
- A set of categories becomes a column of its own. In a chain of comparisons, ONNX Runtime would repeat the tree below
  it for each of them.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from mainspring.core.errors import NotConvertible
from mainspring.registry.catboost_file import check_catboost
from mainspring.registry.lightgbm_file import check_lightgbm
from mainspring.registry.model import Bundle
from mainspring.registry.xgboost_file import check_xgboost
from mainspring.training.flavours.estimators import imported
from mainspring.training.flavours.tree_graph import EXP, IDENTITY, SIGMOID, SOFTMAX, Forest, Tree
from mainspring.training.frames import Array

ZERO = float(np.float32(1e-35))  # LightGBM's kZeroThreshold
_NO_ZERO, _NAN = 1, 2  # LightGBM's missing types: zero and null are null; null is null
_LINKS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "xgboost": {
        SIGMOID: ("binary:logistic", "reg:logistic"),
        SOFTMAX: ("multi:softprob",),
        EXP: ("count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft"),
        IDENTITY: (
            *("reg:squarederror", "reg:squaredlogerror", "reg:pseudohubererror", "reg:absoluteerror"),
            *("reg:quantileerror", "binary:logitraw", "rank:pairwise", "rank:ndcg", "rank:map"),
        ),
    },
    "lightgbm": {
        SIGMOID: ("binary", "multiclassova", "cross_entropy"),
        SOFTMAX: ("multiclass",),
        EXP: ("poisson", "gamma", "tweedie"),
        IDENTITY: (
            *("regression", "regression_l1", "huber", "fair", "quantile", "mape"),
            *("lambdarank", "rank_xendcg", "custom"),
        ),
    },
}


class Derived(NamedTuple):
    """A column computed from another: null where that is 0, or where a row goes by a set of codes (0 left, 1 right).

    Args:
        feature: The other column.
        codes: Codes of the set; `None` for null where the other is 0.
        inside_left, null_left: Whether a code of the set, and null, go left. Other codes go where the set does not.
        above: Numbers above it have a code, which is their integer part.
    """

    feature: int
    codes: tuple[int, ...] | None = None
    inside_left: bool = False
    null_left: bool = False
    above: float = -1.0


class Columns:
    """The columns that trees compare, by number: a model's own, then derived ones."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self.derived: dict[Derived, int] = {}

    def number(self, column: Derived) -> int:
        """Return the number of a derived column."""
        return self.derived.setdefault(column, len(self.names) + len(self.derived))


def read_trees(bundle: Bundle, columns: Columns, owner: str) -> Forest:
    """Return the trees of a native bundle, and add the columns that they compare to `columns`.

    Args:
        owner: The model's name in messages.

    Raises:
        NotConvertible: A part of the model has no exact counterpart; the message names it.
        MissingExtra: The library that reads the file is not installed.
    """
    return _READERS[bundle.manifest.flavour](bundle, columns, owner)


def _link(library: str, objective: str, owner: str) -> str:
    for link, objectives in _LINKS[library].items():
        if objective in objectives:
            return link
    raise NotConvertible(
        f"{owner} has the objective {objective!r}, whose answers cannot be computed exactly on a device.",
        fix=f"train it with another: {', '.join(next(iter(each)) for each in _LINKS[library].values())}.",
    )


def _xgboost(bundle: Bundle, columns: Columns, owner: str) -> Forest:
    content = bundle.files[next(name for name in ("model.ubj", "model.json") if name in bundle.files)]
    facts = check_xgboost(content, f"The model of {owner}")
    if facts.booster not in ("gbtree", "dart"):
        raise NotConvertible(f"{owner} is a {facts.booster!r}, not trees.", fix="train it with booster='gbtree'.")
    link = _link("xgboost", facts.objective, owner)
    library = imported("xgboost", "A package of a model of XGBoost", "xgboost")
    booster = library.Booster({"nthread": 1}, model_file=bytearray(content))
    learner = msgspec.json.decode(bytes(booster.save_raw("json")))["learner"]
    outer = learner["gradient_booster"]
    model = outer.get("gbtree", outer)["model"]  # dart nests its trees one level deeper
    trees, weights = model["trees"], outer.get("weight_drop")
    used = len(trees) if facts.best_iteration is None else model["iteration_indptr"][facts.best_iteration + 1]
    if any(int(tree["tree_param"].get("size_leaf_vector", 1)) > 1 for tree in trees):
        raise NotConvertible(
            f"The trees of {owner} have leaves of several values.",
            fix="train with multi_strategy='one_output_per_tree'.",
        )
    params = learner["learner_model_param"]
    score = msgspec.json.decode(params["base_score"].lower())
    base = np.array(score if isinstance(score, list) else [score], np.float64)
    base = np.log(base) if link == EXP else -np.log(1 / base - 1) if link == SIGMOID else base
    targets = max(1, int(params["num_class"]), int(params["num_target"]))
    found = tuple(
        _xgboost_tree(tree, columns, 1.0 if weights is None else weights[number], model["tree_info"][number])
        for number, tree in enumerate(trees[:used])
    )
    return Forest(found, np.zeros(targets) + base, link, narrow=True)


def _xgboost_tree(tree: Mapping[str, Any], columns: Columns, weight: float, target: int) -> Tree:
    leaf = np.array(tree["left_children"]) == -1
    conditions = np.array(tree["split_conditions"], np.float32)
    null_left = np.array(tree["default_left"]).astype(bool)
    feature = np.where(leaf, 0, np.array(tree["split_indices"]))
    threshold = np.nextafter(conditions, np.float32(-np.inf)).astype(np.float64)
    for node, start, size in zip(
        tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True
    ):
        codes = tuple(sorted(tree["categories"][start : start + size]))
        above = float(np.nextafter(0.0, -1.0))
        feature[node] = columns.number(Derived(int(feature[node]), codes, False, bool(null_left[node]), above))
        threshold[node] = 0.5
    return Tree(
        feature=feature,
        threshold=threshold,
        left=np.array(tree["left_children"]),
        right=np.array(tree["right_children"]),
        null_left=null_left,
        leaf=leaf,
        value=conditions.astype(np.float64) * weight,
        target=target,
    )


def _lightgbm(bundle: Bundle, columns: Columns, owner: str) -> Forest:
    content = bundle.files["model.txt"]
    facts = check_lightgbm(content, f"The model of {owner}")
    kind, *options = facts.objective.split() or ["custom"]
    if "sqrt" in options:
        kind = facts.objective
    link = _link("lightgbm", kind, owner)
    head, *trees = re.split(r"^Tree=\d+\n", content.decode().partition("\nend of trees")[0], flags=re.MULTILINE)
    if any("\nis_linear=1" in tree for tree in trees):
        raise NotConvertible(f"The leaves of {owner} are linear functions.", fix="train it with linear_tree=False.")
    factor = 1.0
    if link == SIGMOID:
        factor = next((float(each[8:]) for each in options if each.startswith("sigmoid:")), 1.0)
    if "average_output" in head.splitlines():
        factor /= max(1, len(trees) // facts.outputs)
    found = tuple(_lightgbm_tree(tree, columns, factor, number % facts.outputs) for number, tree in enumerate(trees))
    return Forest(found, np.zeros(facts.outputs), link, narrow=False)


def _lightgbm_tree(text: str, columns: Columns, factor: float, target: int) -> Tree:
    facts = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def read(name: str, kind: Any) -> Array:
        return np.array(facts.get(name, "").split(), np.float64).astype(kind)

    feature, decision = read("split_feature", np.int64), read("decision_type", np.int64)
    given, leaves, inner = read("threshold", np.float64), read("leaf_value", np.float64), len(feature)
    missing, default_left = (decision >> 2) & 3, (decision & 2) > 0
    tiny = np.where(given < 0, np.nextafter(-ZERO, -np.inf), ZERO)
    threshold = np.where(np.abs(given) <= ZERO, tiny, given)
    null_left = np.where(missing == 0, given >= 0, default_left)
    words, bounds = read("cat_threshold", np.uint32), read("cat_boundaries", np.int64)
    for node in range(inner):
        column = int(feature[node])
        if decision[node] & 1:
            place = int(given[node])
            codes = _bits(words[bounds[place] : bounds[place + 1]])
            feature[node], threshold[node] = columns.number(Derived(column, codes, True)), 0.5
        elif missing[node] == _NO_ZERO:
            feature[node] = columns.number(Derived(column))
    children = {side: read(f"{side}_child", np.int64) for side in ("left", "right")}
    nowhere = np.full(len(leaves), -1)
    left, right = (np.concatenate([np.where(each < 0, inner + ~each, each), nowhere]) for each in children.values())
    none = np.zeros(len(leaves))
    return Tree(
        feature=np.concatenate([feature, none]).astype(np.int64),
        threshold=np.concatenate([threshold, none]),
        left=left,
        right=right,
        null_left=np.concatenate([null_left, none]).astype(bool),
        leaf=np.arange(inner + len(leaves)) >= inner,
        value=np.concatenate([np.zeros(inner), leaves * factor]),
        target=target,
    )


def _bits(words: Array) -> tuple[int, ...]:
    """Return the numbers of the bits that are set, of words of 32 bits, the lowest first."""
    return tuple(np.flatnonzero(np.unpackbits(words.astype("<u4").view(np.uint8), bitorder="little")).tolist())


def _catboost(bundle: Bundle, columns: Columns, owner: str) -> Forest:
    content = bundle.files["model.cbm"]
    facts = check_catboost(content, f"The model of {owner}")
    if facts.categories:
        texts = [columns.names[place] for place in facts.categories]
        raise NotConvertible(
            f"{owner} takes the categories {texts}, which CatBoost counts by hashes; ONNX has no exact counterpart.",
            fix="train it without them, or with XGBoost or LightGBM.",
        )
    library = imported("catboost", "A package of a model of CatBoost", "catboost")
    with tempfile.TemporaryDirectory(prefix="mainspring-catboost-") as folder:
        path = Path(folder) / "model.json"
        library.CatBoost().load_model(blob=content).save_model(str(path), format="json")
        document = msgspec.json.decode(path.read_bytes())
    numbers = {each["feature_index"]: each for each in document["features_info"]["float_features"]}
    scale, bias = document["scale_and_bias"]
    base = np.array(bias if isinstance(bias, list) else [bias], np.float64)
    base = np.zeros(facts.outputs) + (base if len(base) else 0.0)
    found = [
        made
        for tree in document.get("oblivious_trees") or document["trees"]
        for made in _catboost_trees(tree, numbers, facts.outputs, scale)
    ]
    answers = {"Probability": SIGMOID if facts.outputs == 1 else SOFTMAX, "Exponent": EXP}
    return Forest(tuple(found), base, answers.get(facts.answer, IDENTITY), narrow=True)


def _catboost_trees(
    tree: Mapping[str, Any], numbers: Mapping[int, Mapping[str, Any]], targets: int, scale: float
) -> Iterator[Tree]:
    """Yield a tree for each target: a leaf in ONNX adds to only one."""
    splits, left, right, leaves = _symmetric(tree) if "splits" in tree else _nested(tree)
    inner = len(splits)
    features = [numbers[split["float_feature_index"]] for split in splits]
    values = np.array(leaves, np.float64).reshape(-1, targets) * scale
    nothing = np.zeros(len(values))

    def padded(of_inner: Sequence[Any]) -> Array:
        return np.concatenate([np.array(of_inner, np.float64), nothing])

    for target in range(targets):
        yield Tree(
            feature=padded([feature["flat_feature_index"] for feature in features]).astype(np.int64),
            threshold=padded([np.float32(split["border"]) for split in splits]),
            left=padded(left).astype(np.int64),
            right=padded(right).astype(np.int64),
            null_left=padded([feature["nan_value_treatment"] != "AsTrue" for feature in features]).astype(bool),
            leaf=np.arange(inner + len(values)) >= inner,
            value=np.concatenate([np.zeros(inner), values[:, target]]),
            target=target,
        )


_Nodes = tuple[list[Any], list[int], list[int], list[Any]]  # splits, left and right of each, values of the leaves


def _symmetric(tree: Mapping[str, Any]) -> _Nodes:
    """Return the nodes of a tree with one split a level, level by level; the last split is the root's."""
    levels = tree["splits"] or []
    splits = [split for level, split in enumerate(reversed(levels)) for _ in range(2**level)]
    numbers = range(len(splits))
    return splits, [2 * each + 1 for each in numbers], [2 * each + 2 for each in numbers], tree["leaf_values"]


def _nested(tree: Mapping[str, Any]) -> _Nodes:
    """Return the nodes of a tree of any form. A leaf's number follows those of all inner nodes."""
    inner, leaves = [], []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if "split" in node:
            inner.append(node)
            waiting += [node["left"], node["right"]]
        else:
            leaves.append(node)
    place = {id(node): number for number, node in enumerate((*inner, *leaves))}
    sides = [[place[id(node[side])] for node in inner] for side in ("left", "right")]
    return [node["split"] for node in inner], sides[0], sides[1], [leaf["value"] for leaf in leaves]


_READERS: Mapping[str, Callable[[Bundle, Columns, str], Forest]] = {
    "xgboost": _xgboost,
    "lightgbm": _lightgbm,
    "catboost": _catboost,
}
