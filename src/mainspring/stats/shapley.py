"""Shapley values of a model's answer for a row, against background rows.

The game of a row x (Lundberg and Lee 2017, https://arxiv.org/abs/1705.07874): a coalition of columns is worth the mean
answer over the background rows, where the coalition's columns have the values of x. Contributions add up to the answer
minus the mean answer over the background.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import factorial
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_CELLS = 4_000_000  # of one step's arrays
_MOST_COLUMNS = 64  # of one path


@dataclass(frozen=True, slots=True)
class TreeSum:
    """A sum of decision trees. A row goes to a node's true child if its feature is at most the split.

    Args:
        feature, split, null_true: Shape (nodes,); `null_true` says whether a null goes to the true child.
        true, false: Children, shape (nodes,): a node's number, or a leaf's number where `true_leaf`, `false_leaf`.
        value, target: Of the leaves, shape (leaves,): a leaf adds `value` to the output `target`.
        targets: Number of outputs.
    """

    feature: Array
    split: Array
    null_true: Array
    true: Array
    false: Array
    true_leaf: Array
    false_leaf: Array
    value: Array
    target: Array
    targets: int


class ForestShapley:
    """Exact Shapley values of a sum of trees, in one pass over its leaves (interventional TreeSHAP).

    A leaf is reached if the row passes one test for each column of its path. Where a row x and a background row
    are mixed, a test needs x, needs the background row, accepts both, or accepts none. So a leaf's game has a
    closed form in the numbers of the first two kinds (Lundberg et al. 2020, https://doi.org/10.1038/s42256-019-0138-9,
    supplement). Background rows that pass the same tests of a leaf are counted once.

    Args:
        columns: The column of each feature, shape (features,): features of one column move together.
        background: Shape (rows, features), null as NaN.

    Raises:
        ValueError: A node or a leaf has two parents, or a path has tests on more than 64 columns.
    """

    def __init__(self, trees: TreeSum, columns: Array, background: Array) -> None:
        leaf, node, side = _paths(trees)
        feature = trees.feature[node]
        order = np.lexsort((feature, columns[feature], leaf))
        leaf, node, side, feature = leaf[order], node[order], side[order], feature[order]
        starts = _changes(leaf, feature)
        split = trees.split[node]
        self._low = np.maximum.reduceat(np.where(side, -np.inf, split), starts)
        self._high = np.minimum.reduceat(np.where(side, split, np.inf), starts)
        self._null = np.logical_and.reduceat(side == trees.null_true[node], starts)
        self._feature, leaf = feature[starts], leaf[starts]
        self._slots = _changes(leaf, columns[self._feature])  # a slot is one column on the path of one leaf
        self._whole = len(self._slots) == len(leaf)
        self._column, leaf = columns[self._feature][self._slots], leaf[self._slots]
        self._first = _changes(leaf)
        place = np.arange(len(leaf)) - np.repeat(self._first, np.diff(self._first, append=len(leaf)))
        self._longest = int(place.max()) + 1
        if self._longest > _MOST_COLUMNS:
            raise ValueError(f"A path of the trees tests {self._longest} columns.")
        width = next(bits for bits in (8, 16, 32, 64) if bits >= self._longest)
        self._bit = np.left_shift(np.ones(1, f"u{width // 8}"), place.astype(f"u{width // 8}"))
        self._columns, self._targets = int(columns.max()) + 1, trees.targets
        self._value, self._target = trees.value[leaf[self._first]], trees.target[leaf[self._first]]
        self._slot_leaf = np.repeat(np.arange(len(self._first)), np.diff(self._first, append=len(leaf)))
        self._slots_of_leaf = np.bincount(self._slot_leaf)
        self._slot_key = self._column * self._targets + self._target[self._slot_leaf]
        self._weigh(background)

    def _weigh(self, background: Array) -> None:
        """Count the background rows by leaf and failed tests: a pair is a leaf with one set of failed tests."""
        failed = np.sort(self._failed(background).T, axis=1)
        new = np.ones(failed.shape, bool)
        new[:, 1:] = failed[:, 1:] != failed[:, :-1]
        leaf, row = np.nonzero(new)
        counts = np.diff(np.flatnonzero(new.ravel()), append=new.size)
        self._pair_leaf, self._pair_failed = leaf, failed[leaf, row]
        self._pairs_of_leaf = new.sum(axis=1)
        self._pair_value = self._value[leaf] * counts / len(background)
        self._join_sets()
        size = self._longest + 1
        self._pair_row = np.bitwise_count(self._pair_failed).astype(np.intp) * size
        self._gain, self._loss = np.zeros((size, size)), np.zeros((size, size))
        for a in range(size):
            for b in range(size - a):
                if a:
                    self._gain[a, b] = factorial(a - 1) * factorial(b) / factorial(a + b)
                if b:
                    self._loss[a, b] = factorial(a) * factorial(b - 1) / factorial(a + b)

    def _join_sets(self) -> None:
        """Number the distinct sets of columns, with a target, that the pairs' background rows fail on."""
        lanes = np.zeros((len(self._pair_leaf), self._columns // 64 + 2), np.uint64)
        lanes[:, 0] = self._target[self._pair_leaf]
        first = self._first[self._pair_leaf]
        for place in range(self._longest):
            chosen = np.flatnonzero(self._pair_failed & self._pair_failed.dtype.type(1 << place))
            column = self._column[first[chosen] + place]
            lanes[chosen, column // 64 + 1] |= np.left_shift(np.uint64(1), (column % 64).astype(np.uint64))
        order = np.lexsort(lanes.T)
        lanes = lanes[order]
        starts = _changes(*lanes.T)
        self._pair_set = np.empty(len(order), np.intp)
        self._pair_set[order] = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(order)))
        sets = lanes[starts]
        bits = np.unpackbits(sets[:, 1:].astype("<u8").view(np.uint8), axis=1, bitorder="little")
        member, column = np.nonzero(bits)
        self._set_sizes = bits.sum(axis=1, dtype=np.intp)
        self._set_keys = column * self._targets + sets[member, 0].astype(np.intp)

    def values(self, matrix: Array) -> Array:
        """Return the contributions of rows, shape (rows, columns, targets).

        Args:
            matrix: Shape (rows, features), null as NaN.
        """
        total = np.empty((len(matrix), self._columns * self._targets))
        step = max(1, _CELLS // len(self._feature))
        for start in range(0, len(matrix), step):
            for place, failed in enumerate(self._failed(matrix[start : start + step]), start):
                total[place] = self._one(failed)
        return total.reshape(len(matrix), self._columns, self._targets)

    def _one(self, failed: Array) -> Array:
        """Return the contributions of the row that fails the tests `failed` of each leaf, flat."""
        pair = np.flatnonzero((np.repeat(failed, self._pairs_of_leaf) & self._pair_failed) == 0)
        leaf, value = self._pair_leaf[pair], self._pair_value[pair]
        weight = self._pair_row[pair] + np.bitwise_count(failed)[leaf]
        gained = np.bincount(self._pair_set[pair], value * self._gain.ravel()[weight], len(self._set_sizes))
        lost = np.bincount(leaf, value * self._loss.ravel()[weight], len(failed))
        slot = np.flatnonzero(np.repeat(failed, self._slots_of_leaf) & self._bit)
        size = self._columns * self._targets
        gains = np.bincount(self._set_keys, np.repeat(gained, self._set_sizes), size)
        return gains - np.bincount(self._slot_key[slot], lost[self._slot_leaf[slot]], size)

    def _failed(self, matrix: Array) -> Array:
        """Return the failed tests of each leaf's path as bits, shape (rows, leaves)."""
        step = max(1, _CELLS // len(self._feature))
        return np.concatenate([self._failed_by(matrix[at : at + step]) for at in range(0, len(matrix), step)])

    def _failed_by(self, matrix: Array) -> Array:
        found = np.take(matrix, self._feature, axis=1)
        passed = (found > self._low) & (found <= self._high)
        if np.isnan(matrix).any():
            passed |= np.isnan(found) & self._null
        if not self._whole:
            passed = np.logical_and.reduceat(passed, self._slots, axis=1)
        bits = np.where(passed, self._bit.dtype.type(0), self._bit)
        return np.bitwise_or.reduceat(bits, self._first, axis=1)


def _paths(trees: TreeSum) -> tuple[Array, Array, Array]:
    """Return (leaf, node, whether the path takes the node's true child), for each node on the path to each leaf."""
    node_parent, node_side = np.full(len(trees.feature), -1), np.zeros(len(trees.feature), bool)
    leaf_parent, leaf_side = np.full(len(trees.value), -1), np.zeros(len(trees.value), bool)
    for child, is_leaf, taken in ((trees.true, trees.true_leaf, True), (trees.false, trees.false_leaf, False)):
        for parent, sides, of in ((leaf_parent, leaf_side, is_leaf), (node_parent, node_side, ~is_leaf)):
            chosen = child[of]
            if len(np.unique(chosen)) < len(chosen) or (parent[chosen] >= 0).any():
                raise ValueError("A node or a leaf of the trees has two parents.")
            parent[chosen], sides[chosen] = np.flatnonzero(of), taken
    leaf = np.flatnonzero(leaf_parent >= 0)
    node, side = leaf_parent[leaf], leaf_side[leaf]
    found = []
    while leaf.size:
        found.append((leaf, node, side))
        above = node_parent[node]
        inner = above >= 0
        leaf, node, side = leaf[inner], above[inner], node_side[node[inner]]
    parts = [np.concatenate(part) for part in zip(*found, strict=True)]
    return parts[0], parts[1], parts[2]


def _changes(*keys: Array) -> Array:
    """Return the places at which one of the keys differs from the place before, 0 first."""
    new = np.zeros(len(keys[0]), bool)
    new[0] = True
    for key in keys:
        new[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(new)


def linear(weights: Array, columns: Array, background: Array, matrix: Array) -> Array:
    """Return the contributions to `matrix @ weights`, shape (rows, columns, targets).

    Args:
        weights: Shape (features, targets).
        columns: The column of each feature, shape (features,).
        background, matrix: Shape (rows, features), without nulls.
    """
    by_feature = (matrix - background.mean(axis=0))[:, :, None] * weights
    total = np.zeros((len(matrix), int(columns.max()) + 1, weights.shape[1]))
    for feature, column in enumerate(columns):
        total[:, column] += by_feature[:, feature]
    return total


def by_permutations(
    answer: Callable[[Array, Array], Array],
    columns: int,
    background: int,
    calls: int,
    *,
    seed: int = 0,
    enough: Callable[[], bool] = lambda: False,
) -> tuple[Array, Array]:
    """Estimate the contributions for any model: the mean change as columns take the row's values in random orders.

    Each order starts from one background row and is used backwards too, which cancels errors of the first degree
    (Mitchell et al. 2022, https://jmlr.org/papers/v23/21-0439.html).

    Args:
        answer: Takes which columns have the row's values, shape (n, columns), and the background row of each other
            column, shape (n,); returns the model's answers, shape (n, targets).
        calls: Number of answers to ask for; at least two orders, each of them backwards too, are tried.
        enough: Returns true to stop earlier.

    Returns:
        The contributions and their standard errors, shape (columns, targets).
    """
    rng = np.random.default_rng(seed)
    pairs = max(2, calls // (2 * (columns + 1)))
    steps = np.arange(columns + 1)[:, None]
    found = []
    for row in np.resize(rng.permutation(background), pairs):
        order = rng.permutation(columns)
        moves = []
        for each in (order, order[::-1]):
            rank = np.empty(columns, np.intp)
            rank[each] = np.arange(columns)
            gained = np.diff(answer(rank < steps, np.full(columns + 1, row)), axis=0)
            moves.append(gained[rank])
        found.append((moves[0] + moves[1]) / 2)
        if len(found) > 1 and enough():
            break
    drawn = np.stack(found)
    return drawn.mean(axis=0), drawn.std(axis=0, ddof=1) / np.sqrt(len(drawn))
