"""Exact contributions to a sum of trees or a linear function at the end of an ONNX graph.

The graph prepares each column of the model, which yields one or more features of the sum. The columns of the features
are found by changing one column at a time. A feature of several columns, as of a principal component analysis, is
refused: its contribution cannot be divided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mainspring.core.errors import Corrupt
from mainspring.registry.model import Bundle
from mainspring.registry.onnx_head import Head, read_head, with_outputs
from mainspring.serving.adapters.explaining import space_of
from mainspring.serving.adapters.onnx import OnnxExecutor
from mainspring.serving.background import MOST_ROWS, background_of, owner_of
from mainspring.serving.explanation import LOG_ODDS, SCORE, Contributions, Method, NotExplainable
from mainspring.serving.plane.executor import Array, closed
from mainspring.stats.shapley import ForestShapley, TreeSum, linear

_MODEL = "model.onnx"
_WORK = 2_000_000  # background rows times leaves: about 10 ms a row
_LEAST_ROWS = 25
_UNSEEN = "\u2400 no category"


class OnnxExplainer(OnnxExecutor):
    """Contributions to the last model of a bundle's graph, against held-out rows of the bundle.

    Raises:
        NotExplainable: The graph does not end with one sum of trees or one linear function of prepared columns.
        Corrupt: As of `OnnxExecutor`.
    """

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        self._owner = owner_of(bundle)
        head = read_head(bundle.files[_MODEL])
        if head is None:
            raise NotExplainable(self._owner, "its graph does not end with one sum of trees or one linear function")
        if head.linear is not None and head.linear[0].shape[1] == 2 and len(bundle.manifest.outputs) == 1:
            head = replace(head, linear=(head.linear[0][:, 1:], head.linear[1][1:]))  # the second class is meant
        self._trees = None if head.linear is not None else _tree_sum(head, self._owner)
        leaves = 0 if self._trees is None else len(self._trees.value)
        given, rows = background_of(bundle, min(MOST_ROWS, max(_LEAST_ROWS, _WORK // max(1, leaves))))
        self._inner = [head.matrix, *([head.raw] if head.raw else [])]
        content = with_outputs(bundle.files[_MODEL], self._inner)
        super().__init__(replace(bundle, files={**bundle.files, _MODEL: content}), threads=threads)
        try:
            self._compile(head, given, rows, bundle)
        except BaseException:
            self.close()
            raise

    def _compile(self, head: Head, given: Mapping[str, list[Any]], rows: int, bundle: Bundle) -> None:
        nothing: tuple[Array, Array] = np.zeros((0, 0)), np.zeros(0)
        self._weights, self._intercepts = head.linear or nothing
        background, totals, answers = self._run(given, rows)
        space = space_of(totals, answers)
        calibrated = space == SCORE and bundle.manifest.task == "binary"
        if space is None:
            raise NotExplainable(self._owner, "its answers do not follow from the sum of its last model")
        self._columns = self._owners(given, rows, background, bundle)
        self._background = background
        self._base = totals.mean(axis=0)
        if self._trees is not None:
            try:
                self._forest = ForestShapley(self._trees, self._columns, background)
            except ValueError as error:
                raise NotExplainable(self._owner, f"its trees have another structure ({error})") from error
        self.method = Method(
            name="linear" if self._trees is None else "tree-interventional",
            exact=True,
            space=LOG_ODDS if calibrated else space,
            calibrated=calibrated,
            background=rows,
        )

    def explain(self, inputs: Mapping[str, Sequence[Any] | Array], rows: int) -> Contributions:
        matrix, totals, _ = self._run(inputs, rows)
        if self._trees is not None:
            values = self._forest.values(matrix)
        else:
            values = linear(self._weights, self._columns, self._background, matrix)
        return Contributions(_without_rest(values, len(self.inputs)), self._base, totals)

    def _run(self, inputs: Mapping[str, Sequence[Any] | Array], rows: int) -> tuple[Array, Array, Array]:
        """Return the matrix, the sums and the answers of rows, shape (rows, features), (rows, targets) and (rows,
        outputs)."""
        if self._session is None:
            raise closed()
        found = self._session.run([*self._inner, *self._fetches], self._feed(inputs, rows))
        matrix = np.asarray(found[0], np.float64).reshape(rows, -1)
        split = self._split(found[len(self._inner) :], rows)
        answers = np.column_stack([np.asarray(split[name], np.float64) for name in self.outputs])
        if self._trees is None:
            totals = matrix @ self._weights + self._intercepts
        else:
            totals = np.asarray(found[1], np.float64).reshape(rows, -1)
        if totals.shape != answers.shape:
            raise NotExplainable(
                self._owner, f"its last model gives {totals.shape[1]} sums for {answers.shape[1]} outputs"
            )
        return matrix, totals, answers

    def _owners(self, given: Mapping[str, list[Any]], rows: int, before: Array, bundle: Bundle) -> Array:
        """Return the column of each feature of the matrix, shape (features,): the place in `inputs`, or their number
        for a feature that no column changes.
        """
        known = {each.name: each.categories for each in bundle.manifest.inputs}
        found = np.full(before.shape[1], len(self.inputs))
        for place, name in enumerate(self.inputs):
            values = given[name]
            others = [*values[rows // 2 :], *values[: rows // 2], *known[name]]
            if self.nullable(name):
                others += [None] * rows
            if any(isinstance(value, str) for value in others):
                others.append(_UNSEEN)
            count = len(others)
            beside = {key: [column[row % rows] for row in range(count)] for key, column in given.items()}
            after = self._run({**beside, name: others}, count)[0]
            unlike = after != before[np.arange(count) % rows]
            nulls = np.isnan(after) & np.isnan(before[np.arange(count) % rows])
            moved = (unlike & ~nulls).any(axis=0)
            if (found[moved] != len(self.inputs)).any():
                raise NotExplainable(self._owner, f"it prepares a feature from {name!r} and other columns together")
            found[moved] = place
        return found


def _without_rest(values: Array, columns: int) -> Array:
    """Return the contributions of the columns, zero for trailing columns without a feature. A feature that no probe has
    moved stays out, so if it contributes, the residual shows it."""
    found = np.zeros((len(values), columns, values.shape[2]))
    found[:, : values.shape[1]] = values[:, :columns]
    return found


def _tree_sum(head: Head, owner: str) -> TreeSum:
    trees = head.trees
    try:
        if trees["nodes_modes"].any() or int(trees["aggregate_function"]) != 1 or int(trees["post_transform"]) != 0:
            raise NotExplainable(owner, "its trees do not compare and add up in the usual way")
        split = trees["nodes_splits"].astype(np.float64)
        missing = trees.get("nodes_missing_value_tracks_true")
        return TreeSum(
            feature=trees["nodes_featureids"],
            split=split,
            null_true=np.zeros(len(split), bool) if missing is None else missing.astype(bool),
            true=trees["nodes_truenodeids"],
            false=trees["nodes_falsenodeids"],
            true_leaf=trees["nodes_trueleafs"].astype(bool),
            false_leaf=trees["nodes_falseleafs"].astype(bool),
            value=trees["leaf_weights"].astype(np.float64),
            target=trees["leaf_targetids"].astype(np.intp),
            targets=int(trees["n_targets"]),
        )
    except KeyError as error:
        raise Corrupt(f"The trees of {owner} have no {error}.") from error
