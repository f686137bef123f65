"""Shapley values of trees, linear functions and any function, against their definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from kit.explained import brute_force
from mainspring.stats.shapley import ForestShapley, TreeSum, by_permutations, linear

GRID = np.array([-1.0, 0.0, 0.5, 1.0, np.nan])  # splits and values meet on it


def forest(seed: int, features: int, trees: int, depth: int, targets: int = 1) -> TreeSum:
    """Return random trees; thresholds are numbers of `GRID`, and features come again on a path."""
    rng = np.random.default_rng(seed)
    nodes: list[list[Any]] = []
    leaves: list[float] = []

    def grow(left: int) -> tuple[int, bool]:
        if left == 0 or (left < depth and rng.random() < 0.2):
            leaves.append(rng.normal())
            return len(leaves) - 1, True
        place = len(nodes)
        nodes.append([int(rng.integers(features)), float(rng.choice(GRID[:-1])), bool(rng.random() < 0.5)])
        children = grow(left - 1), grow(left - 1)
        nodes[place] += [children[0][0], children[1][0], children[0][1], children[1][1]]
        return place, False

    for _ in range(trees):
        grow(depth)
    feature, split, null, true, false, true_leaf, false_leaf = map(np.array, zip(*nodes, strict=True))
    target = rng.integers(0, targets, len(leaves))
    return TreeSum(feature, split, null, true, false, true_leaf, false_leaf, np.array(leaves), target, targets)


def answer(trees: TreeSum, matrix: Any) -> Any:
    """Return the sums, row by row and node by node."""
    inner = np.concatenate([trees.true[~trees.true_leaf], trees.false[~trees.false_leaf]])
    roots = sorted(set(range(len(trees.feature))) - set(inner.tolist()))
    found = np.zeros((len(matrix), trees.targets))
    for row, values in enumerate(matrix):
        for root in roots:
            node, leaf = root, False
            while not leaf:
                value = values[trees.feature[node]]
                left = trees.null_true[node] if np.isnan(value) else value <= trees.split[node]
                leaf = (trees.true_leaf if left else trees.false_leaf)[node]
                node = (trees.true if left else trees.false)[node]
            found[row, trees.target[node]] += trees.value[node]
    return found


@settings(max_examples=examples(gate=40, deep=400), deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(1, 3),
    st.lists(st.integers(0, 2), min_size=4, max_size=4),
)
def test_of_trees_equal_the_definition(
    seed: int, features: int, trees: int, depth: int, targets: int, owners: list[int]
) -> None:
    made = forest(seed, features, trees, depth, targets)
    rng = np.random.default_rng(seed)
    background, rows = rng.choice(GRID, (5, features)), rng.choice(GRID, (2, features))
    columns = np.unique(owners[:features], return_inverse=True)[1]  # features of one column move together
    found = ForestShapley(made, columns, background).values(rows)
    for row, values in enumerate(rows):
        names = [str(column) for column in range(columns.max() + 1)]
        one = {name: tuple(values[columns == int(name)]) for name in names}
        beside = {name: [tuple(each[columns == int(name)]) for each in background] for name in names}

        def sums(mixed: Any, count: int) -> Any:
            matrix = np.empty((count, features))
            for name, values in mixed.items():
                matrix[:, columns == int(name)] = np.array(values)
            return answer(made, matrix)

        np.testing.assert_allclose(found[row], brute_force(sums, one, beside), atol=1e-12)


def test_a_path_of_many_columns() -> None:
    """A chain of 40 tests on 40 columns: more than 32 bits."""
    count = 40
    chain = np.arange(count)
    last = chain == count - 1
    made = TreeSum(
        feature=chain,
        split=np.zeros(count),
        null_true=np.zeros(count, bool),
        true=np.where(last, 0, chain + 1),
        false=chain + 1,
        true_leaf=last,
        false_leaf=np.ones(count, bool),
        value=np.array([1.0, *np.zeros(count)]),
        target=np.zeros(count + 1, int),
        targets=1,
    )
    found = ForestShapley(made, chain, np.ones((1, count))).values(-np.ones((1, count)))
    np.testing.assert_allclose(found[0, :, 0], 1 / count)  # all are needed, and alike


def test_trees_that_share_a_node_are_refused() -> None:
    made = forest(0, 2, 1, 2)
    shared = TreeSum(
        **{
            **{name: getattr(made, name) for name in TreeSum.__slots__},
            "true": np.zeros_like(made.true),
            "true_leaf": np.ones_like(made.true_leaf),
        }
    )
    with pytest.raises(ValueError, match="two parents"):
        ForestShapley(shared, np.arange(2), np.zeros((1, 2)))


def test_no_rows_have_no_contributions() -> None:
    made = ForestShapley(forest(0, 3, 2, 3), np.arange(3), np.zeros((2, 3)))
    assert made.values(np.zeros((0, 3))).shape == (0, 3, 1)


def test_of_a_linear_function_equal_the_definition() -> None:
    rng = np.random.default_rng(0)
    weights, background, rows = rng.normal(size=(3, 2)), rng.normal(size=(6, 3)), rng.normal(size=(2, 3))
    found = linear(weights, np.arange(3), background, rows)
    beside = {str(column): background[:, column].tolist() for column in range(3)}
    for row, values in enumerate(rows):
        expected = brute_force(
            lambda mixed, count: np.column_stack([mixed[str(column)] for column in range(3)]) @ weights,
            {str(column): values[column] for column in range(3)},
            beside,
        )
        np.testing.assert_allclose(found[row], expected, atol=1e-12)


def test_estimates_by_orders_are_within_their_errors_and_add_up() -> None:
    rng = np.random.default_rng(1)
    background, row = rng.normal(size=(40, 4)), rng.normal(size=4)

    def model(matrix: Any) -> Any:
        return (np.tanh(matrix[:, 0] * matrix[:, 1]) + matrix[:, 2] ** 2 * matrix[:, 3])[:, None]

    def asked(chosen: Any, rows: Any) -> Any:
        return model(np.where(chosen, row, background[rows]))

    exact = brute_force(
        lambda mixed, count: model(np.column_stack([mixed[str(column)] for column in range(4)])),
        {str(column): row[column] for column in range(4)},
        {str(column): background[:, column].tolist() for column in range(4)},
    )
    found, errors = by_permutations(asked, 4, len(background), calls=40 * 10 * 50)
    assert (np.abs(found - exact) < 4 * errors).all()
    assert errors.max() < 0.05
    total = model(row[None])[0] - model(background).mean(axis=0)
    np.testing.assert_allclose(found.sum(axis=0), total, atol=1e-9)  # each background row came equally often
